"""Worker: one process with one loop, one engine and the program. `python -m eighties.serve.worker`.

Started by `supervisor` only, with its orders in an environment variable and what they name as inherited descriptors.
It says `ready` on the control socket once it listens, and ends when told by SIGTERM or when its parent is gone.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import resource
import signal
import sys
from typing import TYPE_CHECKING, NamedTuple

from . import logs
from .loader import Entry, LoadError, load, locate
from .settings import EXIT_CANNOT_START, EXIT_ERROR, HOOK_TIME, ORDERS, Settings

if TYPE_CHECKING:
    from .._engine import Engine
    from ..app import App

# While draining only: how often the engine is asked whether it is done, in seconds.
DRAIN_LOOK = 0.02


class Orders(NamedTuple):
    """What the parent wants; `listeners`, `control` and `scoreboard` are descriptors."""

    number: int
    settings: Settings
    listeners: list[int]
    control: int
    scoreboard: int


def read_orders() -> Orders:
    """Take the orders out of the environment, and keep the descriptors from programs that the user's code starts."""
    words = json.loads(os.environ.pop(ORDERS))
    settings = Settings(words["settings"], words["sources"])
    orders = Orders(words["number"], settings, words["listeners"], words["control"], words["scoreboard"])
    for fd in (*orders.listeners, orders.control, orders.scoreboard):
        os.set_inheritable(fd, False)
    return orders


def new_loop(name: str) -> asyncio.AbstractEventLoop:
    """A loop of the named kind, set as this thread's. Raises LoadError when uvloop is asked for and missing."""
    loop: asyncio.AbstractEventLoop
    if name == "asyncio":
        loop = asyncio.SelectorEventLoop()
    else:
        try:
            import uvloop

            loop = uvloop.new_event_loop()
        except ImportError:
            if name == "uvloop":
                raise LoadError("uvloop is not installed: pip install uvloop, or --loop asyncio") from None
            loop = asyncio.SelectorEventLoop()
    asyncio.set_event_loop(loop)
    return loop


def loop_name(loop: asyncio.AbstractEventLoop) -> str:
    """As `--loop` calls it."""
    return "uvloop" if type(loop).__module__.startswith("uvloop") else "asyncio"


def load_app(entry: Entry, settings: Settings) -> App:
    """Run the program, and merge what its App says into the settings."""
    app = load(entry)
    app.dev = settings.dev
    settings.merge_app(app.limits, app.server_header)
    return app


async def start_app(app: App) -> None:
    """Run the on_start hooks; what they raise becomes a LoadError."""
    try:
        await app.startup()
    except Exception as error:
        message = f"an on_start hook failed: {type(error).__name__}: {error}"
        raise LoadError(message, logs.traceback_of(error)) from None


async def stop_app(app: App) -> bool:
    """Run the on_stop hooks; False when one failed, which is logged."""
    try:
        await app.shutdown()
    except Exception as error:
        message = f"an on_stop hook failed: {type(error).__name__}: {error}"
        logs.log("error", message, traceback=logs.traceback_of(error))
        return False
    return True


