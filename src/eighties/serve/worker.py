"""Worker: one process with one loop, one engine and the program. `python -m eighties.serve.worker`.

Started by `supervisor` only, with its orders in an environment variable and what they name as inherited descriptors.
It says that it is ready on the control socket (`link`) once it listens, and ends when told by SIGTERM or when its
parent is gone.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import resource
import signal
import sys
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import post
from . import content, link, logs, modules, passing, reload, slots, slow, watch, wear
from .loader import Entry, EntryError, LoadError, Program, load, locate, own_of
from .settings import EXIT_CANNOT_START, EXIT_ERROR, HOOK_TIME, ORDERS, Settings

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from .._engine import Engine, Request
    from ..app import App
    from .follow import Follow
    from .fresh import Own

# on_init and on_message are called here.
ENGINE_HOOKS = ("on_data", "on_close", "on_write", "on_accept")
# While draining only: how often the engine is asked whether it is done, in seconds.
DRAIN_LOOK = 0.02
# Of the loop, between the engine's end and the on_stop hooks: a handler's `finally` takes two or three.
LAST_TURNS = 10


class Orders(NamedTuple):
    """What the parent wants; `listeners`, `passing`, `control` and `scoreboard` are descriptors.

    `passing` are the ends of a socket pair: what another process of this number gives up comes out of the second.
    `session_key` is shared by all workers of this server, for sessions where there is no master key. `successor`:
    another process serves until this one does.
    """

    number: int
    settings: Settings
    listeners: list[int]
    passing: tuple[int, int]
    control: int
    scoreboard: int
    row: int
    session_key: str
    successor: bool


def read_orders() -> Orders:
    """Take the orders out of the environment, and keep the descriptors from programs that the user's code starts."""
    words = json.loads(os.environ.pop(ORDERS))
    words["settings"] = Settings(words["settings"], words.pop("sources"))
    orders = Orders(**words)
    for fd in (*orders.listeners, *orders.passing, orders.control, orders.scoreboard):
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


def load_app(entry: Entry, settings: Settings, session_key: str | None = None, old: Program | None = None) -> Program:
    """Run the program, merge what its App says into the settings, and hang its site on its App.

    `old` is the program before this one, whose settings stay in force.
    """
    try:
        post.here()
    except RuntimeError:  # --cli, --cfg: alone, its mail finds nobody
        post.use(post.Post(0, 1, settings.node))
    content.use_master_key()
    program = load(entry)
    program.app.dev = settings.dev
    if old is None:
        settings.merge_app(program.app.limits, program.app.server_header)
    program.site = content.attach(
        program, entry, settings, session_key or os.urandom(32).hex(), None if old is None else old.site
    )
    return program


async def start_app(app: App, again: bool = False) -> None:
    """Run the on_start hooks; what they raise becomes a LoadError. `again`: another program is served meanwhile."""
    try:
        await app.startup(again)
    except (Exception, SystemExit) as error:
        raise cannot_start("an on_start hook", error) from None


def cannot_start(where: str, error: BaseException) -> LoadError:
    """What to raise when a part of the program that must work for it to start has failed."""
    return LoadError(f"{where} failed: {type(error).__name__}: {error}", logs.traceback_of(error))


def report(where: str, error: BaseException) -> None:
    """Log what the program's own code has raised where the server called it."""
    logs.log("error", f"{where} failed: {type(error).__name__}: {error}", traceback=logs.traceback_of(error))


async def stop_app(app: App, again: bool = False) -> bool:
    """Run the on_stop hooks; False when one failed, which is logged."""
    try:
        await app.shutdown(again)
    except Exception as error:
        report("an on_stop hook", error)
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
        program = load_app(entry, settings)
        app = program.app
        if program.site is not None:
            program.site.refresh()
            content.Care(program.site, lambda: None, loud=True).report()
        return 0 if loop.run_until_complete(run()) else 1
    except LoadError as error:
        return say_why(error)
    finally:
        close_loop(loop)
        post.use(None)


