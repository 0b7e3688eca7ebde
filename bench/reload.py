"""The bench of reloads: what a thousand leave behind, and how long a saved file takes. See README.md beside this file.

Like raw.py it runs on this machine over loopback and ends every process it started. What is reloaded is a copy of
examples/www.
"""

import argparse
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from bars import NONE, Bar, at_most, table
from exchange import body_of, connect, exchange, free_port, status_of
from machine import busy_seconds, describe
from peers import serving
from processes import ROOT, Server, ServerError
from rounds import say

from bench import end, two_cores

EXAMPLE = ROOT / "examples" / "www"
RELOADS = 1000
WARM_UP = 50  # reloads before memory is weighed the first time
SAVES = 30  # of each file
REST = 0.15  # seconds between saves: longer than a burst, so that each is a reload of its own
RETRY = 0.0005  # seconds between two looks at the answer
PATIENCE = 10.0  # seconds for a saved file
SETTLE = 2.0  # seconds until the last old program has been freed

MORE = 2.0  # MB
DELAY = 100.0  # ms
OTHERS = 0.15  # of a core: with more the slowest are not to be trusted

# What the bench adds to the site's main.py.
ROUTES = """

from eighties import net


@app.get("/bench/reload")
async def bench_reload(request: Request) -> object:
    return await net.reload()


@app.get("/bench/version")
def bench_version(request: Request) -> str:
    return "version 0"
"""
VISITED = ("/", "/guestbook/", "/session", "/api/posts")  # before each reload, so that old programs were in use


@dataclass(frozen=True)
class Case:
    """A file of the site that is saved, and the page that shows it. `text`: what the new version has, of its number."""

    title: str
    file: str
    path: str
    text: Callable[[str, int], str]


CASES = {
    "main": Case(
        "main.py", "main.py", "/bench/version", lambda before, number: before.replace("version 0", f"version {number}")
    ),
    "page": Case(
        "a page",
        "public_html/session.html",
        "/session",
        lambda before, number: f"{before}<p>version {number}</p>\n",
    ),
    "include": Case(
        "a file that every page includes",
        "public_html/footer.priv.html",
        "/",
        lambda before, number: f"{before}<p>version {number}</p>\n",
    ),
    "style": Case(
        "the stylesheet",
        "public_html/static/style.css",
        "/static/style.css",
        lambda before, number: f"{before}/* version {number} */\n",
    ),
}


