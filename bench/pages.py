"""The bench of the content server: pages, static files, sessions, many pages. See README.md beside this file.

Like raw.py it runs on this machine over loopback, alternates, and ends every process it started. All servers of a round
run side by side and are asked one after the other, so that what is compared is measured within seconds.
"""

import argparse
import json
import os
import resource
import signal
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import nginx
from bars import NONE, TIMES, Bar, at_most, cpu_ratio, table
from exchange import body_of, connect, exchange, field_of, free_port, status_of
from loads import Load, run
from machine import busy_seconds, describe
from peers import BODY, PATH, floor, serving
from processes import Server, ServerError
from rounds import Record, say
from sites import IMAGE, IMAGE_SIZE, ROOT, SITE, Page, body_of_page, make_articles, make_site, rows
from toolbox import UnavailableError

from bench import check_tools, end, two_cores

ROUNDS = 5
SECONDS = 2
LOAD = Load("c32", "32 connections", 32)
CHECKS = 100  # answers looked at before each load, which also warm the server up
MANY = 1000  # pages
HELLO, STYLE = "/hello?name=Abcde", "/style.css"

PAGE_OVER_FLOOR = 1.45
STYLE_OVER_FLOOR = 1.05
IMAGE_OVER_NGINX = 1.0
TABLE = 1.5  # ms
OTHERS = 0.15  # of a core: with more the figures are not to be trusted
START = 1.0  # seconds to the first answer
MORE = 10.0  # MB

OURS, FLOOR, NGINX, CACHING = "80s", "floor", "nginx", "nginx-cache"
SENT_BACK = {"etag": "If-None-Match", "set-cookie": "Cookie"}


@dataclass(frozen=True)
class Case:
    """What is asked of one server.

    Arguments:
        body: what it has to answer.
        learn: a path and a field of its answer that each request sends back: an entity tag, a cookie.
    """

    title: str
    server: str
    path: str
    body: bytes
    status: int = 200
    learn: tuple[str, str] | None = None


@dataclass
class Crowd:
    """What a number of pages costs: seconds to the first answer; PSS of the worker, with every page asked for."""

    starts: list[float] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)  # after the first answer
    asked: list[int] = field(default_factory=list)  # after 1,000

    def add(self, seconds: float, memory: int, asked: int) -> None:
        self.starts.append(seconds)
        self.memory.append(memory)
        self.asked.append(asked)

    def start(self) -> float | None:
        return median(self.starts) if self.starts else None


@dataclass
class Figures:
    """All that was measured: by case, and by number of pages.

    Attributes:
        others: of each load, what programs that are no part of it used meanwhile, in cores.
    """

    records: dict[str, Record]
    crowds: dict[int, Crowd]
    notes: list[str]
    others: list[float] = field(default_factory=list)


def all_cases() -> dict[str, Case]:
    """In the order in which they are measured: what is compared stands side by side."""

    def page(title: str, name: str, written: str, path: str = "", learn: tuple[str, str] | None = None) -> Case:
        return Case(title, OURS, path or f"/{name.removesuffix('.html')}", body_of_page(name, written), learn=learn)

    hello = page("page: two includes, one escaped value of the query", "hello.html", "<p>Hi, Abcde!</p>", HELLO)
    style = Case("stylesheet, 600 bytes", OURS, STYLE, (SITE / ROOT / "style.css").read_bytes())
    image = Case(f"image, {IMAGE_SIZE // 1000} kB", OURS, f"/{IMAGE}", b"")
    cookie = ("/visits", "set-cookie")
    again = "<p>Hi, Abcde, visit 2!</p>\n"
    return {
        "floor": Case("C floor, “Hi, Abcde!”", FLOOR, PATH, BODY),
        "hello": hello,
        "hello-floor": replace(hello, server="hello-floor", title="C floor, the page's bytes"),
        "echo": Case("plain handler, “Hi, Abcde!”", OURS, PATH, BODY),
        "title": page("page: the value from main.py", "title.html", "<p>Hi, The bench!</p>"),
        "async": page("page: the block is `<?pya`", "async.html", "<p>Hi, Abcde!</p>", "/async?name=Abcde"),
        "included": page("page: includes, no code", "included.html", ""),
        "reads": page("page: reads the session", "reads.html", "<p>Hi, Abcde!</p>", learn=cookie),
        "visits": page("page: reads and changes the session", "visits.html", again, learn=cookie),
        "table": page("page: 1,000 rows of two escaped values", "table.html", rows()),
        "plain": page("static page, no code", "plain.html", ""),
        "style": style,
        "style-floor": replace(style, server="style-floor", title="C floor, the stylesheet's bytes"),
        "style-nginx": replace(style, server=NGINX, title="nginx, stylesheet"),
        "style-cache": replace(style, server=CACHING, title="nginx with open_file_cache, stylesheet"),
        "304": Case("304 of the stylesheet", OURS, STYLE, b"", 304, (STYLE, "etag")),
        "404": Case("404", OURS, "/no-such-page", b"", 404),
        "image": image,
        "image-nginx": replace(image, server=NGINX, title="nginx, image"),
        "image-cache": replace(image, server=CACHING, title="nginx with open_file_cache, image"),
    }


