"""Clients that ask a real server again and again, and the program they ask: for tests of processes and logs."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

from server import PATIENCE, wait_until

PROGRAM = """
    import asyncio, logging, os, pathlib, time
    from eighties import App
    app = App()
    diary = pathlib.Path("diary")

    def write(line):
        with diary.open("a") as file:
            file.write(line + "\\n")

    @app.get("/")
    def root(request):
        return "hello"

    @app.get("/pid")
    def pid(request):
        return str(os.getpid())

    @app.get("/worker")
    def worker(request):
        return str(request.worker)

    @app.get("/slow/{n:int}")
    async def slow(request, n):
        write(f"{os.getpid()}")
        await asyncio.sleep(n / 1000)
        return f"slow from {os.getpid()}"

    @app.get("/block")
    def block(request):
        write("block")
        time.sleep(1000)

    @app.get("/crash")
    def crash(request):
        os._exit(9)
"""
LOOPS = ["asyncio", "uvloop"]


def ask(address: tuple[str, int] | str, path: str = "/", sent: Callable[[], object] = lambda: None) -> bytes:
    """One request on a connection of its own; all that came back. `sent` is called when it is on its way."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    with socket.socket(family) as connection:
        connection.settimeout(PATIENCE)
        connection.connect(address)
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        sent()
        answer = b""
        while data := connection.recv(65536):
            answer += data
        return answer


def whole(answer: bytes) -> bool:
    """Whether it is a complete 200."""
    head, end, body = answer.partition(b"\r\n\r\n")
    length = re.search(rb"\r\nContent-Length: (\d+)", head, re.IGNORECASE)
    return bool(end and head.startswith(b"HTTP/1.1 200 ") and length and len(body) == int(length[1]))


class Crowd:
    """Threads that ask again and again, each on a new connection, until told to stop."""

    def __init__(self, port: int, path: str, size: int) -> None:
        self.address = ("127.0.0.1", port)
        self.path = path
        self.going = True
        # When a request had been sent, and what came of it: True, or why not.
        self.asked: list[tuple[float, object]] = []
        self.threads = [threading.Thread(target=self._run) for _ in range(size)]
        for thread in self.threads:
            thread.start()

    def _run(self) -> None:
        while self.going:
            self.asked.append(self._attempt())
            if self.asked[-1][1] is not True:
                time.sleep(0.01)

    def _attempt(self) -> tuple[float, object]:
        sent = [float("inf")]
        try:
            answer = ask(self.address, self.path, lambda: sent.__setitem__(0, time.monotonic()))
            return sent[0], whole(answer) or answer
        except OSError as error:
            return sent[0], error

    def wait_for_more(self, count: int) -> None:
        """Wait until so many more requests have been answered well."""
        goal = self.answered() + count
        wait_until(lambda: self.answered() >= goal, f"{count} more answers")

    def answered(self) -> int:
        """How many were answered well."""
        return sum(result is True for _, result in self.asked)

    def failed(self, before: float = float("inf")) -> list[object]:
        """What became of the others, of those sent before a time."""
        return [result for sent, result in self.asked if result is not True and sent < before]

    def stop(self) -> None:
        """Wait for the threads."""
        self.going = False
        for thread in self.threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()


def diary(folder: Path) -> list[str]:
    """What handlers wrote down."""
    path = folder / "diary"
    return path.read_text().split() if path.exists() else []


def in_background(count: int, action: Callable[[], object]) -> tuple[list[threading.Thread], list[object]]:
    """Run an action in so many threads; results, or the errors instead, come into the list."""
    results: list[object] = []

    def run() -> None:
        try:
            results.append(action())
        except OSError as error:
            results.append(error)

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads, results


def join(threads: list[threading.Thread]) -> None:
    """Wait for them."""
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