def run_through(loop: asyncio.AbstractEventLoop, serving: asyncio.Task[int]) -> int:
    """Run the loop until the task is done, whatever other tasks do; returns the task's result.

    asyncio lets SystemExit and KeyboardInterrupt of any task end the loop, but no request may end a worker. The task
    that raised it is over, and whoever waits for it is told: for a handler, the engine answers 500.
    """
    while True:
        try:
            return loop.run_until_complete(serving)
        except (SystemExit, KeyboardInterrupt) as error:
            if serving.done() and (serving.cancelled() or serving.exception() is error):
                raise
            logs.log("error", f"a task raised {type(error).__name__}, which ends nothing but the task")


class Worker:
    """The process: owns the loop, the engine and the link to the parent."""

    def __init__(self, orders: Orders, loop: asyncio.AbstractEventLoop) -> None:
        self.orders = orders
        self.settings = orders.settings
        self.loop = loop
        self.reloader = reload.Reloader(self)
        self.link = link.Link(
            loop, orders.control, orders.number, self.settings.workers, self.lose_parent, self.reloader.hear, self.leave
        )
        self.follow: Follow | None = None
        if self.settings.dev:
            from .follow import Follow

            self.follow = Follow(self)
            self.link.ended = self.follow.end_round
        self.stop = asyncio.Event()
        # Another process serves in this one's place: what this one has is handed over.
        self.leaving = False
        # When what is under way is cut; 0: the end has not begun.
        self.deadline = 0.0
        # The task that runs the on_start hooks, while it does.
        self.starting: asyncio.Task[None] | None = None
        self.care: content.Care | None = None
        self.slow = slow.SlowWatch(loop, self.settings.slow_handler, lambda path: self.own.has(path))
        # The first worker watches for all.
        self.watches = self.settings.reload and orders.number == 0
        self.natives = self.settings.modules.split(",") if self.settings.modules else []
        self.watch: watch.Watch | None = None
        self.seen = watch.NOTHING
        # As they were before the program was loaded.
        self.path = list(sys.path)
        self.context = copy_context()
        # Set when the program is loaded, and then when it serves.
        self.own: Own
        self.engine: Engine
        self.served: reload.Served
        self.listeners: list[int] = []
        self.taker: passing.Taker | None = None
        self.wear: wear.Wear | None = None
        self.modules: modules.Modules | None = None

    def run(self) -> int:
        """Serve until told to stop. Returns the exit code."""
        try:
            post.use(post.Post(self.orders.number, self.settings.workers, self.settings.node, self.link))
            # Until here SIGTERM just ends the process, which has nothing to lose yet.
            program = self.load()
            # A loop may lose a signal that comes before it runs.
            signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM,))
            self.loop.add_signal_handler(signal.SIGTERM, self.begin_to_stop)
            serving = self.loop.create_task(self.serve(self.start(program)))
            del program  # nothing may hold it longer than it is served
            return run_through(self.loop, serving)
        except asyncio.CancelledError:  # told to stop while starting
            return 0
        except LoadError as error:
            if not self.orders.successor:
                return say_why(error)
            self.link.failed(str(error), error.traceback or "")
            return EXIT_CANNOT_START
        except Exception as error:
            message = f"the worker failed: {type(error).__name__}: {error}"
            logs.log("critical", message, traceback=logs.traceback_of(error))
            return EXIT_ERROR
        finally:
            self.link.close()
            close_loop(self.loop)
            post.use(None)

    async def serve(self, start: Coroutine[Any, Any, None]) -> int:
        """From the first hook to the last."""
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM,))
        engine = self.engine = self.make_engine()
        try:
            # A task of its own: what the hooks set in its context is not to live longer than the program.
            self.starting = self.loop.create_task(start)
            await self.starting
            await self.stop.wait()
            for each in (self.care, self.watch, self.wear, self.taker):
                if each is not None:
                    each.close()
            if self.leaving:
                await self.hand_over(engine)
            await self.drain(engine)
        finally:
            self.slow.stop()
            if self.modules is not None:
                self.modules.unload()
            self.link.stop()  # on_message may use the engine
            self.loop.remove_reader(engine.fileno())
            engine.close()
        for _ in range(LAST_TURNS):  # what was cut off ends, before the hooks close what it uses
            await asyncio.sleep(0)
        await self.reloader.close()
        return 0 if await reload.stop_served(self.served) else 1

    def load(self, again: bool = False) -> Program:
        """Run the program. Raises LoadError."""
        try:
            entry = locate(self.settings.entry, self.settings.public_html)
        except EntryError as error:
            raise LoadError(str(error)) from None
        if not again:
            self.own = own_of(entry)
            self.own.use()
            if self.watches:
                self.seen = watch.look(self.own.folder, entry.root and os.path.realpath(entry.root), self.natives)
            return load_app(entry, self.settings, self.orders.session_key)
        old = self.served.program
        program = load_app(entry, self.settings, self.orders.session_key, old)
        if (program.app.limits, program.app.server_header) != (old.app.limits, old.app.server_header):
            logs.log(
                "warning",
                "limits and server_header of App(...) are taken when a process starts only: reload with --full",
            )
        return program

    def failed(self, request: Request, error: BaseException) -> object:
        """The answer to an exception, by the program that the request belongs to."""
        return self.reloader.find(request).program.app.failed(request, error)

    def make_engine(self) -> Engine:
        """The engine, with nothing of the program yet."""
        from .. import http, streams
        from .._engine import Engine
        from . import scoreboard

        return Engine(
            self.loop,
            self.settings.limits,
            request_type=http.Request,
            respond=http.respond,
            failed=self.failed,
            pump=http.pump,
            settle=http.settle,
            log=lambda level, message: logs.log(level.lower(), message),
            server_header=self.settings.server_header,
            worker=self.orders.number,
            # Alone, take what there is; among others one a turn, so that an idle worker wins over a busy one.
            accept_batch=16 if self.settings.workers == 1 else 1,
            scoreboard=scoreboard.attach(self.orders.scoreboard, self.orders.row),
            socket_type=streams.Socket,
            report=report,
        )

    async def start(self, program: Program) -> None:
        """Run the on_start hooks, which may use sockets and mail, then serve."""
        engine = self.engine
        self.loop.add_reader(engine.fileno(), engine.poll)
        self.link.listen()
        # The hooks run in this task, not in one of their own: context variables they set are seen by handlers.
        link.Loading()
        await start_app(program.app)
        self.starting = None
        link.Loading.end()
        self.served = reload.Served(program)
        self.put_in_place(self.served)
        self.modules = modules.load(self.settings, engine, program, self.orders.listeners)
        # What is loaded by now stays: the collector need not look at it again.
        gc.enable()
        gc.collect()
        gc.freeze()
        self.listen(program, engine)
        self.take_care()
        self.reloader.begin()
        self.slow.begin()
        if self.watches:
            broken, ask = self.reloader.is_broken, self.link.ask
            self.watch = watch.Watch(self.own, self.site_root, broken, ask, self.seen, self.natives)

    def site_root(self) -> str | None:
        """The folder of pages that is served now."""
        site = self.served.program.site
        return None if site is None else site.root

    def put_in_place(self, served: reload.Served) -> None:
        """Hand a program's routes and hooks to those who call them, in the context that the on_start hooks left."""
        program, engine = served.program, self.engine
        if self.follow is not None:
            self.follow.join(program)
        self.set_routes(served)
        engine.set_hooks({name: hook for name, hook in program.hooks.items() if name in ENGINE_HOOKS}, program.raw)
        engine.set_protocols(served.choose)
        self.loop.add_reader(engine.fileno(), engine.poll)  # again: a reader keeps the context it was added in
        self.link.start(engine.fileno(), program.hooks.get("on_message") or link.no_hook(), report)

    def set_routes(self, served: reload.Served) -> None:
        """Have the engine serve what the App and its site consist of now."""
        routes, fallbacks = served.routes()
        self.engine.set_routes(routes if self.follow is None else [*routes, self.follow.route], fallbacks)

    async def start_again(self, program: Program) -> reload.Served:
        """Run the hooks of a program that is loaded again, and swap it in; gives the one before. Raises LoadError."""
        await start_app(program.app, again=True)
        for listener in self.listeners:
            self.call_on_init(program, listener)
        link.Loading.end()
        old, new = self.served, reload.Served(program)
        try:  # nothing runs meanwhile but what is called here: until all has been swapped, all can be put back
            self.put_in_place(new)
            if self.modules is not None:
                self.modules.reload(program)
        except BaseException:
            old.context.copy().run(self.put_in_place, old)
            raise
        self.served = new
        if self.care is not None:
            self.care.close()
        self.take_care()
        return old

    def call_on_init(self, program: Program, listener: int) -> None:
        """Tell the program of a listening socket. Raises LoadError."""
        if on_init := program.hooks.get("on_init"):
            try:
                on_init(self.engine.fileno(), listener)
            except Exception as error:
                raise cannot_start("on_init", error) from None

    def take_care(self) -> None:
        """Have the program's site, if there is one, cared for."""
        site, before = self.served.program.site, self.care
        self.care = None
        if site is not None:
            loud = self.orders.number == 0
            self.care = content.Care(site, lambda: self.set_routes(self.served), loud=loud, before=before)
            self.care.begin()

    def look_at_site(self) -> None:
        """Files of the site have changed."""
        if self.care is not None:
            self.care.look()

    def listen(self, program: Program, engine: Engine) -> None:
        """Begin to accept, and tell the parent."""
        from .._engine import POLLER, VERSION

        for fd in self.orders.listeners:
            listener = engine.listen(fd)
            os.close(fd)  # the engine has its own: a second one would keep the port open while draining
            self.listeners.append(listener)
            self.call_on_init(program, listener)
        # Not in this context: what the hooks have set in it is not to live longer than the program.
        run = self.context.copy().run
        self.taker = run(passing.Taker, engine, self.orders.passing[1], self.loop)
        run(self.taker.begin)
        self.wear = run(wear.Wear, self.settings, engine, self.loop, self.link.ask_for_another)
        self.link.ready(VERSION, loop_name(self.loop), POLLER)

    def lose_parent(self) -> None:
        """The parent has closed its end of the control socket: it is gone."""
        if not self.stop.is_set():
            logs.log("error", "the parent process is gone: answering what is under way, then ending")
        # Nobody is left to end a handler that blocks: the kernel does, unless all is done before.
        signal.setitimer(signal.ITIMER_REAL, self.settings.grace + HOOK_TIME)
        self.begin_to_stop()

    def leave(self) -> None:
        """Another process serves in this one's place."""
        self.leaving = True
        self.begin_to_stop()

    def begin_to_stop(self) -> None:
        """Serve no longer; a start that is under way is given up."""
        self.stop.set()
        if self.starting is not None:
            self.starting.cancel()
        self.reloader.stop()
        if self.follow is not None:
            self.follow.close()

    async def hand_over(self, engine: Engine) -> None:
        """Accept no more, and give each connection to the process that serves now, as soon as it is idle."""
        engine.close_listeners()
        self.deadline = self.loop.time() + self.settings.grace
        giver = passing.Giver(engine, self.orders.passing[0], self.loop)
        giver.begin()
        last = self.deadline + passing.MORE_TIME
        told = False
        while (engine.connections or engine.tasks) and self.loop.time() < (last if giver.more else self.deadline):
            await asyncio.sleep(passing.LOOK)
            if giver.once_round and not told:
                told = True
                self.link.left()
        giver.close()
        self.link.left()

    async def drain(self, engine: Engine) -> None:
        """Accept no more, and wait for what is under way as long as the grace allows."""
        engine.drain()
        loop = asyncio.get_running_loop()
        deadline = self.deadline or loop.time() + self.settings.grace
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
    for number in slots.IGNORED:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, slots.IGNORED)
    gc.disable()  # until the program is loaded: imports make no garbage worth looking for
    del sys.argv[1:]  # it says whose process this is
    orders = read_orders()
    logs.set_worker(orders.number)
    logs.capture_logging()
    raise_descriptor_limit()
    try:
        loop = new_loop(orders.settings.loop)
    except LoadError as error:
        sys.exit(say_why(error))
    sys.exit(Worker(orders, loop).run())


if __name__ == "__main__":
    main()
