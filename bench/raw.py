"""The bench of what lies under HTTP: raw echo, promises, frames. See README.md beside this file.

Like bench.py it runs on this machine over loopback, alternates, and ends every process it started.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from bars import TIMES, Bar, at_least, at_most, table
from exchange import connect, free_port
from machine import describe
from peers import PROGRAMS, ours
from processes import RETRY, START_LIMIT, Server, ServerError
from rounds import say
from toolbox import built, call

ROUNDS = 5
SECONDS = 2
CONNECTIONS = 64
MESSAGE = 100  # bytes
WARM_UP = 0.3  # seconds of load that do not count
FRAMES = 1_000_000
FRAME = 8  # bytes
SLACK = 30.0

ECHO_OVER_FLOOR = 1.2
PROMISE_OVER_FUTURE = 2.0
FRAME_RATE = 300_000.0  # a second

FLOOR, RAW, UVLOOP = "C epoll echo (the floor)", "80s, raw API", "uvloop Protocol"


@dataclass
class Figures:
    """All that was measured: µs of server CPU per message by server and round, frames a second, promises."""

    echo: dict[str, list[float]]
    rates: dict[str, list[float]]
    frames: list[float]
    promises: dict[str, dict[str, float]]


def commands() -> dict[str, tuple[str, ...]]:
    """Compiles what is C, and gives the command of each echo server."""
    compiler = shlex.split(os.environ.get("CC", "cc"))
    for name in ("echo_floor", "echo_load"):
        call([*compiler, "-std=gnu11", "-O2", "-Wall", "-Wextra", "-o", built(name), f"bench/{name}.c"])
    return {
        FLOOR: (str(built("echo_floor")), "{port}"),
        RAW: ours("bytes_echo.py"),
        UVLOOP: (sys.executable, f"{PROGRAMS}/uvloop_echo.py", "{port}"),
    }


def start(command: tuple[str, ...], port: int, core: int) -> Server:
    return Server([part.replace("{port}", str(port)) for part in command], {}, core)


def wait_for(server: Server, port: int) -> None:
    """Until it accepts connections."""
    begin = time.perf_counter()
    while time.perf_counter() - begin < START_LIMIT:
        server.check()
        try:
            connect(port).close()
            return
        except OSError:
            time.sleep(RETRY)
    raise ServerError("it does not listen")


def load(port: int, seconds: float, core: int) -> tuple[int, float]:
    """Messages that came back, and seconds."""
    command = [built("echo_load"), str(port), str(CONNECTIONS), str(MESSAGE), str(seconds)]
    done = subprocess.run(
        ["taskset", "-c", str(core), *map(str, command)],
        capture_output=True,
        text=True,
        check=True,
        timeout=seconds + SLACK,
    )
    count, took = done.stdout.split()
    return int(count), float(took)


def echo(command: tuple[str, ...], seconds: float, cores: tuple[int, int]) -> tuple[float, float]:
    """µs of server CPU per message, and messages a second."""
    port = free_port()
    with start(command, port, cores[0]) as server:
        wait_for(server, port)
        load(port, WARM_UP, cores[1])
        before = server.cpu_seconds()
        count, took = load(port, seconds, cores[1])
        return (server.cpu_seconds() - before) / count * 1e6, count / took


def frames(cores: tuple[int, int]) -> float:
    """Frames that `buffered_cor` reads in a second of the server's CPU."""
    port = free_port()
    with start(ours("frames.py"), port, cores[0]) as server:
        wait_for(server, port)
        before = server.cpu_seconds()
        with connect(port) as connection:
            connection.sendall(b"%08d" % FRAMES + b"x" * FRAME * FRAMES)
            answer = connection.recv(FRAME)
        if answer != b"%08d" % FRAMES:
            raise ServerError(f"it counted {answer!r} frames")
        return FRAMES / (server.cpu_seconds() - before)


