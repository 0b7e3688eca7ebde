"""Sessions: what is kept comes back, whatever a client makes up is an empty session, and only changes set a cookie."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from client import served
from hypothesis import example, given, settings
from hypothesis import strategies as st
from server import Server

from eighties import Request, Response, sessions
from eighties.sessions import CookieStore, MemoryStore, Session, Store
from eighties.urls import MasterKey

pytestmark = pytest.mark.pure

KEY = MasterKey("correct horse battery staple")
OTHER = MasterKey("another key of some length")

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=8,
)
VALUES = st.dictionaries(st.text(max_size=9), JSON, max_size=4)


class Clock:
    """The time that the stores see, in seconds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1_800_000_000.0
        monkeypatch.setattr(sessions, "time", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


class Browser:
    """Keeps the cookies of a store's answers, and shows them in the next request."""

    def __init__(self, store: Store, scheme: str = "http") -> None:
        self.store = store
        self.scheme = scheme
        self.cookies: dict[str, str] = {}

    def load(self) -> Session:
        return self.store.load(cast(Request, SimpleNamespace(cookies=self.cookies, scheme=self.scheme)))

    def save(self, session: Session) -> str | None:
        """The Set-Cookie of the answer, if it has one."""
        response = Response("a")
        self.store.save(session, response)
        assert response.headers["Vary"] == "Cookie"
        found = response.headers.getall("Set-Cookie")
        assert len(found) < 2
        for field in found:
            name, _, value = field.partition(";")[0].partition("=")
            self.cookies[name] = value
            if "Max-Age=0" in field:
                assert value == ""
                del self.cookies[name]
        return found[0] if found else None

    def visit(self, **values: Any) -> str | None:
        """A request that puts values into the session."""
        session = self.load()
        session.update(values)
        return self.save(session)


STORES: dict[str, Callable[[], Store]] = {"cookie": lambda: CookieStore(KEY), "memory": MemoryStore}


@pytest.fixture(params=STORES)
def browser(request: pytest.FixtureRequest) -> Browser:
    return Browser(STORES[request.param]())


# ---- what every store does ----


def test_a_session_is_kept_and_only_changes_set_the_cookie(browser: Browser) -> None:
    session = browser.load()
    assert session == {}
    assert browser.save(session) is None
    assert browser.visit(name="Ada", cart=[1, {"n": 2}]) is not None
    session = browser.load()
    assert session == {"name": "Ada", "cart": [1, {"n": 2}]}
    assert browser.save(session) is None
    session["name"] = "Ada"
    assert browser.save(session) is None
    session["cart"][1]["n"] = 3
    assert browser.save(session) is not None
    assert browser.load()["cart"] == [1, {"n": 3}]


def test_an_emptied_session_deletes_its_cookie(browser: Browser) -> None:
    browser.visit(name="Ada")
    kept = dict(browser.cookies)
    session = browser.load()
    session.clear()
    assert browser.save(session) == "session=; Max-Age=0; Path=/; SameSite=Lax"
    assert browser.cookies == {}
    session = browser.load()
    session["a"] = 1
    del session["a"]
    session.renew()
    assert browser.save(session) is None
    browser.cookies = kept  # a copy made before: worth nothing where the server keeps the sessions
    assert bool(browser.load()) == isinstance(browser.store, CookieStore)


@given(VALUES, st.sampled_from(sorted(STORES)))
@example({"a": "\ud800", "é": ["\0", "\u2028", 1e300, -0.0, 10**40]}, "cookie")
@example({"": None, "\udfff": {"": {}}}, "memory")
def test_any_json_comes_back(values: dict[str, Any], store: str) -> None:
    browser = Browser(STORES[store]())
    assert (browser.visit(**values) is None) == (not values)
    session = browser.load()
    assert session == values
    assert repr(session) == repr(values)
    assert browser.save(session) is None


@pytest.mark.parametrize("value", [{1}, b"x", object(), float("nan"), float("inf"), {(1, 2): 3}])
def test_what_json_does_not_have_is_refused(browser: Browser, value: object) -> None:
    session = browser.load()
    session["a"] = value
    with pytest.raises((TypeError, ValueError), match="keep in it what JSON has"):
        browser.save(session)


def test_a_circle_is_refused(browser: Browser) -> None:
    session = browser.load()
    session["a"] = session
    with pytest.raises(ValueError, match="Circular.*keep in it what JSON has"):
        browser.save(session)


def test_the_cookies_attributes(browser: Browser) -> None:
    field = browser.visit(a=1)
    assert field is not None
    assert re.fullmatch(r"session=[\w-]+; Max-Age=1209600; Path=/; SameSite=Lax; HttpOnly", field)
    browser.scheme = "https"
    field = browser.visit(a=2)
    assert field is not None
    assert re.fullmatch(r"session=[\w-]+; Max-Age=1209600; Path=/; SameSite=Lax; Secure; HttpOnly", field)
    session = browser.load()
    session.clear()
    assert browser.save(session) == "session=; Max-Age=0; Path=/; SameSite=Lax; Secure"


@pytest.mark.parametrize("store", [CookieStore(KEY, "s", 60, secure=True), MemoryStore("s", 60, secure=True)])
def test_behind_a_proxy_that_speaks_https(store: Store) -> None:
    field = Browser(store).visit(a=1)
    assert field is not None
    assert field.startswith("s=")
    assert field.endswith("; Max-Age=60; Path=/; SameSite=Lax; Secure; HttpOnly")


def test_arguments_of_a_store_are_looked_at() -> None:
    for name in ("", "a b", "a;b", "ä"):
        with pytest.raises(ValueError, match="is no token"):
            CookieStore(KEY, name)
        with pytest.raises(ValueError, match="is no token"):
            MemoryStore(name)
    for age in (0, -1):
        with pytest.raises(ValueError, match="1 second or more"):
            CookieStore(KEY, max_age=age)


def test_an_old_session_is_empty(browser: Browser, clock: Clock) -> None:
    browser.visit(a=1)
    clock.now += sessions.MAX_AGE - 1
    assert browser.load() == {"a": 1}
    clock.now += 2
    assert browser.load() == {}


def test_renew_begins_its_age_anew(browser: Browser, clock: Clock) -> None:
    browser.visit(a=1)
    clock.now += sessions.MAX_AGE - 1
    before = dict(browser.cookies)
    session = browser.load()
    session.renew()
    assert browser.save(session) is not None
    assert browser.cookies != before
    clock.now += sessions.MAX_AGE - 1
    assert browser.load() == {"a": 1}
    browser.cookies = before
    assert browser.load() == {}


@given(st.text() | st.binary().map(lambda data: base64.urlsafe_b64encode(data).decode().rstrip("=")))
@example("A" * 100_000)
@example("\ud800")
def test_no_cookie_raises(text: str) -> None:
    for make in STORES.values():
        browser = Browser(make())
        browser.visit(a=1)
        browser.cookies = {"session": text}
        session = browser.load()
        assert session == {}
        assert browser.save(session) is None


# ---- CookieStore ----


def test_every_change_of_a_character_and_every_cut_is_noticed() -> None:
    browser = Browser(CookieStore(KEY))
    browser.visit(user=7)
    good = browser.cookies["session"]
    for at in range(len(good)):
        bad = [good[:at] + char + good[at + 1 :] for char in "ABYZabyz0189-_+/=. é\0" if char != good[at]]
        for text in [*bad, good[:at], good[:at] + good[at + 1 :], good[:at] + "A" + good[at:]]:
            browser.cookies["session"] = text
            assert text == good or browser.load() == {}, (at, text)
    browser.cookies["session"] = good
    assert browser.load() == {"user": 7}


@settings(max_examples=300)
@given(st.data())
def test_no_mutation_of_a_good_one_opens(data: st.DataObject) -> None:
    browser = Browser(CookieStore(KEY))
    browser.visit(user=7)
    good = browser.cookies["session"]
    raw = bytearray(base64.urlsafe_b64decode(good + "=" * (-len(good) % 4)))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(raw)))
        raw[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    browser.cookies["session"] = base64.urlsafe_b64encode(raw).decode().rstrip("=")
    assert bool(browser.load()) == (browser.cookies["session"] == good)


def test_a_cookie_of_another_key_name_or_purpose_is_empty() -> None:
    browser = Browser(CookieStore(KEY))
    browser.visit(user=7)
    value = browser.cookies["session"]
    browser.cookies["other"] = value
    for store in (CookieStore(OTHER), CookieStore(KEY, "other"), CookieStore(MasterKey("a new master key"))):
        browser.store = store
        assert browser.load() == {}
    stamped = (1 << 40).to_bytes(8, "big") + b'{"user":7}'
    for purpose, context, name in (("url", "", "session"), ("session", "/", "session"), ("session", "", "")):
        browser.store = CookieStore(KEY)
        browser.cookies["session"] = KEY.seal(purpose, context, stamped, bound=name, iv=True)
        assert browser.load() == {}


@pytest.mark.parametrize(
    "plain",
    [b"{", b"[]", b"7", b"null", b'"a"', b"\xff", b"[" * 2000, b'{"a":' * 700, b"NaN", b"", b"1" * 2900],
)
def test_what_is_sealed_but_no_session_is_empty(plain: bytes, clock: Clock) -> None:
    browser = Browser(CookieStore(KEY))
    for stamp in (int(clock.now).to_bytes(8, "big"), b""):
        browser.cookies["session"] = KEY.seal("session", "", stamp + plain + b" " * 8, bound="session", iv=True)
        session = browser.load()
        assert session == {}
        assert browser.save(session) is None


def test_json_that_is_too_deep_is_an_empty_session() -> None:
    assert Session(b"[" * 1_000_000) == {}


def test_a_cookie_that_no_browser_would_keep_is_empty(clock: Clock) -> None:
    browser = Browser(CookieStore(KEY))
    for size, good in ((2900, True), (3100, False)):
        plain = int(clock.now).to_bytes(8, "big") + b'{"a":"%s"}' % (b"x" * size)
        browser.cookies["session"] = KEY.seal("session", "", plain, bound="session", iv=True)
        assert bool(browser.load()) == good


def test_a_cookie_from_the_future_is_good_for_a_while(clock: Clock) -> None:
    browser = Browser(CookieStore(KEY))
    browser.visit(a=1)
    clock.now -= sessions.MAX_SKEW
    assert browser.load() == {"a": 1}
    clock.now -= 2
    assert browser.load() == {}


def test_keys_are_rotated() -> None:
    old, new = "the key before this one", "the key in force today"
    browser = Browser(CookieStore(MasterKey(old)))
    browser.visit(a=1)
    browser.store = CookieStore(MasterKey(new, old))
    session = browser.load()
    assert session == {"a": 1}
    assert browser.save(session) is None
    browser.visit(a=2)
    browser.store = CookieStore(MasterKey(new))
    assert browser.load() == {"a": 2}


def test_equal_sessions_have_different_cookies() -> None:
    values = set()
    for _ in range(20):
        browser = Browser(CookieStore(KEY))
        browser.visit(a=1)
        values.add(browser.cookies["session"])
    assert len(values) == 20


@pytest.mark.parametrize("name", ["session", "s", "n" * 500])
@pytest.mark.parametrize("secure", [False, True])
def test_a_cookie_is_at_most_as_large_as_browsers_keep(name: str, secure: bool) -> None:
    browser = Browser(CookieStore(KEY, name, max_age=10**12, secure=secure))
    low, high = 0, 5000
    while high - low > 1:  # the largest that is accepted
        middle = (low + high) // 2
        try:
            browser.visit(a="x" * middle)
            low = middle
        except ValueError:
            high = middle
    browser.cookies.clear()
    field = browser.visit(a="x" * low)
    assert field is not None
    assert sessions.MAX_COOKIE - 40 < len(field) <= sessions.MAX_COOKIE
    assert browser.load() == {"a": "x" * low}
    with pytest.raises(ValueError, match=f"{high + 8} bytes make a cookie of .* browsers keep 4096; keep less in it"):
        browser.visit(a="x" * high)


# ---- MemoryStore ----


def test_ids_are_the_stores_own() -> None:
    store = MemoryStore()
    browser = Browser(store)
    browser.cookies["session"] = "chosen-by-the-client"
    browser.visit(a=1)
    first = browser.cookies["session"]
    assert first != "chosen-by-the-client"
    assert len(first) == 43
    browser.visit(a=2)
    assert browser.cookies["session"] == first
    session = browser.load()
    session.renew()
    browser.save(session)
    assert browser.cookies["session"] != first
    assert len(store) == 1
    browser.cookies["session"] = first
    assert browser.load() == {}


def test_a_session_ended_by_another_request_does_not_come_back() -> None:
    store = MemoryStore()
    browser = Browser(store)
    browser.visit(user=7)
    slow, logout = browser.load(), browser.load()
    logout.clear()
    browser.save(logout)
    slow["seen"] = True
    assert browser.save(slow) is None
    assert len(store) == 0


def test_requests_at_once_do_not_see_each_others_changes() -> None:
    browser = Browser(MemoryStore())
    browser.visit(cart=[1])
    one, other = browser.load(), browser.load()
    one["cart"].append(2)
    assert other["cart"] == [1]


def test_the_store_is_bounded(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    monkeypatch.setattr(sessions, "MAX_SESSIONS", 3)
    store = MemoryStore(max_age=100)
    browsers = [Browser(store) for _ in range(4)]
    for browser in browsers[:3]:
        browser.visit(a=1)
    browsers[0].visit(a=2)
    browsers[3].visit(a=1)
    assert [browser.load().get("a") for browser in browsers] == [2, None, 1, 1]
    assert len(store) == 3
    clock.now += 100
    browsers[1].visit(a=3)
    assert len(store) == 1  # those that are too old have gone
    with pytest.raises(ValueError, match="it may have 65536"):
        browsers[2].visit(a="x" * sessions.MAX_BYTES)


# ---- a server ----

PROGRAM = """
from eighties import App, Response
from eighties.sessions import CookieStore
from eighties.urls import MasterKey
app = App()
store = CookieStore(MasterKey("correct horse battery staple"))

@app.get("/count")
def count(request):
    session = store.load(request)
    session["count"] = session.get("count", 0) + 1
    response = Response.text(str(session["count"]))
    store.save(session, response)
    return response
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from served(PROGRAM, tmp_path_factory.mktemp("sessions"))


def test_a_counter_through_a_server(server: Server) -> None:
    cookie = "session=x"
    for number in ("1", "2", "3"):
        reply = server.get("/count", Cookie=cookie)
        assert reply.text == number
        cookie = reply.headers["Set-Cookie"].partition(";")[0]
    assert server.get("/count", Cookie=cookie[:-1]).text == "1"
