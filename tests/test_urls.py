"""URLs and their encrypted parameters: what is made is read again, and nothing else is, nor does anything raise."""

from __future__ import annotations

import base64
import enum
import hashlib
import hmac
import math
import subprocess
import sys
from collections.abc import Iterator, Mapping
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import pytest
from client import served
from hypothesis import example, given, settings
from hypothesis import strategies as st
from server import Server

from eighties import MultiDict, _engine, urls
from eighties.urls import MasterKey, Query, create_query, decrypt, encrypt, parse_query, set_master_key, to_url

pytestmark = pytest.mark.pure

KEY = "correct horse battery staple"
OTHER = "b64:" + base64.b64encode(bytes(range(32))).decode()

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
NAMES = TEXT.filter(lambda name: name not in urls.OPTIONS)
SCALARS = st.one_of(TEXT, st.integers(), st.floats(), st.booleans(), st.none())
PARAMS = st.dictionaries(NAMES, st.one_of(SCALARS, st.lists(SCALARS, max_size=4)), max_size=6)


@pytest.fixture(autouse=True)
def no_key() -> Iterator[None]:
    """Every test begins and ends without a master key."""
    set_master_key(None)
    yield
    set_master_key(None)


@pytest.fixture
def key(no_key: None) -> None:
    set_master_key(KEY)


def as_text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def expected(params: Mapping[str, object]) -> list[tuple[str, str]]:
    """What must be read of parameters, sorted by name."""
    pairs = []
    for name in sorted(params):
        value = params[name]
        values = value if isinstance(value, list) else [value]
        pairs += [(name, as_text(one)) for one in values if one is not None]
    return pairs


def read(url: str) -> Query:
    """The query of a URL as the request for it has it."""
    parts = urlsplit(url)
    return parse_query(parts.query, unquote(parts.path))


def sealed(url: str) -> str:
    return url.partition("?e=")[2]


# ---- master keys ----


@pytest.mark.parametrize(
    ("written", "secret"),
    [
        ("sixteen bytes, or", b"sixteen bytes, or"),
        (b"\x00" * 16, b"\x00" * 16),
        ("schlüsselwörter!", "schlüsselwörter!".encode()),
        ("\udcff" * 16, b"\xff" * 16),
        ("b64:" + "+/+/" * 6, base64.b64decode("+/+/" * 6)),
        ("b64:" + "-_-_" * 6, base64.b64decode("+/+/" * 6)),
        ("b64:AAAAAAAAAAAAAAAAAAAAAA==", b"\x00" * 16),
        ("b64:AAAAAAAAAAAAAAAAAAAAAA", b"\x00" * 16),
        ("b64:AAAAAAAAAAAAAAAAAAAAAA==\n", b"\x00" * 16),
        (b"b64:AAAAAAAAAAAAAAAAAAAAAA", b"\x00" * 16),
    ],
)
def test_how_a_master_key_may_be_written(written: str | bytes, secret: bytes) -> None:
    text = encrypt("a", written)
    assert decrypt(text, MasterKey(b"b64:" + base64.b64encode(secret))) == b"a"


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("", "0 bytes"),
        ("fifteen bytes..", "15 bytes"),
        ("b64:", "0 bytes"),
        ("b64:" + "A" * 20, "15 bytes"),
        ("b64:" + "A" * 25, "no base64"),
        ("b64:" + "A" * 24 + "=", "no base64"),
        ("b64:AAAAAAAAAAAAAAAAAAAAAA=", "no base64"),
        ("b64:AAAA AAAAAAAAAAAAAAAAAAAA", "no base64"),
        ("b64:AAAAAAAAAAAAAAAAAAAAAA==AA", "no base64"),
        ("b64:äöüäöüäöüäöüäöüäöü", "no base64"),
    ],
)
def test_a_bad_master_key_is_refused_with_advice(written: str, said: str) -> None:
    for make in (MasterKey, set_master_key, lambda key: MasterKey(KEY, key)):
        if not written and make is set_master_key:
            continue  # which takes the key out of force
        with pytest.raises(ValueError, match=f"{said}.*openssl rand -base64 32"):
            make(written)
    assert urls.master_key() is None