def measure(rounds: int, seconds: float, cores: tuple[int, int]) -> Figures:
    servers = commands()
    figures = Figures({name: [] for name in servers}, {name: [] for name in servers}, [], {})
    for number in range(rounds):
        say(f"round {number + 1}/{rounds}: raw")
        names = list(servers)
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            cpu, rate = echo(servers[name], seconds, cores)
            say(f"    {name}: {cpu:.2f} µs, {rate:,.0f}/s")
            figures.echo[name].append(cpu)
            figures.rates[name].append(rate)
        figures.frames.append(frames(cores))
        say(f"    {figures.frames[-1]:,.0f} frames a second")
    figures.promises = json.loads(call(["taskset", "-c", str(cores[0]), sys.executable, f"{PROGRAMS}/promises.py"]))
    return figures


def judge(figures: Figures) -> list[Bar]:
    def ratio(name: str) -> float:
        return median(one / two for one, two in zip(figures.echo[name], figures.echo[FLOOR], strict=True))

    ours_first = median(one / two for one, two in zip(figures.echo[UVLOOP], figures.echo[RAW], strict=True))
    promise = figures.promises["ratio"]
    return [
        at_most("raw echo, CPU per message over the floor's", ratio(RAW), ECHO_OVER_FLOOR, TIMES),
        at_least("CPU per message: uvloop Protocol over ours", ours_first, 1.0, TIMES),
        at_most("promise resolved, then awaited, over a Future", promise["ready"], PROMISE_OVER_FUTURE, TIMES),
        at_most("promise awaited, then resolved, over a Future", promise["later"], PROMISE_OVER_FUTURE, TIMES),
        at_least(f"{FRAME}-byte frames read a second by buffered_cor", median(figures.frames), FRAME_RATE, ""),
    ]


def write(figures: Figures, settings: str, folder: Path) -> None:
    """raw.md for people, raw.json with every sample."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        f"| {name} | {median(values):.2f} | {median(figures.rates[name]):,.0f}"
        f" | {min(values):.2f} to {max(values):.2f} |"
        for name, values in sorted(figures.echo.items(), key=lambda item: median(item[1]))
    ]
    names = {"future_ready": "Future, set then awaited", "promise_ready": "promise, resolved then awaited"}
    names |= {"future_later": "Future, awaited then set", "promise_later": "promise, awaited then resolved"}
    costs = [f"| {names[name]} | {ns:.0f} |" for name, ns in figures.promises["ns"].items()]
    lines = [
        "# Bench results: under HTTP",
        "",
        f"## Raw echo, {CONNECTIONS} connections, messages of {MESSAGE} bytes",
        "",
        "| server | server CPU per message, µs | messages a second | spread |",
        "| --- | ---: | ---: | ---: |",
        *rows,
        "",
        "## Promises, ns",
        "",
        "| | ns |",
        "| --- | ---: |",
        *costs,
        "",
        *table(judge(figures)),
        "## Method",
        "",
        settings,
        "",
    ]
    (folder / "raw.md").write_text("\n".join(lines), encoding="utf-8")
    record = {"echo": figures.echo, "rates": figures.rates, "frames": figures.frames, "promises": figures.promises}
    (folder / "raw.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description="Measures raw sockets, promises and frames of 80s on this machine.")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"rounds over all servers ({ROUNDS})")
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"seconds of each load ({SECONDS})")
    parser.add_argument("--out", type=Path, default=Path("bench/results"), help="folder of the results")
    chosen = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        sys.exit("bench: two cores are needed, one for the server and one for the load")
    figures = measure(chosen.rounds, chosen.seconds, (cores[0], cores[1]))
    machine = "; ".join(f"{name}: {value}" for name, value in describe().items())
    date = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    write(figures, f"{date}; {chosen.rounds} rounds, {chosen.seconds:g} s a load; medians. {machine}.", chosen.out)
    for bar in judge(figures):
        say(f"{bar.verdict:>12}  {bar.title}: {bar.measured} ({bar.asked})")


if __name__ == "__main__":
    main()
