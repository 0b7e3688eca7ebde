"""The bench: 80s against a C program with a canned answer and against its peers. See README.md beside this file.

Everything runs on this machine over loopback, every load ends by itself, and the whole ends every process it started.
"""

import argparse
import os
import shutil
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from idle import allow_descriptors
from machine import describe, describe_engine
from peers import PEERS
from report import Report
from rounds import Settings, make_ready, measure, say

ROUNDS = 5
SECONDS = 3
IDLE = 10_000
QUICK_IDLE = 1_000
TOOLS = {"wrk": "wrk", "taskset": "util-linux", "strip": "binutils"}  # command: Debian package


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measures 80s against its peers on this machine.")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"rounds over all servers ({ROUNDS})")
    parser.add_argument("--seconds", type=int, default=SECONDS, help=f"seconds of each load ({SECONDS})")
    parser.add_argument("--only", help=f"these servers, with commas: {','.join(PEERS)}")
    parser.add_argument(
        "--quick", action="store_true", help="one round of one second, 1,000 idle: does it work at all?"
    )
    parser.add_argument("--out", type=Path, default=Path("bench/results"), help="folder of the results")
    chosen = parser.parse_args()
    if chosen.rounds < 1 or chosen.seconds < 1:
        parser.error("--rounds and --seconds are at least 1")
    unknown = set(chosen.only.split(",")) - set(PEERS) if chosen.only else set()
    if unknown:
        parser.error(f"no such server: {', '.join(sorted(unknown))}; there are {', '.join(PEERS)}")
    return chosen


def two_cores() -> tuple[int, int]:
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        sys.exit("bench: two cores are needed, one for the server and one for wrk")
    return cores[0], cores[1]


def check_tools() -> None:
    if sys.platform != "linux":
        sys.exit("bench: Linux only; it reads /proc and pins with taskset")
    missing = [package for command, package in TOOLS.items() if shutil.which(command) is None]
    if missing:
        sys.exit(f"bench: first install {' '.join(missing)} (Debian: apt-get install {' '.join(missing)})")


def end(number: int, _: FrameType | None) -> None:
    sys.exit(128 + number)  # leaves through every `with`, so no server stays behind


def main() -> None:
    chosen = arguments()
    check_tools()
    signal.signal(signal.SIGTERM, end)
    server_core, client_core = two_cores()
    idle = QUICK_IDLE if chosen.quick else IDLE
    settings = Settings(
        rounds=1 if chosen.quick else chosen.rounds,
        seconds=1 if chosen.quick else chosen.seconds,
        idle=idle,
        server_core=server_core,
        client_core=client_core,
        quick=chosen.quick,
        idle_refused=allow_descriptors(idle),
    )
    peers, records = make_ready(chosen.only.split(",") if chosen.only else list(PEERS))
    os.sched_setaffinity(0, {client_core})
    measure(peers, records, settings)
    date = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    report = Report(date, describe(), describe_engine(), settings, records)
    report.write(chosen.out)
    for bar in report.bars():
        say(f"{bar.verdict:>12}  {bar.title}: {bar.measured} ({bar.asked})")
    say(f"written: {chosen.out}/results.md, results.json, results.svg")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
