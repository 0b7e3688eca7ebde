"""docs/async.md: every Python block is a program that a server runs, and does what the comment before it says.

The comment is HTML, so readers of the page do not see it. Its lines:

    workers 2                   serve with two workers
    peer "text"                 port 7000 is a server that sends this and ends its side
    GET /path => text           the answer contains the text
    send "a", "b" => "text"     a connection, on which this is sent piece by piece, gets an answer with the text in it
    touch path                  a file in the program's folder is written
    log => text                 the server has logged this
"""

from __future__ import annotations

import ast
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from conftest import Serve
from server import PATIENCE, Server, wait_until

PAGE = Path(__file__).parent.parent / "docs" / "async.md"
BLOCK = re.compile(r"(?:<!--\n(?P<script>.*?)\n-->\n)?```python\n(?P<code>.*?)```", re.S)
BLOCKS = list(BLOCK.finditer(PAGE.read_text()))
PEER_PORT = "7000"


def title(block: re.Match[str]) -> str:
    """The heading that a block stands under, and its line."""
    before = PAGE.read_text()[: block.start()]
    heading = re.findall(r"^#+ (.*)$", before, re.M)[-1]
    return f"{heading}:{before.count(chr(10)) + 1}"


@contextmanager
def peer(text: bytes) -> Iterator[int]:
    """A server that sends a text to whoever connects, and waits for their end. Gives its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def talk() -> None:
            while True:
                try:
                    client = listener.accept()[0]
                except OSError:
                    return
                with client:
                    client.settimeout(PATIENCE)
                    client.sendall(text)
                    client.shutdown(socket.SHUT_WR)
                    while client.recv(4096):
                        pass

        thread = threading.Thread(target=talk)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def talk_to(server: Server, pieces: list[bytes], expected: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as client:
        for piece in pieces:
            client.sendall(piece)
        answer = b""
        while expected not in answer:
            chunk = client.recv(4096)
            assert chunk, f"the connection ended with {answer!r}, not {expected!r}"
            answer += chunk


def get_until(server: Server, path: str, expected: str) -> None:
    """Ask until the answer holds the text: what happens in the background, or in another worker, takes its time."""
    answers: list[str] = []

    def answered() -> bool:
        answers[:] = [server.get(path).text]
        return expected in answers[0]

    try:
        wait_until(answered, path)
    except AssertionError:
        raise AssertionError(f"GET {path} gave {answers[0]!r}, not {expected!r}:\n{server.stderr}") from None


def play(server: Server, folder: Path, line: str) -> None:
    """Do what a line of the comment says."""
    what, _, expected = (part.strip() for part in line.partition("=>"))
    verb, _, rest = what.partition(" ")
    if verb == "GET":
        get_until(server, rest, expected)
    elif verb == "send":
        talk_to(server, [text.encode() for text in ast.literal_eval(f"[{rest}]")], ast.literal_eval(expected).encode())
    elif verb == "touch":
        (folder / rest).write_text("x")
    elif verb == "log":
        server.wait_for(expected)
    else:
        raise AssertionError(f"docs/async.md: what is {line!r}?")


def test_every_example_is_tested() -> None:
    assert len(BLOCKS) == PAGE.read_text().count("```python\n") > 10
    assert not [title(block) for block in BLOCKS if not block["script"]]


@pytest.mark.parametrize("block", BLOCKS, ids=title)
def test_example_of_the_page(block: re.Match[str], serve: Serve, tmp_path: Path) -> None:
    script, code = block["script"].splitlines(), block["code"]
    arguments: list[str] = []
    with ExitStack() as stack:
        if script[0].startswith("peer "):
            port = stack.enter_context(peer(ast.literal_eval(script.pop(0)[5:]).encode("latin-1")))
            assert PEER_PORT in code
            code = code.replace(PEER_PORT, str(port))
        if script[0].startswith("workers "):
            arguments = ["-c", script.pop(0)[8:]]
        (tmp_path / "folder").mkdir()
        server = serve(code, *arguments)
        for line in script:
            play(server, tmp_path, line)
        assert server.stop() == 0
    loud = [line for line in server.log if line["level"] in ("warning", "error", "critical")]
    expected = [line.partition("=>")[2].strip() for line in script if line.startswith("log")]
    assert len(loud) == len(expected), server.stderr