def close_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Leave nothing running: what is left of tasks is cancelled, as `asyncio.run` does."""
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.run_until_complete(loop.shutdown_default_executor())
    asyncio.set_event_loop(None)
    loop.close()


def say_why(error: LoadError) -> int:
    """Log why the program cannot start, and return the exit code that says so."""
    logs.log("error", str(error), traceback=error.traceback)
    return EXIT_CANNOT_START


def run_once(entry: Entry, settings: Settings) -> int:
    """`--cli`: load the program, run its hooks, serve nothing. Returns the exit code."""
    logs.capture_logging()
    try:
        loop = new_loop(settings.loop)
    except LoadError as error:
        return say_why(error)

    async def run() -> bool:
        await start_app(app)
        return await stop_app(app)

    try:
        app = load_app(entry, settings)
        return 0 if loop.run_until_complete(run()) else 1
    except LoadError as error:
        return say_why(error)
    finally:
        close_loop(loop)


def run_through(loop: asyncio.AbstractEventLoop, serving: asyncio.Task[int]) -> int:
    """Run the loop until the task is done, whatever other tasks do; returns the task's result.

    asyncio lets SystemExit and KeyboardInterrupt of any task end the loop, but no request may end a worker. The task
    that raised it is over, and whoever waits for it is told: for a handler, the engine answers 500.
    """
    while True:
        try:
            return loop.run_until_complete(serving)
        except (SystemExit, KeyboardInterrupt) as error:
            if serving.done():
                raise
            logs.log("error", f"a task raised {type(error).__name__}, which ends nothing but the task")


class Worker:
    """The process: owns the loop and the engine."""

    def __init__(self, orders: Orders) -> None:
        self.orders = orders
        self.settings = orders.settings
        self.stop = asyncio.Event()
        # The task that runs the on_start hooks, while it does.
        self.starting: asyncio.Task[int] | None = None

    def run(self) -> int:
        """Serve until told to stop. Returns the exit code."""
        try:
            loop = new_loop(self.settings.loop)
        except LoadError as error:
            return say_why(error)
        try:
            # Until here SIGTERM just ends the process, which has nothing to lose yet.
            app = load_app(locate(self.settings.entry), self.settings)
            loop.add_signal_handler(signal.SIGTERM, self.begin_to_stop)
            return run_through(loop, loop.create_task(self.serve(app, loop)))
        except asyncio.CancelledError:  # told to stop while starting
            return 0
        except LoadError as error:
            return say_why(error)
        except Exception as error:
            message = f"the worker failed: {type(error).__name__}: {error}"
            logs.log("critical", message, traceback=logs.traceback_of(error))
            return EXIT_ERROR
        finally:
            close_loop(loop)

    async def serve(self, app: App, loop: asyncio.AbstractEventLoop) -> int:
        """From the first hook to the last."""
        # The hooks run in this task, not in one of their own: context variables they set are seen by handlers.
        self.starting = asyncio.current_task()
        await start_app(app)
        self.starting = None
        engine = self.make_engine(app, loop)
        # What is loaded by now stays: the collector need not look at it again.
        gc.enable()
        gc.collect()
        gc.freeze()
        self.listen(engine, loop)
        await self.stop.wait()
        await self.drain(engine)
        loop.remove_reader(engine.fileno())
        engine.close()
        return 0 if await stop_app(app) else 1

    def make_engine(self, app: App, loop: asyncio.AbstractEventLoop) -> Engine:
        """The engine with the App's routes, not listening yet."""
        from .. import http
        from .._engine import Engine
        from . import scoreboard

        engine = Engine(
            loop,
            self.settings.limits,
            request_type=http.Request,
            respond=http.respond,
            failed=app.failed,
            pump=http.pump,
            settle=http.settle,
            log=lambda level, message: logs.log(level.lower(), message),
            server_header=self.settings.server_header,
            worker=self.orders.number,
            # Alone, take what there is; among others one a turn, so that an idle worker wins over a busy one.
            accept_batch=16 if self.settings.workers == 1 else 1,
            scoreboard=scoreboard.attach(self.orders.scoreboard, self.orders.number),
        )
        engine.set_routes(app.routes(), app.fallbacks())
        return engine

    def listen(self, engine: Engine, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to accept, and tell the parent."""
        from .._engine import POLLER, VERSION

        loop.add_reader(engine.fileno(), engine.poll)
        for fd in self.orders.listeners:
            engine.listen(fd)
            os.close(fd)  # the engine has its own: a second one would keep the port open while draining
        loop.add_reader(self.orders.control, self.hear_parent)
        os.write(self.orders.control, f"ready {VERSION} {loop_name(loop)} {POLLER}\n".encode())

    def hear_parent(self) -> None:
        """The control socket is readable: the parent has nothing to say yet but that it is gone."""
        try:
            if os.read(self.orders.control, 4096):
                return
        except OSError:
            pass
        asyncio.get_running_loop().remove_reader(self.orders.control)
        if not self.stop.is_set():
            logs.log("error", "the parent process is gone: answering what is under way, then ending")
        # Nobody is left to end a handler that blocks: the kernel does, unless all is done before.
        signal.setitimer(signal.ITIMER_REAL, self.settings.grace + HOOK_TIME)
        self.stop.set()

    def begin_to_stop(self) -> None:
        """SIGTERM: serve no longer; a start that is under way is given up."""
        self.stop.set()
        if self.starting is not None:
            self.starting.cancel()

    async def drain(self, engine: Engine) -> None:
        """Accept no more, and wait for what is under way as long as the grace allows."""
        engine.drain()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.settings.grace
        while engine.connections or engine.tasks:
            left = deadline - loop.time()
            if left <= 0:
                message = f"the grace of {self.settings.grace:g} s is over"
                logs.log("warning", message, connections=engine.connections, tasks=engine.tasks)
                return
            await asyncio.sleep(min(left, DRAIN_LOOK))


def raise_descriptor_limit() -> None:
    """Every connection is a descriptor: take as many as the system allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):  # macOS refuses "no limit"
        pass


def main() -> None:
    """Entry point of the process."""
    # Ctrl+C reaches every process of the terminal; it is for the parent, which then says what to do. The parent
    # started this process with the signal blocked, so that it does no harm until here.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGHUP))
    gc.disable()  # until the program is loaded: imports make no garbage worth looking for
    orders = read_orders()
    logs.set_worker(orders.number)
    logs.capture_logging()
    raise_descriptor_limit()
    sys.exit(Worker(orders).run())


if __name__ == "__main__":
    main()
