"""One HTTP request over a plain socket, for what wrk cannot tell: the first answer, its bytes, idle connections."""

import socket
from collections.abc import Sequence

TIMEOUT = 10.0  # seconds one answer may take


def connect(port: int, source: str | None = None) -> socket.socket:
    """A connection to the server under measurement, from `source` if given (an address of 127.0.0.0/8)."""
    connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        connection.settimeout(TIMEOUT)
        if source is not None:
            connection.bind((source, 0))
        connection.connect(("127.0.0.1", port))
    except OSError:
        connection.close()
        raise
    return connection


def exchange(connection: socket.socket, path: str, fields: Sequence[str] = ()) -> bytes:
    """Sends one GET, with these header fields, and returns the whole answer, head included. Raises OSError if it ends
    early."""
    lines = [f"GET {path} HTTP/1.1", "Host: 127.0.0.1", *fields, "", ""]
    connection.sendall("\r\n".join(lines).encode())
    answer = b""
    while not _is_whole(answer):
        more = connection.recv(65536)
        if not more:
            raise ConnectionResetError("the answer ended early")
        answer += more
    return answer


def ask(port: int, path: str) -> bytes:
    with connect(port) as connection:
        return exchange(connection, path)


def body_of(answer: bytes) -> bytes:
    return answer.partition(b"\r\n\r\n")[2]


def status_of(answer: bytes) -> int:
    return int(answer.split(maxsplit=2)[1])


def field_of(answer: bytes, name: str) -> str:
    """The value of a header field, empty where there is none."""
    for line in answer.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")[1:]:
        found, _, value = line.partition(":")
        if found.lower() == name.lower():
            return value.strip()
    return ""


def _is_whole(answer: bytes) -> bool:
    head, blank, body = answer.partition(b"\r\n\r\n")
    if not blank:
        return False
    if status_of(head) in (204, 304):
        return True
    for line in head.lower().split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name == b"content-length":
            return len(body) >= int(value)
    return body.endswith(b"0\r\n\r\n")  # a chunked one


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
