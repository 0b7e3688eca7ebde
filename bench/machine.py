"""What the figures were measured on: the machine, the tools, and our engine's binary."""

import os
import platform
import subprocess
import tempfile
from pathlib import Path

from peers import our_engine
from processes import TICKS
from toolbox import UnavailableError, call


def describe() -> dict[str, str]:
    """The machine and the tools, each as one line of text. Nothing that names this particular machine."""
    return {
        "CPU": _cpu_model(),
        "cores": str(os.cpu_count()),
        "memory": _memory(),
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "system": _system(),
        "Python": platform.python_version(),
        "wrk": _wrk(),
    }


def busy_seconds() -> float:
    """CPU time that all programs of the machine have used since it started."""
    times = [int(time) for time in Path("/proc/stat").read_text().split(maxsplit=9)[1:9]]
    idle = times[3] + times[4]  # proc_stat(5): idle, iowait
    return (sum(times) - idle) / TICKS


def describe_engine() -> dict[str, str | int]:
    """Of our engine: version, bytes per connection, bytes of the stripped binary. Empty if it is not built."""
    try:
        found = our_engine()
    except UnavailableError:
        return {}
    figures = {"version": found["version"], "connection_size": found["connection_size"]}
    with tempfile.TemporaryDirectory() as folder:
        stripped = Path(folder) / "engine"
        try:
            call(["strip", "-o", stripped, str(found["file"])])
        except UnavailableError:
            return figures
        return {**figures, "stripped_size": stripped.stat().st_size}


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


def _memory() -> str:
    return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"


def _system() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.system()


def _wrk() -> str:
    # wrk prints its version and ends with a status that means "usage"
    said = subprocess.run(["wrk", "-v"], capture_output=True, text=True).stdout
    return said.split("Copyright")[0].strip().removeprefix("wrk ").strip()