@dataclass
class Figures:
    """All that was measured: the worker's RSS in bytes, by the number of reloads; ms from save to answer, by case."""

    resident: dict[int, int] = field(default_factory=dict)
    reload_ms: list[float] = field(default_factory=list)
    delays: dict[str, list[float]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    others: float = 0.0  # what programs that are no part of it used meanwhile, in cores

    def more(self) -> float | None:
        """MB that were added after the warm-up."""
        weighed = list(self.resident.values())
        return (weighed[-1] - weighed[0]) / 1e6 if len(weighed) > 1 else None


class Bench:
    """Arguments: a folder for copies of the site; the cores of server and bench; how many reloads and saves."""

    def __init__(self, folder: Path, core: int, reloads: int, saves: int) -> None:
        self.folder = folder
        self.core = core
        self.reloads = reloads
        self.saves = saves
        self.figures = Figures()

    def site(self, name: str) -> Path:
        """A copy of the example, with the bench's routes."""
        copy = self.folder / name
        shutil.copytree(EXAMPLE, copy, ignore=shutil.ignore_patterns("guestbook.db*", "__pycache__"))
        with (copy / "main.py").open("a", encoding="utf-8") as file:
            file.write(ROUTES)
        return copy

    def start(self, site: Path, port: int, *options: str) -> Server:
        command = [part.replace("{port}", str(port)) for part in serving(str(site))]
        return Server([*command, *options], {"DATABASE_URL": f"sqlite:///{site}/guestbook.db"}, self.core)

    def weigh(self) -> None:
        """Many reloads, and what the worker holds after each hundred."""
        port = free_port()
        with self.start(self.site("weighed"), port) as server:
            server.first_answer(port, "/")
            for number in range(1, WARM_UP + self.reloads + 1):
                self.reload(port, number > WARM_UP)
                if number in (WARM_UP, WARM_UP + self.reloads):
                    time.sleep(SETTLE)
                if number >= WARM_UP and (number - WARM_UP) % 100 == 0:
                    self.figures.resident[number - WARM_UP] = server.resident()
            say(f"    {self.reloads} reloads: {self.figures.more():.2f} MB more")

    def reload(self, port: int, counts: bool) -> None:
        with connect(port) as connection:
            for path in VISITED:
                if status_of(exchange(connection, path)) != 200:
                    raise ServerError(f"{path}: a wrong answer")
            began = time.perf_counter()
            answer = exchange(connection, "/bench/reload")
        if body_of(answer) != b"[]":
            raise ServerError(f"a reload that failed: {body_of(answer)[:200]!r}")
        if counts:
            self.figures.reload_ms.append((time.perf_counter() - began) * 1e3)

    def time_saves(self) -> None:
        """Each file is saved again and again, and its page asked for until it is new."""
        port, site = free_port(), self.site("saved")
        with self.start(site, port, "--reload") as server:
            server.first_answer(port, "/")
            time.sleep(1.0)  # until it watches
            for key, case in CASES.items():
                delays = self.figures.delays[key] = []
                before = (site / case.file).read_text(encoding="utf-8")
                for number in range(1, self.saves + 1):
                    time.sleep(REST)
                    delays.append(self.save(port, site / case.file, case, case.text(before, number), number))
                say(f"    {case.title}: {median(delays):.1f} ms, {max(delays):.1f} at most")

    def save(self, port: int, file: Path, case: Case, text: str, number: int) -> float:
        """Milliseconds from the save to the first answer that is new."""
        wanted = f"version {number}".encode()
        with connect(port) as connection:
            file.write_text(text, encoding="utf-8")
            began = time.perf_counter()  # the disk's time is not ours
            while wanted not in exchange(connection, case.path):
                if time.perf_counter() - began > PATIENCE:
                    raise ServerError(f"{case.title}: not served within {PATIENCE:g} s")
                time.sleep(RETRY)
            return (time.perf_counter() - began) * 1e3

    def run(self) -> None:
        began, before = time.perf_counter(), _of_others()
        self.measure()
        self.figures.others = (_of_others() - before) / (time.perf_counter() - began)

    def measure(self) -> None:
        for measure in (self.weigh, self.time_saves):
            try:
                measure()
            except (ServerError, OSError) as error:
                self.figures.notes.append(str(error))
                say(f"    {error}")


def _of_others() -> float:
    """CPU seconds that all programs have used, but for the bench and the servers that it has ended."""
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return busy_seconds() - own.ru_utime - own.ru_stime - children.ru_utime - children.ru_stime


# ---- results ----


def judge(figures: Figures, reloads: int) -> list[Bar]:
    bars = [at_most(f"{reloads:,} reloads, more RSS of the worker", figures.more(), MORE, " MB")]
    for key, case in CASES.items():
        delays = figures.delays.get(key)
        bars.append(at_most(f"{case.title}, save to answer, median", median(delays) if delays else None, DELAY, " ms"))
        bars.append(at_most("the same, the slowest", max(delays) if delays else None, DELAY, " ms"))
    return bars


def _case_row(figures: Figures, key: str, case: Case) -> str:
    delays = figures.delays.get(key)
    if not delays:
        return f"| {case.title} | {NONE} | {NONE} | {NONE} |"
    return f"| {case.title} | {median(delays):.1f} | {min(delays):.1f} | {max(delays):.1f} |"


def write(figures: Figures, settings: str, chosen: argparse.Namespace, reloads: int) -> None:
    """reload.md for people, reload.json with every sample."""
    chosen.out.mkdir(parents=True, exist_ok=True)
    lines = ["# Bench results: reload", ""]
    if chosen.quick:
        lines += ["**A quick run, to see that the bench works: these are no figures to quote.**", ""]
    if figures.others > OTHERS:
        lines += ["**The machine had other work meanwhile, which makes times longer, and the slowest above all.**"]
        lines += [""]
    lines += [
        "## From save to the first answer of the new code, ms",
        "",
        "| what is saved | median | fastest | slowest |",
        "| --- | ---: | ---: | ---: |",
        *(_case_row(figures, key, case) for key, case in CASES.items()),
        "",
        "## Reload after reload",
        "",
        "| reloads | RSS of the worker, MB |",
        "| ---: | ---: |",
        *(f"| {number:,} | {size / 1e6:.2f} |" for number, size in figures.resident.items()),
        "",
        f"One takes {median(figures.reload_ms) if figures.reload_ms else 0:.1f} ms, from the question to the answer.",
        "",
        *table(judge(figures, reloads)),
        "## Method",
        "",
        f"{settings} Other programs used {figures.others:.2f} cores meanwhile.",
        "",
        *(f"- not measured: {note}" for note in figures.notes),
    ]
    (chosen.out / "reload.md").write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")
    record = asdict(figures) | {"bars": [asdict(bar) for bar in judge(figures, reloads)]}
    (chosen.out / "reload.json").write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description="Measures reloads of 80s on this machine.")
    parser.add_argument("--quick", action="store_true", help="100 reloads, 5 saves: does it work at all?")
    parser.add_argument("--out", type=Path, default=Path("bench/results"), help="folder of the results")
    chosen = parser.parse_args()
    reloads, saves = (100, 5) if chosen.quick else (RELOADS, SAVES)
    if sys.platform != "linux":
        sys.exit("bench: Linux only; it reads /proc and pins with taskset")
    signal.signal(signal.SIGTERM, end)
    cores = two_cores()
    os.sched_setaffinity(0, {cores[1]})
    with tempfile.TemporaryDirectory(prefix="80s-bench-") as folder:
        bench = Bench(Path(folder), cores[0], reloads, saves)
        bench.run()
    date = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    machine = "; ".join(f"{name}: {value}" for name, value in describe().items())
    settings = f"{date}; examples/www; {reloads:,} reloads after {WARM_UP}; {saves} saves of each file. {machine}."
    write(bench.figures, settings, chosen, reloads)
    for bar in judge(bench.figures, reloads):
        say(f"{bar.verdict:>12}  {bar.title}: {bar.measured} ({bar.asked})")
    say(f"written: {chosen.out}/reload.md, reload.json")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
