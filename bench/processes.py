"""A server under measurement: started on its own core, timed to its first answer, weighed, and stopped.

Everything is read from the kernel (/proc and the process CPU clocks); Linux only. Only processes started here, and
their descendants, are ever signalled, each by its id.
"""

import os
import re
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from exchange import ask

ROOT = Path(__file__).resolve().parent.parent
START_LIMIT = 20.0  # seconds to the first answer; then the server counts as one that does not start
STOP_LIMIT = 15.0  # seconds to end after SIGTERM: more than the 10 s of grace that servers take by default
RETRY = 0.001  # seconds between two attempts at the first answer: the resolution of the start time
TICKS = os.sysconf("SC_CLK_TCK")
NOT_INHERITED = ("EIGHTIES_", "PYTHON", "PUBLIC_HTML", "MASTER_KEY", "RELOAD", "NO_STATIC", "HTTP_MAX_")  # beginnings
SHARED_MEMORY = ("/dev/zero", "/dev/shm/", "/memfd:", "/SYSV")  # mappings with an inode that are not files


class ServerError(Exception):
    """A server that does not start, ends early or answers something else."""


def without_paths(text: str) -> str:
    """What a program said, fit for a report: no address, and of each path only its last name."""
    return re.sub(r"(?:/[\w.+@~-]+)*/([\w.+@~-]+)", r"\1", re.sub(r"\w+://\S+", "(address)", text))


@dataclass(frozen=True)
class Memory:
    """Bytes of a process tree. `pss` shares each page with all who map it, the bench's own interpreter included;
    `alone` counts each file page once, as if nobody else on the machine ran that interpreter."""

    pss: int
    alone: int


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat that follow the command's name, the state being the first (proc(5))."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _tree(root: int) -> dict[int, str]:
    """The living processes that descend from `root`, itself included, each with the time it started at."""
    parents: dict[int, int] = {}
    started: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = _stat(int(entry.name))
            except OSError:
                continue  # it ended meanwhile
            if fields[0] not in "ZX":
                parents[int(entry.name)] = int(fields[1])
                started[int(entry.name)] = fields[19]
    found = {root: started[root]} if root in started else {}
    while more := {pid: started[pid] for pid, parent in parents.items() if parent in found and pid not in found}:
        found |= more
    return found


def _cpu_seconds(pid: int) -> float:
    """User and system time of a process with all threads it ever had, and of the children it has waited for.

    The kernel's own encoding of a process's CPU clock (clock_getcpuclockid(3)) gives nanoseconds where /proc/PID/stat
    gives ticks of 10 ms.
    """
    fields = _stat(pid)
    try:
        own = time.clock_gettime((~pid << 3) | 2)
    except OSError:
        own = (int(fields[11]) + int(fields[12])) / TICKS
    return own + (int(fields[13]) + int(fields[14])) / TICKS


def _kilobytes(text: str, name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) if found else 0


def _file_pages(pid: int) -> dict[str, int]:
    """Bytes of each mapped file that a process holds in memory unchanged, by the mapping's offset, device and inode."""
    pages: dict[str, int] = {}
    text = Path(f"/proc/{pid}/smaps").read_text()
    for part in re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", text, flags=re.MULTILINE)[1:]:
        head = part.partition("\n")[0].split(maxsplit=5)
        if head[4] != "0" and not head[5].startswith(SHARED_MEMORY):
            key = " ".join(head[2:5])
            size = (_kilobytes(part, "Rss") - _kilobytes(part, "Anonymous")) * 1024
            pages[key] = pages.get(key, 0) + size
    return pages


class Server:
    """One running server. A context manager: on leaving, the whole process tree is gone."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], core: int) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(NOT_INHERITED)}
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - closed in __exit__
        self._known: dict[int, str] = {}
        self._began = time.perf_counter()
        self._process = subprocess.Popen(
            ["taskset", "-c", str(core), *command],
            cwd=ROOT,
            env={**kept, **environment},
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=self._output,
            start_new_session=True,
        )

    def __enter__(self) -> "Server":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()
        self._output.close()

    def first_answer(self, port: int, path: str) -> tuple[float, bytes]:
        """Seconds from the start to the first answer, and the answer."""
        while (passed := time.perf_counter() - self._began) < START_LIMIT:
            self.check()
            try:
                answer = ask(port, path)
            except OSError:
                time.sleep(RETRY)
                continue
            seconds = time.perf_counter() - self._began
            self._known |= _tree(self._process.pid)
            return seconds, answer
        raise ServerError(f"no answer within {passed:.0f} s")

    def check(self) -> None:
        """Raises ServerError if the server has ended by itself."""
        status = self._process.poll()
        if status is not None:
            self._output.seek(0)
            lines = self._output.read().decode(errors="replace").strip().splitlines()
            said = f": {without_paths(lines[-1])[:200]}" if lines else ""
            raise ServerError(f"ended with status {status}{said}")

    def cpu_seconds(self) -> float:
        self._known |= (tree := _tree(self._process.pid))
        return sum(_cpu_seconds(pid) for pid in tree)

    def memory(self, workers: bool = False) -> Memory:
        """What the processes weigh; `workers`: without the first, which has started the others."""
        pss = anonymous = 0
        pages: dict[str, int] = {}
        for pid in _tree(self._process.pid):
            if workers and pid == self._process.pid:
                continue
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            pss += _kilobytes(rollup, "Pss")
            anonymous += _kilobytes(rollup, "Pss_Anon") + _kilobytes(rollup, "Pss_Shmem")
            for key, size in _file_pages(pid).items():
                pages[key] = max(size, pages.get(key, 0))
        return Memory(pss * 1024, anonymous * 1024 + sum(pages.values()))

    def resident(self) -> int:
        """Bytes that the processes hold in memory (RSS), without the first, which has started the others."""
        tree = _tree(self._process.pid).keys() - {self._process.pid}
        return sum(_kilobytes(Path(f"/proc/{pid}/smaps_rollup").read_text(), "Rss") for pid in tree) * 1024

    def _stop(self) -> None:
        self._known |= _tree(self._process.pid)
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_LIMIT)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        for pid, started in self._known.items():
            try:
                if pid != self._process.pid and _stat(pid)[19] == started:
                    os.kill(pid, 9)
            except OSError:
                pass  # gone, as it should be
