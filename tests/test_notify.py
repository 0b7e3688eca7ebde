"""What systemd is told (sd_notify(3)): that the server serves, reloads, stops, and is alive."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Serve
from server import PATIENCE, Server

PROGRAM = """\
import os
from eighties import App
app = App()

@app.get("/")
def root(request):
    return sorted(name for name in os.environ if name.startswith(("NOTIFY_", "WATCHDOG_")))
"""


class Systemd:
    """The other end of NOTIFY_SOCKET."""

    def __init__(self, name: str) -> None:
        self.env = {"NOTIFY_SOCKET": name}
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(name.replace("@", "\0", 1))
        self.socket.settimeout(PATIENCE)

    def hear(self) -> dict[str, str]:
        """The next message, as names and values."""
        lines = self.socket.recv(4096).decode().split("\n")
        return dict(line.split("=", 1) for line in lines)


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Systemd]:
    """Both kinds of address."""
    name = str(tmp_path / "notify") if request.param == "path" else f"@80s-notify-{os.getpid()}"
    other = Systemd(name)
    with other.socket:
        yield other


def ready(server: Server, systemd: Systemd) -> dict[str, str]:
    """The first word, which must be that it serves."""
    word = systemd.hear()
    assert word == {"READY": "1", "MAINPID": str(server.pid), "STATUS": f"serving at {server.url}"}
    return word


def test_start_and_stop(systemd: Systemd, serve: Serve) -> None:
    server = serve(PROGRAM, "-c", "2", env=systemd.env)
    ready(server, systemd)
    assert server.get("/").json() == []
    assert server.stop() == 0
    assert systemd.hear() == {"STOPPING": "1", "STATUS": "stopping"}
    systemd.socket.setblocking(False)
    with pytest.raises(BlockingIOError):
        systemd.hear()


def test_a_program_that_cannot_start_is_not_ready(systemd: Systemd, serve: Serve) -> None:
    server = serve("import nothing_of_the_kind\n", env=systemd.env, wait=False)
    assert server.wait() == 3
    systemd.socket.setblocking(False)
    with pytest.raises(BlockingIOError):
        systemd.hear()


@pytest.mark.parametrize("broken", [False, True])
def test_a_reload(broken: bool, systemd: Systemd, serve: Serve) -> None:
    server = serve(PROGRAM, env=systemd.env)
    status = ready(server, systemd)["STATUS"]
    if broken:
        (server.folder / "program.py").write_text("import nothing_of_the_kind\n")
    # systemd waits for a word that is younger than its signal.
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    server.send(signal.SIGHUP)
    word = systemd.hear()
    assert before <= int(word.pop("MONOTONIC_USEC")) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    assert word == {"RELOADING": "1", "STATUS": "reloading"}
    assert systemd.hear() == {"READY": "1", "STATUS": status}
    server.wait_for("not reloaded" if broken else "reloaded")


def test_a_signal_during_a_reload_is_answered_too(systemd: Systemd, serve: Serve) -> None:
    server = serve(PROGRAM, env=systemd.env)
    ready(server, systemd)
    waits = "import time\nwhile not os.path.exists('go'):\n    time.sleep(0.01)\n"
    (server.folder / "program.py").write_text(f"{PROGRAM}\n{waits}")
    server.send(signal.SIGHUP)
    assert "RELOADING" in systemd.hear()
    server.send(signal.SIGHUP)
    assert "RELOADING" in systemd.hear()
    (server.folder / "go").touch()
    assert "READY" in systemd.hear()
    server.wait_for("reloaded", 2)


def test_the_watchdog(systemd: Systemd, serve: Serve) -> None:
    # Nobody asks anything, and no worker says a word: the parent wakes by itself.
    server = serve(PROGRAM, env={**systemd.env, "WATCHDOG_USEC": "200000"})
    words = [systemd.hear() for _ in range(8)]
    assert len([word for word in words if word == {"WATCHDOG": "1"}]) >= 6
    assert server.get("/").json() == []


@pytest.mark.parametrize("variables", [{"WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "soon"}, {"WATCHDOG_USEC": "0"}])
def test_a_watchdog_for_somebody_else(variables: dict[str, str], tmp_path: Path) -> None:
    from eighties.serve.notify import Notify

    environment = {"NOTIFY_SOCKET": str(tmp_path / "none"), "WATCHDOG_USEC": "1000000", **variables, "LANG": "C"}
    assert Notify(environment).due is None
    assert environment == {"LANG": "C"}


@pytest.mark.parametrize("name", ["nowhere", "/no/such/socket", "@80s-nobody-listens", "vsock:2:1", "/" + "x" * 200])
def test_nobody_listens(name: str, serve: Serve) -> None:
    server = serve(PROGRAM, env={"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "100000"})
    server.send(signal.SIGHUP)
    server.wait_for("reloaded")
    assert server.get("/").json() == []
    assert server.stop() == 0
    (line,) = [line for line in server.log if "systemd" in line["message"]]
    assert line["level"] == "warning"


def test_a_line_feed_begins_no_assignment(systemd: Systemd, tmp_path: Path) -> None:
    from eighties.serve.notify import Notify

    notify = Notify(dict(systemd.env))
    notify.ready("serving at unix:a\nMAINPID=1")
    assert systemd.hear() == {"READY": "1", "MAINPID": str(os.getpid()), "STATUS": "serving at unix:a MAINPID=1"}
