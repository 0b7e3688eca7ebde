"""examples/simple_http.py, the first program a newcomer reads, serves what it says."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from client import Client, served
from server import Server

EXAMPLE = Path(__file__).parent.parent / "examples" / "simple_http.py"


@pytest.fixture(scope="module", params=[1, 2], ids=["1 worker", "2 workers"])
def example(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from served(EXAMPLE, tmp_path_factory.mktemp("example"), "-c", str(request.param))


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/echo?name=World", "Hi, World!"),
        ("/echo?name=J%C3%B6rg+X&name=2", "Hi, Jörg X!"),
        ("/echo?name=", "Hi, !"),
        ("/echo", "Hi, Nomad!"),
        ("/stream?n=3", "line 1\nline 2\nline 3\n"),
        ("/stream?n=0", ""),
    ],
)
def test_example_texts(example: Server, path: str, text: str) -> None:
    reply = example.get(path)
    assert (reply.status, reply.text) == (200, text)
    assert reply.headers["content-type"] == "text/plain; charset=utf-8"
    assert reply.headers["server"] == "80s"


def test_example_headers(example: Server) -> None:
    reply = example.get("/headers", **{"X-One": "1", "Accept": "a/b"})
    assert reply.headers["content-type"] == "application/json"
    assert reply.json() == {
        "host": f"127.0.0.1:{example.port}",
        "accept-encoding": "identity",
        "x-one": "1",
        "accept": "a/b",
    }


def test_example_ip(example: Server) -> None:
    with Client(example) as client:
        address, port = client.socket.getsockname()
        assert client.request("GET", "/ip").text == f"{address}:{port}"


def test_example_worker(example: Server) -> None:
    count = len(example.workers)
    assert {int(example.get("/worker").text) for _ in range(20)} <= set(range(count))


def test_example_info(example: Server) -> None:
    info = example.get("/info").json()
    assert set(info) == {"version", "build", "python", "loop", "poller"}
    assert re.match(r"3\.1\d\.", info["python"])
    assert info["loop"] in ("asyncio", "uvloop")
    assert info["poller"] in ("epoll", "kqueue")


@pytest.mark.parametrize(
    ("haystack", "needle", "found"),
    [
        ("hello+world", "world", [6, 5]),
        ("hello+wor", "world", [6, 3]),
        ("hello", "world", [5, 0]),
        ("J%C3%B6rg", "g", [3, 1]),
        ("%0D%0A%0D", "%0D%0A%0D%0A", [0, 3]),
        ("", "x", [0, 0]),
        ("x", "", [1, 0]),
        ("a" * 3900, "a" * 3900 + "b", [0, 3900]),
    ],
)
def test_example_search(example: Server, haystack: str, needle: str, found: list[int]) -> None:
    reply = example.get(f"/search?haystack={haystack}&needle={needle}")
    assert (reply.json(), reply.headers["content-type"]) == (found, "application/json")
    assert example.get("/search").json() == [0, 0]


@pytest.mark.parametrize("size", [0, 1, 9_000, 1_000_000])
def test_example_body(example: Server, size: int) -> None:
    body = os.urandom(size)
    reply = example.request("POST", "/body", body)
    assert reply.body == body
    assert reply.headers["content-type"] == "application/octet-stream"


@pytest.mark.parametrize("size", [0, 1, 70_000, 5_000_000])
def test_example_upload(example: Server, size: int) -> None:
    body = os.urandom(size)
    expected = {"length": size, "sha256": hashlib.sha256(body).hexdigest()}
    assert example.request("POST", "/upload", body).json() == expected
    with Client(example) as client:
        pieces = [body[start : start + 50_000] for start in range(0, size, 50_000)]
        chunked = {"Transfer-Encoding": "chunked"}
        assert client.request("POST", "/upload", pieces, chunked).json() == expected
        assert client.request("GET", "/echo").text == "Hi, Nomad!"


@pytest.mark.parametrize("n", ["x", "-1", "1000000000000", "1.5", "", "%00"])
def test_example_stream_is_bounded(example: Server, n: str) -> None:
    reply = example.get(f"/stream?n={n}")
    assert (reply.status, reply.text) == (400, "n must be a number of at most 6 digits\n")


def test_example_stream_is_chunked(example: Server) -> None:
    reply = example.get("/stream?n=20000")
    assert reply.headers["transfer-encoding"] == "chunked"
    assert reply.text.splitlines() == [f"line {n}" for n in range(1, 20001)]


def test_example_users(example: Server) -> None:
    assert example.get("/users/2").json() == {"id": 2, "name": "Grace Hopper"}
    reply = example.get("/users/99")
    assert (reply.status, reply.text) == (404, "there is no user 99\n")
    assert example.get("/users/x").status == 404
    assert example.get("/users/-1").status == 404


def test_example_methods(example: Server) -> None:
    with Client(example) as client:
        head = client.request("HEAD", "/echo?name=World")
        assert (head.status, head.body, head.headers["content-length"]) == (200, b"", "10")
        head = client.request("HEAD", "/stream?n=5")
        assert (head.status, head.body) == (200, b"")
        wrong = client.request("DELETE", "/echo")
        assert (wrong.status, set(wrong.headers["allow"].split(", "))) == (405, {"GET", "HEAD", "OPTIONS"})
        options = client.request("OPTIONS", "/body")
        assert options.status in (200, 204)
        assert set(options.headers["allow"].split(", ")) == {"POST", "OPTIONS"}
        assert client.request("GET", "/none").status == 404


def test_example_pipelined(example: Server) -> None:
    with Client(example) as client:
        client.send("".join(f"GET /echo?name={n} HTTP/1.1\r\nHost: x\r\n\r\n" for n in range(50)))
        text = b""
        while text.count(b"Hi, ") < 50:
            text += client.socket.recv(65536)
        assert re.findall(rb"Hi, (\d+)!", text) == [str(n).encode() for n in range(50)]
