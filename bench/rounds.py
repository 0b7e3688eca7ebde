"""The measurement itself: alternating rounds over all servers, and the record of what each of them did.

Every server is started anew in every round, and the order is turned by one, so that neither the machine's drift nor a
server's place in the row falls on one of them alone.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median

from exchange import ask, body_of, free_port
from idle import Idle, hold
from loads import LOADS, MANY, Load, Sample, run
from peers import PEERS, Peer
from processes import Server, ServerError
from toolbox import UnavailableError


@dataclass(frozen=True)
class Settings:
    rounds: int
    seconds: int  # of one run of wrk
    idle: int  # connections held idle
    server_core: int
    client_core: int
    quick: bool
    idle_refused: str | None = None  # why that many cannot be opened here


@dataclass(frozen=True)
class Delay:
    """How late a task on the server's loop was that slept 10 ms over and over, in ms."""

    count: int
    greatest: float
    p99: float


@dataclass
class Record:
    """All that is known of one server. Samples and delays by the round they were taken in."""

    title: str
    version: str = ""
    reason: str = ""  # why it was not measured
    notes: list[str] = field(default_factory=list)  # what went wrong on the way
    answer_bytes: int = 0
    samples: dict[str, dict[int, Sample]] = field(default_factory=dict)
    starts: list[float] = field(default_factory=list)  # seconds
    idles: list[Idle] = field(default_factory=list)
    delays: list[Delay] = field(default_factory=list)

    def rate(self, load: Load) -> float | None:
        values = [sample.rate for sample in self.samples.get(load.key, {}).values()]
        return median(values) if values else None

    def cpu_us(self, load: Load) -> float | None:
        values = [sample.cpu_us for sample in self.samples.get(load.key, {}).values()]
        return median(values) if values else None

    def start(self) -> float | None:
        return median(self.starts) if self.starts else None

    def pss(self) -> float | None:
        return median(idle.pss for idle in self.idles) if self.idles else None

    def alone(self) -> float | None:
        return median(idle.alone for idle in self.idles) if self.idles else None

    def delay(self) -> float | None:
        return median(delay.greatest for delay in self.delays) if self.delays else None

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def make_ready(keys: list[str]) -> tuple[dict[str, Peer], dict[str, Record]]:
    """Installs and compiles what is asked for. Who cannot be had gets a record with the reason."""
    peers: dict[str, Peer] = {}
    records: dict[str, Record] = {}
    for key in keys:
        title, build = PEERS[key]
        records[key] = Record(title)
        try:
            peers[key] = build()
            records[key].version = peers[key].version
            say(f"ready: {title} ({peers[key].version})")
        except UnavailableError as error:
            records[key].reason = str(error)
            say(f"not available: {title}: {error}")
    return peers, records


def measure(peers: dict[str, Peer], records: dict[str, Record], settings: Settings) -> None:
    """Fills the records. A server that fails at its first start is left out from then on; other failures are noted."""
    for number in range(settings.rounds):
        keys = list(peers)
        turn = number % len(keys) if keys else 0
        for key in keys[turn:] + keys[:turn]:
            record = records[key]
            if record.reason:
                continue
            say(f"round {number + 1}/{settings.rounds}: {record.title}")
            one = _Measuring(peers[key], record, settings, number)
            for part in (one.load, one.weigh, one.delay):
                _attempt(part, record)


def _attempt(part: Callable[[], None], record: Record) -> None:
    if record.reason:
        return
    try:
        part()
    except (ServerError, OSError, ValueError) as error:
        say(f"    {error}")
        if record.starts:
            record.note(str(error))
        else:
            record.reason = str(error)


class _Measuring:
    """One server in one round: three starts, for the loads, the idle connections and the delay of its loop."""

    def __init__(self, peer: Peer, record: Record, settings: Settings, number: int) -> None:
        self._peer = peer
        self._record = record
        self._settings = settings
        self._round = number

    def load(self) -> None:
        port = free_port()
        with self._start(self._peer.command, port) as server:
            self._first_answer(server, port)
            for load in LOADS:
                self._sample(server, load, port)

    def weigh(self) -> None:
        if not self._peer.idle:
            return
        if self._settings.idle_refused:
            self._record.note(f"idle connections: {self._settings.idle_refused}")
            return
        port = free_port()
        with self._start(self._peer.command, port) as server:
            self._first_answer(server, port)
            idle = hold(server, port, self._peer.path, self._settings.idle)
        self._record.idles.append(idle)
        say(f"    {idle.connections} idle connections: {idle.pss / 1e6:.1f} MB")

    def delay(self) -> None:
        if not self._peer.delay_command:
            return
        port = free_port()
        with self._start(self._peer.delay_command, port) as server:
            server.first_answer(port, "/delay")
            ask(port, "/delay")  # what was late at the start does not count
            run(server, MANY, self._url(port), self._settings.seconds, self._settings.client_core)
            figures = json.loads(body_of(ask(port, "/delay")))
        delay = Delay(int(figures["count"]), figures["greatest"], figures["p99"])
        self._record.delays.append(delay)
        say(f"    task delayed by at most {delay.greatest:.2f} ms, 99 %: {delay.p99:.2f} ms")

    def _start(self, command: tuple[str, ...], port: int) -> Server:
        filled = [part.replace("{port}", str(port)) for part in command]
        return Server(filled, self._peer.environment, self._settings.server_core)

    def _url(self, port: int) -> str:
        return f"http://127.0.0.1:{port}{self._peer.path}"

    def _first_answer(self, server: Server, port: int) -> None:
        seconds, answer = server.first_answer(port, self._peer.path)
        status = answer.partition(b"\r\n")[0].split(maxsplit=2)[1]
        if status != b"200" or self._peer.body not in (None, body_of(answer)):
            raise ServerError(f"a wrong answer, status {status.decode()}")
        self._record.starts.append(seconds)
        self._record.answer_bytes = len(answer)

    def _sample(self, server: Server, load: Load, port: int) -> None:
        try:
            sample = run(server, load, self._url(port), self._settings.seconds, self._settings.client_core)
        except ServerError as error:
            server.check()
            self._record.note(str(error))
            say(f"    {error}")
            return
        self._record.samples.setdefault(load.key, {})[self._round] = sample
        say(f"    {load.title}: {sample.rate:,.0f}/s, {sample.cpu_us:.2f} µs")