def test_a_master_key_does_not_show_itself() -> None:
    assert repr(MasterKey(KEY, OTHER)) == "<MasterKey, 1 old>"


def test_the_key_in_force() -> None:
    assert urls.master_key() is None
    made = MasterKey(KEY)
    set_master_key(made)
    assert urls.master_key() is made
    for nothing in (None, "", b""):
        set_master_key(KEY)
        set_master_key(nothing)
        assert urls.master_key() is None
        with pytest.raises(ValueError, match="need a new one"):
            set_master_key(nothing, OTHER)


def test_old_keys_open_and_the_new_one_seals(key: None) -> None:
    old = to_url("/a", {"id": 1})
    note = encrypt("note")
    set_master_key(OTHER, KEY)
    new = to_url("/a", {"id": 1})
    assert new != old
    assert read(old).e == read(new).e == MultiDict([("id", "1")])
    assert decrypt(note) == b"note"
    set_master_key(OTHER)
    assert not read(old).e
    assert read(new).e
    set_master_key(KEY)
    assert read(old).e
    assert not read(new).e


def hkdf(secret: bytes, info: bytes, size: int) -> bytes:
    """RFC 5869 §2 without salt, by hand."""
    extracted = hmac.digest(bytes(32), secret, "sha256")
    block, out = b"", b""
    for number in range(math.ceil(size / hashlib.sha256().digest_size)):
        block = hmac.digest(extracted, block + info + bytes([number + 1]), "sha256")
        out += block
    return out[:size]