class Bench:
    """The servers of a round, and the folders they serve."""

    def __init__(self, folder: Path, seconds: int, cores: tuple[int, int]) -> None:
        self.folder = folder
        self.site = folder / "site"
        make_site(self.site)
        self.crowds = {count: make_articles(folder / str(count), count) for count in (1, MANY)}
        self.seconds = seconds
        self.cores = cores
        self.floor = floor().command[0]
        self.cases = all_cases()
        self.cases |= {
            key: replace(case, body=(self.site / ROOT / IMAGE).read_bytes())
            for key, case in self.cases.items()
            if case.path == f"/{IMAGE}"
        }
        self.figures = Figures({key: Record(case.title) for key, case in self.cases.items()}, {}, [])
        self.figures.crowds = {count: Crowd() for count in self.crowds}

    def start(self, command: tuple[str, ...], port: int) -> Server:
        return Server([part.replace("{port}", str(port)) for part in command], {}, self.cores[0])

    def prepare(self) -> None:
        """Sees what can be measured, and has the floor send the bytes of the page and of the stylesheet."""
        port = free_port()
        with self.start(serving(str(self.site)), port) as server:
            server.first_answer(port, PATH)
            for key, path in (("hello", HELLO), ("style", STYLE)):
                with connect(port) as connection:
                    answer = exchange(connection, path)
                lines = answer.split(b"\r\n", 3)
                if status_of(answer) != 200 or [line[:5] for line in lines[1:3]] != [b"Serve", b"Date:"]:
                    raise ServerError(f"{path}: an answer that the floor cannot send")
                (self.folder / f"{key}-floor").write_bytes(lines[3])
            with connect(port) as connection:
                escaped = exchange(connection, "/hello?name=%3Cb%3E%26")
            if body_of(escaped) != body_of_page("hello.html", "<p>Hi, &lt;b&gt;&amp;!</p>"):
                raise ServerError("the page does not escape")

    def commands(self, ports: dict[str, int]) -> dict[str, tuple[str, ...]]:
        """The servers that run side by side."""
        found = {FLOOR: (self.floor, "{port}"), OURS: serving(str(self.site))}
        for key in ("hello-floor", "style-floor"):
            found[key] = (self.floor, "{port}", str(self.folder / key))
        for key in (NGINX, CACHING):
            own = self.folder / key
            own.mkdir(exist_ok=True)
            try:
                found[key] = nginx.configure(own, self.site / ROOT, ports[key], key == CACHING)
            except UnavailableError as error:
                for name, case in self.cases.items():
                    if case.server == key:
                        self.figures.records[name].reason = str(error)
        return found

    def note(self, text: str) -> None:
        if text not in self.figures.notes:
            self.figures.notes.append(text)

    def round(self, number: int) -> None:
        ports = {key: free_port() for key in {case.server for case in self.cases.values()}}
        with ExitStack() as stack:
            servers: dict[str, Server] = {}
            for key, command in self.commands(ports).items():
                servers[key] = stack.enter_context(self.start(command, ports[key]))
            for key, server in servers.items():
                server.first_answer(ports[key], STYLE)
            keys = [key for key in self.cases if not self.figures.records[key].reason]
            turn = number * 7 % len(keys)
            for key in keys[turn:] + keys[:turn]:
                case = self.cases[key]
                self.measure(key, servers[case.server], ports[case.server], number)
        try:
            weights = {count: self.weigh(count, pages) for count, pages in self.crowds.items()}
        except (ServerError, OSError) as error:
            self.note(f"number of pages: {error}")
            say(f"    {error}")
            return
        for count, (seconds, memory, asked) in weights.items():
            self.figures.crowds[count].add(seconds, memory, asked)

    def measure(self, key: str, server: Server, port: int, number: int) -> None:
        """One case. One that fails the first time is left out from then on."""
        case, record = self.cases[key], self.figures.records[key]
        try:
            load = self.check(case, record, port)
            url = f"http://127.0.0.1:{port}{case.path}"
            before = _of_others()
            sample = run(server, load, url, self.seconds, self.cores[1])
            spent = _of_others() - before - sample.cpu_us * sample.requests / 1e6
            self.figures.others.append(max(spent, 0.0) / sample.seconds)
        except (ServerError, OSError) as error:
            server.check()
            if record.samples:
                record.note(str(error))
            else:
                record.reason = str(error)
            say(f"    {case.title}: {error}")
            return
        record.samples.setdefault(load.key, {})[number] = sample
        say(f"    {case.title}: {sample.cpu_us:.2f} µs, {sample.rate:,.0f}/s")

    def check(self, case: Case, record: Record, port: int) -> Load:
        """Looks at what it answers. Raises ServerError. Returns the load to be put on it."""
        fields: tuple[str, ...] = ()
        with connect(port) as connection:
            if case.learn is not None:
                path, name = case.learn
                value = field_of(exchange(connection, path), name).partition(";")[0]
                if not value:
                    raise ServerError(f"{path} sends no {name}")
                fields = (f"{SENT_BACK[name]}: {value}",)
            for _ in range(CHECKS):
                answer = exchange(connection, case.path, fields)
                right = body_of(answer) == case.body or case.status == 404
                if status_of(answer) != case.status or not right:
                    raise ServerError(f"a wrong answer, status {status_of(answer)}, {len(answer)} bytes")
        record.answer_bytes = len(answer)
        return replace(LOAD, fields=fields, refused=case.status >= 400)

    def weigh(self, count: int, pages: list[Page]) -> tuple[float, int, int]:
        """Seconds to the first answer of a server with so many pages, and its worker's memory then and when asked."""
        port = free_port()
        with self.start(serving(str(self.folder / str(count))), port) as server:
            seconds, answer = server.first_answer(port, pages[-1].path)
            if status_of(answer) != 200:
                raise ServerError(f"{count} pages: status {status_of(answer)}")
            memory = server.memory(workers=True).pss
            with connect(port) as connection:
                for page in pages * (MANY // count):
                    if body_of(exchange(connection, page.path)) != page.body:
                        raise ServerError(f"{page.path}: a wrong answer")
            asked = server.memory(workers=True).pss
        say(f"    {count} pages: {seconds * 1e3:.0f} ms to the first answer, {asked / 1e6:.1f} MB")
        return seconds, memory, asked


def _of_others() -> float:
    """CPU seconds that all programs have used, but for the bench and its wrk."""
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return busy_seconds() - own.ru_utime - own.ru_stime - children.ru_utime - children.ru_stime


# ---- results ----


def judge(figures: Figures) -> list[Bar]:
    records, crowds = figures.records, figures.crowds

    def ratio(title: str, key: str, other: str, limit: float) -> Bar:
        return at_most(title, cpu_ratio(records, key, other, LOAD), limit, TIMES)

    table = records["table"].cpu_us(LOAD)
    more = [(many - one) / 1e6 for many, one in zip(crowds[MANY].asked, crowds[1].asked, strict=True)]
    return [
        ratio("page of two includes and an escaped value, CPU over the floor's", "hello", "floor", PAGE_OVER_FLOOR),
        ratio("the same, over a floor that sends the same bytes", "hello", "hello-floor", PAGE_OVER_FLOOR),
        ratio("stylesheet, CPU over a floor that sends the same bytes", "style", "style-floor", STYLE_OVER_FLOOR),
        ratio("the same, over the floor's “Hi, Abcde!”", "style", "floor", STYLE_OVER_FLOOR),
        ratio("image, CPU over nginx's", "image", "image-nginx", IMAGE_OVER_NGINX),
        ratio("the same, over nginx's with open_file_cache", "image", "image-cache", IMAGE_OVER_NGINX),
        at_most("page of 1,000 rows, CPU", None if table is None else table / 1e3, TABLE, " ms"),
        at_most(f"{MANY:,} pages, start to first answer", crowds[MANY].start(), START, " s"),
        at_most(f"{MANY:,} pages, the worker's PSS over one page's", median(more) if more else None, MORE, " MB"),
    ]


def _case_row(records: dict[str, Record], key: str, case: Case) -> str:
    record = records[key]
    samples = list(record.samples.get(LOAD.key, {}).values())
    if not samples:
        return f"| {case.title} | {NONE} | {NONE} | {NONE} | {NONE} | {NONE} |"
    over = cpu_ratio(records, key, "floor", LOAD)
    cpu = [sample.cpu_us for sample in samples]
    # fmt: off
    cells = [case.title, f"{median(cpu):,.2f}", NONE if over is None else f"{over:.2f}{TIMES}",
             f"{record.rate(LOAD):,.0f}", f"{min(cpu):,.2f} to {max(cpu):,.2f}", f"{record.answer_bytes:,}"]
    # fmt: on
    return f"| {' | '.join(cells)} |"


def _crowd_row(count: int, crowd: Crowd) -> str:
    if not crowd.starts:
        return f"| {count:,} | {NONE} | {NONE} | {NONE} |"
    first, asked = median(crowd.memory) / 1e6, median(crowd.asked) / 1e6
    return f"| {count:,} | {median(crowd.starts) * 1e3:.0f} | {first:.1f} | {asked:.1f} |"


def write(bench: Bench, settings: str, quick: bool, folder: Path) -> None:
    """pages.md for people, pages.json with every sample."""
    figures, cases = bench.figures, bench.cases
    folder.mkdir(parents=True, exist_ok=True)
    left_out = [f"- {record.title}: {record.reason}" for record in figures.records.values() if record.reason]
    left_out += [f"- {record.title}: {note}" for record in figures.records.values() for note in record.notes]
    left_out += [f"- {note}" for note in figures.notes]
    others = median(figures.others) if figures.others else 0.0
    lines = ["# Bench results: pages", ""]
    if quick:
        lines += ["**A quick run, to see that the bench works: these are no figures to quote.**", ""]
    if others > OTHERS:
        lines += [
            "**The machine had other work meanwhile. Then the floor costs more, and what is above it looks less.**"
        ]
        lines += [""]
    lines += [
        f"## Server CPU per request, µs, {LOAD.title}",
        "",
        "| what is asked for | CPU | over the floor | requests/s | spread | bytes of an answer |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        *(_case_row(figures.records, key, case) for key, case in cases.items()),
        "",
        "## Number of pages",
        "",
        "| pages | first answer, ms | PSS of the worker then, MB | PSS after 1,000 answers, MB |",
        "| ---: | ---: | ---: | ---: |",
        *(_crowd_row(count, crowd) for count, crowd in figures.crowds.items()),
        "",
        "## Not measured",
        "",
        *(left_out or ["Everything asked for was measured."]),
        "",
        *table(judge(figures)),
        "## Method",
        "",
        f"{settings} Other programs used {others:.2f} cores meanwhile.",
        "",
    ]
    (folder / "pages.md").write_text("\n".join(lines), encoding="utf-8")
    record = asdict(figures) | {"bars": [asdict(bar) for bar in judge(figures)]}
    (folder / "pages.json").write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def described() -> str:
    """The machine, in one line."""
    machine = describe()
    try:
        machine["nginx"] = nginx.version()
    except UnavailableError as error:
        machine["nginx"] = str(error)
    return "; ".join(f"{name}: {value}" for name, value in machine.items())


def main() -> None:
    parser = argparse.ArgumentParser(description="Measures the content server of 80s on this machine.")
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
    with tempfile.TemporaryDirectory(prefix="80s-bench-") as folder:
        bench = Bench(Path(folder), seconds, cores)
        bench.prepare()
        for number in range(rounds):
            say(f"round {number + 1}/{rounds}: pages")
            bench.round(number)
    date = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    settings = f"{date}; {rounds} round(s), {seconds} s a load; medians. {described()}."
    write(bench, settings, chosen.quick, chosen.out)
    for bar in judge(bench.figures):
        say(f"{bar.verdict:>12}  {bar.title}: {bar.measured} ({bar.asked})")
    say(f"written: {chosen.out}/pages.md, pages.json")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
