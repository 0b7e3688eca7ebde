"""The loads, and one run of wrk under each of them."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

from processes import Server, ServerError

SCRIPT = Path(__file__).resolve().parent / "pipeline.lua"
SLACK = 30.0  # seconds a run of wrk may take beyond its own; then it is ended


@dataclass(frozen=True)
class Load:
    key: str
    title: str
    connections: int
    depth: int = 1  # requests sent at once on a connection
    fields: tuple[str, ...] = ()  # header fields of each request, beside Host
    refused: bool = False  # whether each answer is to have a status of 400 or more


SINGLE = Load("c1", "1 connection", 1)
USUAL = Load("c64", "64 connections", 64)
MANY = Load("c512", "512 connections", 512)
PIPELINED = Load("p16", "64 connections, 16 pipelined", 64, 16)
LOADS = (SINGLE, USUAL, MANY, PIPELINED)


@dataclass(frozen=True)
class Sample:
    """One run: what wrk counted, and what the server's processes spent meanwhile."""

    requests: int
    seconds: float
    rate: float  # requests/s
    cpu_us: float  # user + system µs of the server's process tree per request
    server_share: float  # of one core, spent by the server
    p50_us: int
    p99_us: int


def run(server: Server, load: Load, url: str, seconds: int, core: int) -> Sample:
    """Lets wrk load the server for so many seconds. Raises ServerError when requests fail or none is answered."""
    # fmt: off
    command = ["taskset", "-c", str(core), "wrk", "-t1", f"-c{load.connections}", f"-d{seconds}s", "-s", str(SCRIPT),
               *(part for field in load.fields for part in ("-H", field)), url, "--", str(load.depth)]
    # fmt: on
    before = server.cpu_seconds()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + SLACK, check=True)
    except subprocess.SubprocessError as error:
        server.check()
        raise ServerError(f"wrk did not end well at {load.title}: {type(error).__name__}") from error
    spent = server.cpu_seconds() - before
    server.check()
    figures = json.loads(done.stdout.splitlines()[-1])
    failed = figures["failed"] + figures["refused"]
    if load.refused:
        failed = figures["failed"] + figures["requests"] - figures["refused"]
    if figures["requests"] == 0 or failed > 0:
        raise ServerError(f"{failed} of {figures['requests']} requests failed at {load.title}")
    return Sample(
        requests=figures["requests"],
        seconds=figures["seconds"],
        rate=figures["requests"] / figures["seconds"],
        cpu_us=spent / figures["requests"] * 1e6,
        server_share=spent / figures["seconds"],
        p50_us=figures["p50_us"],
        p99_us=figures["p99_us"],
    )