def test_the_format_is_what_it_was(key: None) -> None:
    """URLs are in mails and bookmarks: whoever changes the format must give it a new first byte."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM, AESSIV

    url = to_url("/profile", {"id": 7, "b": ["x", "y&z"]})
    assert url == "/profile?e=ASvToHBn5fcuTEArGRIWrSdcdo4TNV04RMmk-ey7u_NL"
    siv = AESSIV(hkdf(KEY.encode(), b"80s \x01url\0/profile", 64))
    plain = b"b=x&b=y%26z&id=7"
    assert base64.urlsafe_b64decode(sealed(url)) == b"\x01" + siv.encrypt(plain, [b"\x01"])
    gcm = AESGCM(hkdf(KEY.encode(), b"80s \x02url\0/profile", 32))
    raw = base64.urlsafe_b64decode(sealed(to_url("/profile", {"id": 7, "iv": True})) + "==")
    assert raw[:1] == b"\x02"
    assert gcm.decrypt(raw[1:13], raw[13:], b"\x02") == b"id=7"


# ---- plain URLs ----


class Colour(enum.StrEnum):
    RED = "red one"


class Size(enum.IntEnum):
    LARGE = 3


@pytest.mark.parametrize(
    ("endpoint", "params", "fragment", "url"),
    [
        ("/", None, None, "/"),
        ("/", {}, None, "/"),
        ("/a", {"id": 7}, None, "/a?id=7"),
        ("/a", {"b": 1, "a": 2}, None, "/a?a=2&b=1"),
        ("/a", {"b": 1, "a": 2, "ordered": False}, None, "/a?b=1&a=2"),
        ("/a", {"b": 1, "a": 2, "ordered": True, "e": True, "iv": True}, None, "/a?a=2&b=1"),
        ("/a", {"e": False, "iv": False}, None, "/a"),
        ("/a", {"q": "a b&c=d+é%?#/:'\"<>"}, None, "/a?q=a%20b%26c%3Dd%2B%C3%A9%25%3F%23/:%27%22%3C%3E"),
        ("/a", {"é=&": ""}, None, "/a?%C3%A9%3D%26="),
        ("/a", {"a": True, "b": False, "c": None, "d": 1.5, "f": -0.0}, None, "/a?a=true&b=false&d=1.5&f=-0.0"),
        ("/a", {"a": 1e100}, None, "/a?a=1e%2B100"),
        ("/a", {"a": [3, None, "x"], "b": (1, 2), "c": []}, None, "/a?a=3&a=x&b=1&b=2"),
        ("/a", {"a": Colour.RED, "b": Size.LARGE}, None, "/a?a=red%20one&b=3"),
        ("/a", None, "top", "/a#top"),
        ("/a", None, "", "/a#"),
        ("/a", {"id": 7}, "ä b#'&", "/a?id=7#%C3%A4%20b%23%27%26"),
        ("/é b/c?d#e%20&'", {"id": 7}, None, "/%C3%A9%20b/c%3Fd%23e%2520%26%27?id=7"),
        ("//evil.example/x", None, None, "/%2Fevil.example/x"),
        ("///evil.example/x", None, None, "/%2F/evil.example/x"),
        ("/\\evil.example", None, None, "/%5Cevil.example"),
        ("/a\r\nb", None, None, "/a%0D%0Ab"),
    ],
)
def test_plain_urls(endpoint: str, params: Mapping[str, object] | None, fragment: str | None, url: str) -> None:
    assert to_url(endpoint, params, fragment) == url
    set_master_key(KEY)
    assert to_url(endpoint, {**(params or {}), "e": False}, fragment) == url
    assert unquote(urlsplit(url).path) == endpoint


@pytest.mark.parametrize("endpoint", ["", "a", "https://a.example/", "?a", "#"])
def test_an_endpoint_that_is_no_path_is_refused(endpoint: str) -> None:
    with pytest.raises(ValueError, match="does not begin with /"):
        to_url(endpoint, {"id": 7})


@pytest.mark.parametrize("value", [b"x", {"a": 1}, [[1]], object(), {1}])
def test_a_parameter_of_another_type_is_refused(value: object) -> None:
    with pytest.raises(TypeError, match="parameter pic is of type"):
        to_url("/a", {"pic": value})


def test_a_name_that_is_no_text_is_refused() -> None:
    with pytest.raises(TypeError, match="parameter name 1 is no text"):
        to_url("/a", {1: 2})  # type: ignore[dict-item]


@pytest.mark.parametrize("master", [None, KEY])
def test_half_a_surrogate_pair_is_no_unicode(master: str | None) -> None:
    set_master_key(master)
    with pytest.raises(ValueError, match="surrogates"):
        to_url("/a", {"a": "\ud800"})


@pytest.mark.parametrize("master", [None, KEY])
def test_a_url_has_a_bound(master: str | None) -> None:
    set_master_key(master)
    size = urls.MAX_URL
    while len(create_query({"a": "x" * size}, "/")) + 2 > urls.MAX_URL:
        size -= 1
    url = to_url("/", {"a": "x" * size})
    assert urls.MAX_URL - 2 <= len(url) <= urls.MAX_URL
    values = read(url).e if master else read(url)
    assert values.get("a") == "x" * size
    with pytest.raises(ValueError, match="a URL may have 8000"):
        to_url("/", {"a": "x" * (size + 1)})
    with pytest.raises(ValueError, match="a URL may have 8000"):
        to_url("/", {}, "x" * urls.MAX_URL)


@given(PARAMS, TEXT, TEXT)
def test_any_parameters_come_back_plain(params: dict[str, object], path: str, fragment: str) -> None:
    set_master_key(None)
    url = to_url("/" + path, params, fragment)
    assert url.isascii()
    assert not url.startswith("//")
    assert not set(url) & set(" \"'<>\\^`{|}\r\n\t")
    parts = urlsplit(url)
    assert (unquote(parts.path), unquote(parts.fragment)) == ("/" + path, fragment)
    assert read(url).pairs() == parse_qsl(parts.query, keep_blank_values=True) == expected(params)
    assert not read(url).e


# ---- encrypted URLs ----


@given(PARAMS, TEXT, st.booleans())
def test_any_parameters_come_back_encrypted(params: dict[str, object], path: str, iv: bool) -> None:
    set_master_key(KEY)
    url = to_url("/" + path, {**params, "iv": iv})
    query = read(url)
    assert query.e.pairs() == expected(params)
    assert query.keys() == (["e"] if expected(params) else [])
    assert query.e is query.e


@given(PARAMS.flatmap(lambda params: st.tuples(st.just(params), st.permutations(list(params)))))
def test_equal_parameters_give_equal_urls(params_and_order: tuple[dict[str, object], list[str]]) -> None:
    params, order = params_and_order
    set_master_key(KEY)
    shuffled = {name: params[name] for name in order}
    assert to_url("/a", params) == to_url("/a", shuffled)
    random = to_url("/a", {**params, "iv": 1})
    assert not expected(params) or random != to_url("/a", {**params, "iv": 1})
    kept = read(to_url("/a", {**shuffled, "ordered": False})).e
    assert sorted(kept.pairs(), key=lambda pair: pair[0]) == expected(params)


def test_encrypted_parameters_do_not_mix_with_plain_ones(key: None) -> None:
    e = sealed(to_url("/a", {"id": 7}))
    query = parse_query(f"id=8&e={e}&role=admin&e=x", "/a")
    assert query.e == MultiDict([("id", "7")])
    assert query["id"] == "8"
    assert query.pairs() == [("id", "8"), ("e", e), ("role", "admin"), ("e", "x")]
    assert not parse_query(f"e=x&e={e}", "/a").e


def test_what_the_parameters_are_does_not_change(key: None) -> None:
    params: dict[str, object] = {"id": [1, 2], "iv": True, "e": True, "ordered": False}
    before = dict(params)
    to_url("/a", params)
    assert params == before


def test_without_a_key_or_an_endpoint_e_is_empty(key: None) -> None:
    e = sealed(to_url("/a", {"id": 7}))
    assert not parse_query(f"e={e}").e
    assert create_query({"id": 7}) == "id=7"
    set_master_key(None)
    assert not parse_query(f"e={e}", "/a").e
    assert not parse_query("e=", "/a").e


@given(TEXT, TEXT)
@example("/a", "/A")
@example("/a", "/a/")
@example("/a", "/a\0")
@example("/" + "x" * 600, "/" + "x" * 601)
def test_an_endpoints_link_is_worth_nothing_at_another(one: str, other: str) -> None:
    set_master_key(KEY)
    for iv in (False, True):
        query = create_query({"id": 7, "iv": iv}, one)
        assert bool(parse_query(query, other).e) == (one == other)


@settings(max_examples=30)
@given(st.binary(min_size=16, max_size=40), st.binary(min_size=16, max_size=40), st.booleans())
def test_a_link_of_another_key_is_worth_nothing(one: bytes, other: bytes, iv: bool) -> None:
    one, other = one.hex().encode(), other.hex().encode()
    set_master_key(one)
    query = create_query({"id": 7, "iv": iv}, "/a")
    set_master_key(other)
    assert bool(parse_query(query, "/a").e) == (one == other)


@given(st.binary(), st.booleans())
def test_purposes_do_not_open_each_others(data: bytes, iv: bool) -> None:
    made = MasterKey(KEY)
    data += b"."
    for purpose in ("url", "session", "encrypt"):
        text = made.seal(purpose, "", data, iv=iv)
        assert made.open(purpose, "", text) == data
        assert made.open(purpose, "x", text) is made.open(purpose, "", text, bound="x") is None
        for other in {"url", "session", "encrypt"} - {purpose}:
            assert made.open(other, "", text) is None
    assert made.open("url", "", made.seal("url", "", data, bound="a", iv=iv), bound="a") == data


@pytest.mark.parametrize("iv", [False, True])
def test_every_change_of_a_character_and_every_cut_is_noticed(key: None, iv: bool) -> None:
    e = sealed(to_url("/a", {"id": 7, "iv": iv}))
    assert parse_query("e=" + e, "/a").e
    for at in range(len(e)):
        bad = [e[:at] + char + e[at + 1 :] for char in "ABCDEabcde0189-_%+ =/.é\0" if char != e[at]]
        bad += [e[:at], e[:at] + e[at + 1 :], e[: at + 1] + "A" + e[at + 1 :], e[: at + 1] + "%20" + e[at + 1 :]]
        for text in bad:
            if _engine.parse_query("e=" + text).get("e") != e:
                assert not parse_query("e=" + text, "/a").e, (at, text)
    for text in (e + "=", e + "==", e + "\n", "A" + e, e + "A" * urls.MAX_URL, "A" * 100_000, "-" * 43):
        assert not parse_query("e=" + text, "/a").e


@pytest.mark.parametrize("iv", [False, True])
def test_an_e_longer_than_any_url_is_not_opened(key: None, iv: bool) -> None:
    for size, good in ((5900, True), (6000, False)):
        query = create_query({"a": "x" * size, "iv": iv}, "/")
        assert (len(query) - 2 <= urls.MAX_URL) == bool(parse_query(query, "/").e) == good


def test_the_last_bits_of_base64_count(key: None) -> None:
    """Of a last character not all bits are data: the text must be the one made, not one that decodes alike."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    for value in ("", "x", "xy"):
        e = sealed(to_url("/a", {"a": value}))
        assert [char for char in alphabet if parse_query("e=" + e[:-1] + char, "/a").e] == [e[-1]]


