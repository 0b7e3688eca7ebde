"""A real `80s` process for a test: started on a free port, watched, and ended without leaving anything.

`Server` owns the process and a thread that reads its log. Tests get one from the fixture `serve` (conftest.py),
which ends every server when the test is over and fails the test if one ended badly or left a process behind.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

# Seconds. Generous: the machine may be busy, and under the sanitizers everything takes several times as long.
PATIENCE = 60.0
MARK = "SERVER_OF_TEST"
# What a sanitizer writes when it finds something, wherever it appears.
REPORTS = ("AddressSanitizer", "runtime error:", "LeakSanitizer")


def foreign_environment() -> dict[str, str]:
    """Ours, for programs that are not Python: without what `make sanitize` set for it. Some of them hang with that."""
    return {name: value for name, value in os.environ.items() if name not in ("LD_PRELOAD", "ASAN_OPTIONS")}


def wait_until(condition: Callable[[], object], what: str, patience: float = PATIENCE) -> None:
    """Look again and again until `condition` holds; fail with `what` when it does not in time."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, f"not within {patience:g} s: {what}"
        time.sleep(0.01)


def processes_marked(mark: str) -> list[int]:
    """Processes that a server started, directly or not: they carry its mark in their environment."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
        except OSError:  # gone, or not ours
            continue
    return found


class Reply:
    """An answer, read whole."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()

    @property
    def text(self) -> str:
        return self.body.decode()

    def json(self) -> Any:
        return json.loads(self.body)


class Server:
    """One server. `log` holds the objects it wrote to stderr, `stderr` the text of it."""

    def __init__(
        self,
        program: str | Path,
        *arguments: str,
        folder: Path,
        env: Mapping[str, str] | None = None,
        command: Sequence[str] = (sys.executable, "-m", "eighties"),
        port: str | None = "0",
        pass_fds: Sequence[int] = (),
    ) -> None:
        """
        `program`: a file, an entry such as `module:attr`, or (when it has several lines) the text of a program, which
        is written to `program.py` in `folder`, the process's current folder. `port=None` gives no `-p`.
        """
        entry = str(program)
        if "\n" in entry:
            folder.joinpath("program.py").write_text(textwrap.dedent(entry))
            entry = "program.py"
        self.folder = folder
        self.mark = uuid.uuid4().hex
        self.log: list[dict[str, Any]] = []
        self.stderr = ""
        self._heard = threading.Condition()
        self.process = subprocess.Popen(
            [*command, *([entry] if entry else []), *(["-p", port] if port else []), *arguments],
            cwd=folder,
            env={**os.environ, **(env or {}), MARK: self.mark},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            pass_fds=pass_fds,
            process_group=0,  # as a shell does: Ctrl+C reaches the group, and not the test
        )
        self.pid = self.process.pid
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._heard:
                self.stderr += line
                if line.startswith("{"):
                    self.log.append(json.loads(line))
                self._heard.notify_all()

    def wait_for(self, message: str, count: int = 1, patience: float = PATIENCE) -> dict[str, Any]:
        """Wait until `count` log lines contain `message`, and return the last of them."""
        found: list[dict[str, Any]] = []

        def heard() -> bool:
            found[:] = [line for line in self.log if message in str(line["message"])]
            return len(found) >= count or (self.process.poll() is not None and not self._reader.is_alive())

        deadline = time.monotonic() + patience
        with self._heard:
            while not heard() and time.monotonic() < deadline:
                self._heard.wait(0.1)
        assert len(found) >= count, f"no {message!r} in its log (exit code {self.process.poll()}):\n{self.stderr}"
        return found[count - 1]

    def wait_until_serving(self) -> Self:
        """Wait for the line that says where it listens."""
        self.wait_for("listening")
        return self

    @property
    def url(self) -> str:
        """The first address it listens on."""
        return str(self.wait_for("listening")["url"])

    @property
    def port(self) -> int:
        """The port of that address."""
        return int(self.url.rpartition(":")[2])

    @property
    def workers(self) -> list[int]:
        """Process ids of its workers, as they are now."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        return [int(pid) for pid in children.split()]

    def wait_for_workers(self, count: int) -> list[int]:
        """Wait until so many workers listen, and return their process ids."""
        wait_until(lambda: len(self.workers) == count, f"{count} workers, in:\n{self.stderr}")
        return self.workers

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Reply:
        """One request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request(method, path, body, dict(headers or {}))
            return Reply(connection.getresponse())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Reply:
        """GET."""
        return self.request("GET", path, headers=headers)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the parent process."""
        os.kill(self.pid, number)

    def wait(self, patience: float = PATIENCE) -> int:
        """Wait for its end, assert that it left no process, and return its exit code."""
        try:
            code = self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"it did not end within {patience:g} s:\n{self.stderr}") from None
        try:
            wait_until(lambda: not processes_marked(self.mark), "processes left behind")
        finally:
            self.kill()
        assert not any(report in self.stderr for report in REPORTS), self.stderr
        return code

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End it with a signal, and return its exit code."""
        if self.process.poll() is None:
            self.send(number)
        return self.wait()

    def output(self) -> str:
        """What it wrote to stdout. Waits for its end."""
        assert self.process.stdout is not None
        text = self.process.stdout.read()
        self.wait()
        return text

    def kill(self) -> None:
        """End whatever of it still runs, and let go of its pipes."""
        for pid in processes_marked(self.mark):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait()
        self._reader.join(PATIENCE)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()

    @property
    def ended(self) -> bool:
        """Whether the process is over."""
        return self.process.poll() is not None
