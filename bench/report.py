"""The three files of a run: results.md for people, results.json for programs, results.svg for the README."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import chart
from bars import NONE, TIMES, Bar, cpu_ratio, judge
from loads import LOADS, MANY, USUAL
from peers import ASYNC, FLOOR, OURS
from rounds import Record, Settings


@dataclass(frozen=True)
class Report:
    date: str  # UTC
    machine: dict[str, str]
    engine: dict[str, str | int]
    settings: Settings
    records: dict[str, Record]

    def write(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "results.md").write_text(self._markdown(), encoding="utf-8")
        (folder / "results.json").write_text(self._json(), encoding="utf-8")
        (folder / "results.svg").write_text(self._chart(), encoding="utf-8")

    def bars(self) -> list[Bar]:
        return judge(self.records, self.engine)

    def _measured(self) -> list[tuple[str, Record]]:
        """Those with a figure at 64 connections, the lightest first; then those with none there."""
        heavy = float("inf")
        found = [(key, record) for key, record in self.records.items() if not record.reason]
        return sorted(found, key=lambda item: item[1].cpu_us(USUAL) or heavy)

    def _markdown(self) -> str:
        parts = ["# Bench results", ""]
        if self.settings.quick:
            parts += ["**A quick run, to see that the bench works: these are no figures to quote.**", ""]
        parts += ["![Server CPU per request](results.svg)", ""]
        for section in (self._cpu, self._rates, self._weights, self._absent, self._bars, self._method):
            parts += [*section(), ""]
        return "\n".join(parts)

    def _cpu(self) -> list[str]:
        rows = []
        for key, record in self._measured():
            ratio = cpu_ratio(self.records, key, FLOOR)
            times = NONE if ratio is None else f"{ratio:.2f}{TIMES}"
            rows.append(
                [_name(key, record), *(_number(record.cpu_us(load), 2) for load in LOADS), _spread(record), times]
            )
        heads = ["server", *(load.title for load in LOADS), "spread at 64", "at 64, over the floor"]
        return ["## Server CPU per request, µs", "", *_table(heads, rows)]

    def _rates(self) -> list[str]:
        rows = [
            [_name(key, record), *(_number(record.rate(load)) for load in LOADS), _tail(record)]
            for key, record in self._measured()
        ]
        heads = ["server", *(load.title for load in LOADS), "99th percentile at 64, ms"]
        return [
            "## Requests per second",
            "",
            *_table(heads, rows),
            "",
            "One core of wrk is spent before the fastest servers are: there CPU per request tells more.",
        ]

    def _weights(self) -> list[str]:
        rows = []
        for key, record in self._measured():
            rest = record.idles[0].rest if record.idles else None
            memory = [_mega(rest), _mega(record.pss()), _mega(record.alone())] if key != ASYNC else [NONE] * 3
            start = record.start()
            began = _number(None if start is None else start * 1e3)
            rows.append([_name(key, record), *memory, began, str(record.answer_bytes), record.version])
        held = f"{self.settings.idle:,} idle connections"
        # fmt: off
        heads = ["server", "PSS at rest, MB", f"PSS, {held}, MB", "same, nothing shared, MB", "first answer, ms",
                 "bytes per answer", "version"]
        # fmt: on
        return ["## Memory, start and version", "", *_table(heads, rows), *self._delays(), *self._unequal()]

    def _delays(self) -> list[str]:
        delays = self.records[OURS].delays if OURS in self.records else []
        if not delays:
            return []
        greatest, p99 = median(delay.greatest for delay in delays), median(delay.p99 for delay in delays)
        late = f"late by {greatest:.2f} ms at most, by {p99:.2f} ms in 99 of 100 cases"
        return ["", f"With {MANY.title} saturated, a task that sleeps 10 ms on the loop of 80s was {late}."]

    def _unequal(self) -> list[str]:
        """A warning when the floor's answer is not as long as ours, which it stands for."""
        bytes_of = {key: self.records[key].answer_bytes for key in (OURS, FLOOR) if key in self.records}
        if 0 in bytes_of.values() or len(set(bytes_of.values())) < 2:
            return []
        return [
            "",
            f"The floor answers {bytes_of[FLOOR]} bytes where 80s answers {bytes_of[OURS]}: floor.c is out of date.",
        ]

    def _absent(self) -> list[str]:
        lines = [
            f"- {record.title}: not available: {record.reason}" for record in self.records.values() if record.reason
        ]
        for record in self.records.values():
            lines += [f"- {record.title}: {note}" for note in record.notes]
        return ["## Not measured", "", *(lines or ["Everything asked for was measured."])]

    def _bars(self) -> list[str]:
        rows = [[bar.title, bar.asked, bar.measured, bar.verdict] for bar in self.bars()]
        return [
            "## Bars",
            "",
            "What 80s asks of itself, sync handler, 64 connections, every limit and timeout on, unless said otherwise.",
            "",
            *_table(["bar", "asked", "measured", ""], rows),
        ]

    def _method(self) -> list[str]:
        settings = self.settings
        quick = "a quick run; " if settings.quick else ""
        machine = "; ".join(f"{name}: {value}" for name, value in self.machine.items())
        return [
            "## Method",
            "",
            f"- {self.date}; {quick}{settings.rounds} round(s), {settings.seconds} s a load, in alternation; medians.",
            f"- {machine}.",
            f"- The server is pinned to core {settings.server_core}, `wrk -t1` and the bench to core"
            f" {settings.client_core}; loopback.",
            "- CPU is user + system time of the server's whole process tree while wrk runs, from the kernel's process"
            " clocks, over the requests wrk counted.",
            '- PSS is the sum over the process tree; "nothing shared" counts in full what other processes, such as the'
            " bench's own Python, have mapped as well. Every idle connection has made one request.",
            "- Every request is `GET /echo?name=Abcde`, answered `Hi, Abcde!` by a function in the server's language;"
            " the floor answers the same bytes without looking.",
        ]

    def _json(self) -> str:
        figures = asdict(self)
        figures["bars"] = [asdict(bar) for bar in self.bars()]
        return json.dumps(figures, indent=1, ensure_ascii=False) + "\n"

    def _chart(self) -> str:
        kinds = {OURS: "ours", ASYNC: "ours", FLOOR: "floor"}
        rows = []
        for key, record in self._measured():
            value = record.cpu_us(USUAL)
            if value is not None:
                rows.append(chart.Row(record.title, value, kinds.get(key, "")))
        subtitle = "“Hi, Abcde!” over 64 connections; one core for the server, one for wrk"
        quick = "quick run, no figures to quote; " if self.settings.quick else ""
        footer = f"{quick}{self.date}; {self.machine['CPU']}; Python {self.machine['Python']}; {self.machine['kernel']}"
        return chart.draw(rows, subtitle, footer)


def _name(key: str, record: Record) -> str:
    return f"**{record.title}**" if key in (OURS, ASYNC) else record.title


def _number(value: float | None, digits: int = 0) -> str:
    return NONE if value is None else f"{value:,.{digits}f}"


def _mega(value: float | None) -> str:
    return NONE if value is None else f"{value / 1e6:.1f}"


def _spread(record: Record) -> str:
    values = [sample.cpu_us for sample in record.samples.get(USUAL.key, {}).values()]
    return f"{min(values):.2f} to {max(values):.2f}" if values else NONE


def _tail(record: Record) -> str:
    values = sorted(sample.p99_us for sample in record.samples.get(USUAL.key, {}).values())
    return f"{values[len(values) // 2] / 1e3:.2f}" if values else NONE


def _table(heads: list[str], rows: list[list[str]]) -> list[str]:
    lines = [heads, ["---"] + ["---:"] * (len(heads) - 1), *rows]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