@given(st.one_of(TEXT, st.binary(), st.text()), st.text())
@example("e=\ud800", "/\ud800")
@example("e=%ff&e", "/")
@example(b"\xff\x00=&&&e", "")
def test_no_query_raises(text: str | bytes, endpoint: str) -> None:
    set_master_key(KEY, OTHER)
    query = parse_query(text, endpoint)
    assert not query.e
    assert query.pairs() == _engine.parse_query(text).pairs()
    wrapped = Query(MultiDict([("e", text)] if isinstance(text, str) else []), endpoint)
    assert not wrapped.e


@given(st.binary(max_size=80), st.sampled_from([b"", b"\x01", b"\x02", b"\x03"]))
def test_no_bytes_in_base64_raise(data: bytes, kind: bytes) -> None:
    set_master_key(KEY, OTHER)
    text = base64.urlsafe_b64encode(kind + data).decode().rstrip("=")
    assert not parse_query("e=" + text, "/a").e
    assert decrypt(text) is None


@settings(max_examples=300)
@given(st.data(), st.booleans())
def test_no_mutation_of_a_good_one_opens(data: st.DataObject, iv: bool) -> None:
    set_master_key(KEY)
    e = sealed(to_url("/a", {"id": 7, "iv": iv}))
    raw = bytearray(base64.urlsafe_b64decode(e + "=" * (-len(e) % 4)))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(raw)))
        raw[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    text = base64.urlsafe_b64encode(raw).decode().rstrip("=")
    assert bool(parse_query("e=" + text, "/a").e) == (text == e)


def test_derived_keys_are_bounded(key: None) -> None:
    made = urls.master_key()
    assert made is not None
    kept = made._cipher.cache_info  # type: ignore[attr-defined]
    for number in range(2 * urls.MAX_DERIVED):
        assert not parse_query("e=AQ" + "A" * 40, f"/{number}").e
    assert kept().currsize == urls.MAX_DERIVED
    misses = kept().misses
    assert not parse_query("e=AQ" + "A" * 40, "/" + "x" * urls.MAX_CONTEXT).e
    assert kept().misses == misses


# ---- Query as a MultiDict ----


@given(TEXT)
def test_a_query_reads_like_the_engines_multidict(text: str) -> None:
    text = "a=1&b=2&a=3&" + text
    plain, query = _engine.parse_query(text), parse_query(text, "/")
    assert query == plain == query == parse_query(text)
    assert query != MultiDict([("a", "1")])
    assert (query["a"], query.getall("a")) == (plain["a"], plain.getall("a"))
    assert (query.keys(), query.values(), query.items()) == (plain.keys(), plain.values(), plain.items())
    assert (list(query), len(query), dict(query)) == (list(plain), len(plain), dict(plain))
    assert "a" in query
    assert "nothing" not in query or "nothing" in plain
    assert query.get("no such", 5) == 5
    assert query.get("no such") is None
    with pytest.raises(KeyError):
        query["no such"]
    with pytest.raises(TypeError):
        hash(query)


def test_a_query_shows_what_came_plain(key: None) -> None:
    assert repr(parse_query("a=1", "/")) == "<Query [('a', '1')]>"


# ---- encrypt and decrypt ----


@given(st.one_of(st.binary(), TEXT), st.booleans())
def test_anything_is_encrypted_and_decrypted(data: bytes | str, iv: bool) -> None:
    set_master_key(KEY)
    text = encrypt(data, iv=iv)
    plain = data.encode() if isinstance(data, str) else data
    assert decrypt(text) == decrypt(text, KEY) == plain
    assert decrypt(text, OTHER) is None
    assert (encrypt(data, MasterKey(KEY), iv=iv) == text) == (not iv)
    assert len(text) == math.ceil((len(plain) + (30 if iv else 18)) * 4 / 3)


@given(st.text())
def test_no_text_raises_in_decrypt(text: str) -> None:
    assert decrypt(text, KEY) is None


def test_encrypt_needs_a_key() -> None:
    assert decrypt(None, KEY) is None
    with pytest.raises(RuntimeError, match="set MASTER_KEY"):
        encrypt("a")
    with pytest.raises(RuntimeError, match="set MASTER_KEY"):
        decrypt("a")
    with pytest.raises(ValueError, match="it must have 16 or more"):
        encrypt("a", "short")


# ---- what is imported, and a server ----

LAZY = """
import sys
import eighties
from eighties import App, urls, sessions
urls.to_url("/a", {"id": 7})
urls.set_master_key("correct horse battery staple")
assert not urls.parse_query("a=1&e", "/a").e and not urls.parse_query("e=%", "/a").e
store = sessions.CookieStore(urls.master_key())
assert not urls.to_url("/a", {"id": 7, "e": False}).startswith("/a?e=")
assert not [name for name in sys.modules if name.split(".")[0] == "cryptography"]
assert urls.to_url("/a", {"id": 7}).startswith("/a?e=")
assert "cryptography" in sys.modules
"""


def test_cryptography_is_imported_when_something_is_encrypted() -> None:
    subprocess.run([sys.executable, "-c", LAZY], check=True, timeout=60)


PROGRAM = """
from eighties import App
from eighties.urls import Query, set_master_key, to_url
app = App()
set_master_key("correct horse battery staple")

@app.get("/link/{rest:path}")
def link(request, rest):
    return to_url("/" + rest, dict(request.query))

@app.get("/read/{rest:path}")
def read(request, rest):
    query = Query(request.query, request.path)
    return {"plain": query.pairs(), "e": query.e.pairs()}
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from served(PROGRAM, tmp_path_factory.mktemp("urls"))


@pytest.mark.parametrize("path", ["read/a", "read/ä b+c%20d&e'f", "read/a?b#c", "read/a:@!$()*,;=~._-"])
def test_links_through_a_server(server: Server, path: str) -> None:
    url = server.get("/link/" + quote(path) + "?" + create_query({"id": 7, "ä": "&é+"})).text
    answer = server.get(url + "&id=8").json()
    assert answer["e"] == [["id", "7"], ["ä", "&é+"]]
    assert answer["plain"][1:] == [["id", "8"]]
    assert server.get(url.replace("/read/", "/read/x")).json()["e"] == []
