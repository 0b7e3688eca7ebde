"""The bench of data: rows from MariaDB and SQLite, and the guestbook of examples/www. See README.md beside this file.

Like pages.py it runs on this machine over loopback, alternates, and ends every process it started: the servers, and a
MariaDB of its own, which has the core of wrk.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from bars import NONE, TIMES, Bar, at_least, at_most, cpu_ratio, table
from exchange import body_of, connect, exchange, free_port, status_of
from loads import Load, run
from machine import describe
from mariadb import MariaDB, version
from peers import PROGRAMS, ours, serving
from processes import Server, ServerError
from rounds import Record, say
from toolbox import PYTHON, UnavailableError, call, install

from bench import check_tools, end, two_cores

ROUNDS = 5
SECONDS = 3
LOAD = Load("c32", "32 connections", 32)
CHECKS = 100  # answers looked at before each load, which also warm the server up
POSTS = 1000
ID = 500
TEXT = "The quick brown fox jumps over the lazy dog, & <nobody> minds."
STATEMENTS = 128  # that a connection of asyncmy's may keep: as many as ours do

ROW = 45.0  # µs
REPOSITORY = 1.25
UVICORN_RATE = 1.3
GUESTBOOK = 6.0  # ms
SHARE = 0.8  # of its core that 80s has under load, on a machine that does nothing else
SQLITE = 1.5

OURS, CACHING, PEER, PEER_CACHING, SITE = "80s", "80s-cache", "uvicorn", "uvicorn-cache", "site"


@dataclass(frozen=True)
class Case:
    title: str
    server: str
    path: str
    body: bytes | None = None  # what it has to answer; None: the guestbook with all its posts


def row(server: str, path: str, title: str, text: str = TEXT) -> Case:
    return Case(title, server, f"{path}?id={ID}", f"Visitor {ID}: {text}".encode())


CASES = {
    "none": row(OURS, "/none", "80s, the same handler without a query", "no row"),
    "plain": row(OURS, "/plain", "80s, plain client"),
    "derived": row(OURS, "/derived", "80s, repository, method made of its name"),
    "by_id": row(OURS, "/by_id", "80s, repository, find_by_id"),
    "driver": row(OURS, "/driver", "80s, asyncmy's own pool"),
    "driver-cache": row(CACHING, "/driver", "80s, asyncmy's own pool, its statement cache on"),
    "uvicorn": row(PEER, "/driver", "uvicorn, asyncmy's own pool"),
    "uvicorn-cache": row(PEER_CACHING, "/driver", "uvicorn, asyncmy's own pool, its statement cache on"),
    "guestbook": Case(f"80s, guestbook with {POSTS:,} posts", SITE, "/guestbook/"),
}


def first_sql() -> str:
    """The tables and their rows, a statement a line."""
    key = "id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY"
    numbers = f"with recursive numbers (n) as (select 1 union all select n + 1 from numbers where n < {POSTS})"
    lines = [
        f"create table visitors ({key}, name VARCHAR(50) NOT NULL, text VARCHAR(500) NOT NULL)",
        f"insert into visitors {numbers} select n, concat('Visitor ', n), '{TEXT}' from numbers",
        f"create table guestbook ({key}, `when` DATETIME(6) NOT NULL, name VARCHAR(40) NOT NULL, text VARCHAR(500))",
        f"insert into guestbook {numbers} select n, now(6), concat('Visitor ', n), '{TEXT}' from numbers",
    ]
    return "".join(f"{line};\n" for line in lines)


class Bench:
    """What is measured, and how: the servers of a round run side by side and are asked one after the other."""

    def __init__(self, database: str, seconds: int, cores: tuple[int, int]) -> None:
        self.database = database
        self.seconds = seconds
        self.cores = cores
        self.records = {key: Record(case.title) for key, case in CASES.items()}
        self.sqlite: list[dict[str, Any]] = []
        self.commands = {
            OURS: (ours("rows.py"), {}),
            CACHING: (ours("rows.py"), {"STATEMENT_CACHE": str(STATEMENTS)}),
            SITE: (serving("examples/www"), {"MASTER_KEY": "a key for the bench, of no use elsewhere"}),
        }
        try:
            command = self._uvicorn()
            self.commands[PEER] = command, {"PYTHONPATH": PROGRAMS}
            self.commands[PEER_CACHING] = command, {"PYTHONPATH": PROGRAMS, "STATEMENT_CACHE": str(STATEMENTS)}
        except UnavailableError as error:
            say(f"not available: uvicorn: {error}")
            self.records["uvicorn"].reason = self.records["uvicorn-cache"].reason = str(error)

    def _uvicorn(self) -> tuple[str, ...]:
        versions = install("uvicorn", "uvloop", "httptools", "asyncmy")
        self.records["uvicorn"].version = ", ".join(f"{name} {version}" for name, version in versions.items())
        # fmt: off
        return (str(PYTHON), "-m", "uvicorn", "--host", "127.0.0.1", "--port", "{port}", "--loop", "uvloop",
                "--http", "httptools", "--ws", "none", "--lifespan", "off", "--no-access-log", "--log-level", "warning",
                "--backlog", "4096", "--timeout-keep-alive", "75", "uvicorn_rows:app")
        # fmt: on

    def start(self, key: str, port: int) -> Server:
        command, environment = self.commands[key]
        filled = [part.replace("{port}", str(port)) for part in command]
        return Server(filled, {"DATABASE_URL": self.database, **environment}, self.cores[0])

    def round(self, number: int) -> None:
        ports = {key: free_port() for key in self.commands}
        with ExitStack() as stack:
            servers = {key: stack.enter_context(self.start(key, port)) for key, port in ports.items()}
            for key, server in servers.items():
                server.first_answer(ports[key], next(case.path for case in CASES.values() if case.server == key))
            keys = [key for key in CASES if not self.records[key].reason]
            turn = number * 4 % len(keys)
            for key in keys[turn:] + keys[:turn]:
                self.measure(key, servers[CASES[key].server], ports[CASES[key].server], number)
        with tempfile.TemporaryDirectory(prefix="80s-bench-") as folder:
            program = f"{PROGRAMS}/sqlite_calls.py"
            self.sqlite.append(
                json.loads(call(["taskset", "-c", str(self.cores[0]), sys.executable, program, f"{folder}/rows.db"]))
            )

    def measure(self, key: str, server: Server, port: int, number: int) -> None:
        """One case. One that fails the first time is left out from then on."""
        case, record = CASES[key], self.records[key]
        try:
            record.answer_bytes = check(case, port)
            sample = run(server, LOAD, f"http://127.0.0.1:{port}{case.path}", self.seconds, self.cores[1])
        except (ServerError, OSError) as error:
            server.check()
            if record.samples:
                record.note(str(error))
            else:
                record.reason = str(error)
            say(f"    {case.title}: {error}")
            return
        record.samples.setdefault(LOAD.key, {})[number] = sample
        say(f"    {case.title}: {sample.cpu_us:.2f} µs, {sample.rate:,.0f}/s, {sample.server_share:.0%} of its core")


def check(case: Case, port: int) -> int:
    """Looks at what it answers, and returns how many bytes that is. Raises ServerError."""
    with connect(port) as connection:
        for _ in range(CHECKS):
            answer = exchange(connection, case.path)
            body = body_of(answer)
            right = body == case.body if case.body is not None else body.count(b"<article>") == POSTS
            if status_of(answer) != 200 or not right:
                raise ServerError(f"a wrong answer, status {status_of(answer)}, {len(answer)} bytes")
    return len(answer)


# ---- results ----


def rate_ratio(records: dict[str, Record], key: str, others: tuple[str, ...]) -> float | None:
    """Requests/s of one over those of the fastest of others, the median of the rounds that have all."""
    ours = records[key].samples.get(LOAD.key, {})
    theirs = [records[other].samples.get(LOAD.key, {}) for other in others]
    rounds = set(ours).intersection(*theirs)
    return median(ours[n].rate / max(one[n].rate for one in theirs) for n in rounds) if rounds else None


def sqlite_figure(bench: Bench, crowd: str, name: str, what: str) -> float | None:
    return median(one[crowd][name][what] for one in bench.sqlite) if bench.sqlite else None


def judge(bench: Bench) -> list[Bar]:
    records = bench.records
    guestbook = records["guestbook"].cpu_us(LOAD)
    bars = [at_most("one row by its id, plain client, server CPU", records["plain"].cpu_us(LOAD), ROW, " µs")]
    for key, what in (("derived", "a method made of its name"), ("by_id", "find_by_id")):
        ratio = cpu_ratio(records, key, "plain", LOAD)
        bars.append(at_most(f"the same by a repository ({what}), over the plain client", ratio, REPOSITORY, TIMES))
    peers = ("uvicorn", "uvicorn-cache")
    bars += [
        at_least(
            "requests/s over uvicorn's with asyncmy's pool",
            rate_ratio(records, "plain", peers[:1]),
            UVICORN_RATE,
            TIMES,
        ),
        at_least(
            "the same, over the faster of both, statement cache on or off",
            rate_ratio(records, "plain", peers),
            UVICORN_RATE,
            TIMES,
        ),
        at_most(
            f"guestbook of {POSTS:,} posts, server CPU",
            None if guestbook is None else guestbook / 1e3,
            GUESTBOOK,
            " ms",
        ),
    ]
    for crowd in ("1", "32"):
        ratios = [sqlite_figure(bench, crowd, name, "cpu_ratio") for name in ("derived", "by_id")]
        worst = max((one for one in ratios if one is not None), default=None)
        bars.append(
            at_most(
                f"SQLite, repository over the bare module in a thread, CPU, {crowd} at a time", worst, SQLITE, TIMES
            )
        )
    return bars


def case_row(records: dict[str, Record], key: str) -> str:
    record = records[key]
    samples = list(record.samples.get(LOAD.key, {}).values())
    if not samples:
        return f"| {record.title} | {NONE} | {NONE} | {NONE} | {NONE} | {NONE} |"
    cpu = [sample.cpu_us for sample in samples]
    over = cpu_ratio(records, key, "plain", LOAD)
    # fmt: off
    cells = [record.title, f"{median(cpu):,.1f}", NONE if over is None else f"{over:.2f}{TIMES}",
             f"{record.rate(LOAD):,.0f}", f"{median(sample.server_share for sample in samples):.0%}",
             f"{min(cpu):,.1f} to {max(cpu):,.1f}"]
    # fmt: on
    return f"| {' | '.join(cells)} |"


def sqlite_rows(bench: Bench) -> list[str]:
    titles = {
        "executor": "sqlite3 in a ThreadPoolExecutor of one thread",
        "to_thread": "sqlite3 in asyncio.to_thread",
        "plain": "plain client",
        "derived": "repository, method made of its name",
        "by_id": "repository, find_by_id",
    }
    wanted = [(crowd, what) for crowd in ("1", "32") for what in ("cpu", "cpu_ratio", "time")]
    lines = []
    for name, title in titles.items():
        cells = [title]
        for crowd, what in wanted:
            value = sqlite_figure(bench, crowd, name, what)
            cells.append(NONE if value is None else f"{value:.2f}{TIMES}" if what == "cpu_ratio" else f"{value:.1f}")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def write(bench: Bench, settings: str, quick: bool, folder: Path) -> None:
    """data.md for people, data.json with every sample."""
    folder.mkdir(parents=True, exist_ok=True)
    records = bench.records.values()
    left_out = [f"- {record.title}: {record.reason}" for record in records if record.reason]
    left_out += [f"- {record.title}: {note}" for record in records for note in record.notes]
    lines = ["# Bench results: data", ""]
    if quick:
        lines += ["**A quick run, to see that the bench works: these are no figures to quote.**", ""]
    shares = [sample.server_share for sample in bench.records["plain"].samples.get(LOAD.key, {}).values()]
    if shares and median(shares) < SHARE:
        lines += ["**The machine had other work meanwhile: requests/s say little, CPU counts.**", ""]
    lines += [
        f"## Server CPU per request, µs, {LOAD.title}, MariaDB",
        "",
        "| answer | CPU | over the plain client | requests/s | of its core | spread |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        *(case_row(bench.records, key) for key in CASES),
        "",
        "## SQLite, a row by its id, µs per call",
        "",
        "| | CPU, 1 at a time | over the first | time | CPU, 32 at a time | over the first | time |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        *sqlite_rows(bench),
        "",
        "## Not measured",
        "",
        *(left_out or ["Everything asked for was measured."]),
        "",
        *table(judge(bench)),
        "## Method",
        "",
        settings,
        "",
    ]
    (folder / "data.md").write_text("\n".join(lines), encoding="utf-8")
    record = {
        "records": {key: asdict(record) for key, record in bench.records.items()},
        "sqlite": bench.sqlite,
        "bars": [asdict(bar) for bar in judge(bench)],
    }
    (folder / "data.json").write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description="Measures clients and repositories of 80s on this machine.")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"rounds over all cases ({ROUNDS})")
    parser.add_argument("--seconds", type=int, default=SECONDS, help=f"seconds of each load ({SECONDS})")
    parser.add_argument("--quick", action="store_true", help="one round of one second: does it work at all?")
    parser.add_argument("--out", type=Path, default=Path("bench/results"), help="folder of the results")
    chosen = parser.parse_args()
    rounds, seconds = (1, 1) if chosen.quick else (chosen.rounds, chosen.seconds)
    check_tools()
    signal.signal(signal.SIGTERM, end)
    cores = two_cores()
    os.sched_setaffinity(0, {cores[1]})
    try:
        server = MariaDB(cores[1], first_sql())
    except UnavailableError as error:
        sys.exit(f"bench: {error}")
    with server:
        bench = Bench(server.url, seconds, cores)
        for number in range(rounds):
            say(f"round {number + 1}/{rounds}: data")
            bench.round(number)
    machine = describe() | {"MariaDB": version(), "peer": bench.records["uvicorn"].version or NONE}
    date = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    described = "; ".join(f"{name}: {value}" for name, value in machine.items())
    settings = f"{date}; {rounds} round(s), {seconds} s a load; medians. {described}."
    write(bench, settings, chosen.quick, chosen.out)
    for bar in judge(bench):
        say(f"{bar.verdict:>12}  {bar.title}: {bar.measured} ({bar.asked})")
    say(f"written: {chosen.out}/data.md, data.json")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
