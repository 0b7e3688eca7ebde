"""The bars that 80s has set itself, each held against this run.

Ratios are taken within each round and their median counts, so that the machine's drift from round to round cancels out.
"""

import sys
from dataclasses import dataclass
from statistics import median

from loads import PIPELINED, USUAL, Load
from peers import ASYNC, FLOOR, OURS, PEERS
from rounds import Record

TIMES = " \u00d7"
NONE = "\u2013"  # no figure

CPU_OVER_FLOOR = 1.12
ASYNC_OVER_FLOOR = 1.25
EAGER_TASKS = (3, 12)  # the Python that has them; before it the bar for async does not stand
LESS_CPU_THAN = {"fastpysgi": 1.3, "go": 1.6, "uvicorn": 2.5}
PIPELINED_OVER_USUAL = 5.0
IDLE_PSS = 28.0  # MB, the whole server with one worker
IDLE_CONNECTIONS = 10_000
CONNECTION_SIZE = 400  # bytes in the engine
ENGINE_SIZE = 280.0  # kB, stripped: what the ancestor is
START = 0.3  # seconds to the first answer
DELAY = 10.0  # ms, the greatest


@dataclass(frozen=True)
class Bar:
    title: str
    asked: str
    measured: str
    verdict: str  # met, missed, or not measured


def judge(records: dict[str, Record], engine: dict[str, str | int]) -> list[Bar]:
    ours = records.get(OURS, Record("80s"))
    bars = [at_most("CPU per request over the floor's", cpu_ratio(records, OURS, FLOOR), CPU_OVER_FLOOR, TIMES)]
    for key, least in LESS_CPU_THAN.items():
        bars.append(
            at_least(f"CPU per request: {PEERS[key][0]} over ours", cpu_ratio(records, key, OURS), least, TIMES)
        )
    bars.append(
        at_least("16 pipelined, requests/s over unpipelined", _pipelined_ratio(ours), PIPELINED_OVER_USUAL, TIMES)
    )
    if sys.version_info >= EAGER_TASKS:
        ratio = cpu_ratio(records, ASYNC, FLOOR)
        bars.append(at_most("`async def` that does not wait, CPU over the floor's", ratio, ASYNC_OVER_FLOOR, TIMES))
    return [*bars, *_absolute(ours, engine)]


def _absolute(ours: Record, engine: dict[str, str | int]) -> list[Bar]:
    """The bars that are no ratio."""
    held = ours.idles[0].connections if ours.idles else 0
    pss = ours.pss() if held >= IDLE_CONNECTIONS else None  # a quick run holds fewer
    size = engine.get("stripped_size")
    each = engine.get("connection_size")
    return [
        at_most(f"{IDLE_CONNECTIONS:,} idle connections, PSS", None if pss is None else pss / 1e6, IDLE_PSS, " MB"),
        at_most("engine, one connection", None if each is None else int(each), CONNECTION_SIZE, " bytes"),
        at_most("engine binary, stripped", None if size is None else int(size) / 1e3, ENGINE_SIZE, " kB"),
        at_most("start to first answer", ours.start(), START, " s"),
        at_most("a task on the loop at 512 connections, greatest delay", ours.delay(), DELAY, " ms"),
    ]


def cpu_ratio(records: dict[str, Record], key: str, other: str, load: Load = USUAL) -> float | None:
    """CPU per request of one server over another's, the median of the rounds that have both."""
    if key not in records or other not in records:
        return None
    one, two = records[key].samples.get(load.key, {}), records[other].samples.get(load.key, {})
    ratios = [one[number].cpu_us / two[number].cpu_us for number in one.keys() & two.keys()]
    return median(ratios) if ratios else None


def _pipelined_ratio(ours: Record) -> float | None:
    one, two = ours.samples.get(PIPELINED.key, {}), ours.samples.get(USUAL.key, {})
    ratios = [one[number].rate / two[number].rate for number in one.keys() & two.keys()]
    return median(ratios) if ratios else None


def at_most(title: str, value: float | None, limit: float, unit: str) -> Bar:
    return Bar(title, f"≤ {limit:g}{unit}", _figure(value, unit), _verdict(value is not None and value <= limit, value))


def at_least(title: str, value: float | None, limit: float, unit: str) -> Bar:
    return Bar(title, f"≥ {limit:g}{unit}", _figure(value, unit), _verdict(value is not None and value >= limit, value))


def _figure(value: float | None, unit: str) -> str:
    if value is None:
        return NONE
    return f"{value:.0f}{unit}" if value >= 100 else f"{value:.3g}{unit}"


def _verdict(met: bool, value: float | None) -> str:
    return "not measured" if value is None else "met" if met else "missed"


def table(bars: list[Bar]) -> list[str]:
    """The bars as a section of a report, in Markdown."""
    rows = [f"| {bar.title} | {bar.asked} | {bar.measured} | {bar.verdict} |" for bar in bars]
    return ["## Bars", "", "| bar | asked | measured | |", "| --- | ---: | ---: | --- |", *rows, ""]
