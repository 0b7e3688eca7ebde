"""Native modules in the test's own process: what they may call, how they are reloaded, what is refused."""

from __future__ import annotations

import errno
import functools
import gc
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from native_modules import BARE, PROBE, Place, build
from sockets import House, in_house, make_engine, turns, until

from eighties import post
from eighties._engine import NativeModule, live
from eighties.serve import logs, modules
from eighties.serve.loader import LoadError

READ, WRITE = 1, 2


class Lines(list[tuple[str, str]]):
    """What is logged, instead of on stderr."""

    def add(self, level: str, message: str, **fields: object) -> None:
        self.append((level, message))


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Lines:
    found = Lines()
    monkeypatch.setattr(logs, "log", found.add)
    return found


@pytest.fixture(scope="session")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(PROBE, tmp_path_factory.mktemp("native") / "probe.so")


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    gc.collect()
    before = live()["engines"]
    yield
    gc.collect()
    assert live()["engines"] <= before


def loaded(house: House, *paths: Path, **more: int) -> Place:
    place = Place(house.engine, *paths, **more)
    place.load()
    return place


# ---- the table ----


@in_house
async def test_it_is_told_where_it_is(house: House, probe: Path) -> None:
    place = loaded(house, probe, workers=3)
    assert place.program.facts() == {
        "abi": 1,
        "workerid": 0,
        "workers": 3,
        "node": "here",
        "port": 8080,
        "loop_fd": house.engine.fileno(),
        "reload": 0,
        "module": str(probe),
    }
    place.modules.unload()
    assert place.program.calls == [("load", "probe", 0), ("unload", "probe", 0)]


@in_house
async def test_write_and_close(house: House, probe: Path) -> None:
    place = loaded(house, probe)
    program = place.program
    sock, peer = house.pair()
    assert program.write(sock.fd, b"hello") == 0
    assert program.write(sock.fd, None) == program.write(sock.fd, b"") == 0
    assert program.write(sock.fd, b"x" * 20000) == 0  # so long that it is not copied to a buffer
    assert await peer.receive(20005) == b"hello" + b"x" * 20000
    assert program.write(sock.fd, None, 5) == -errno.EINVAL
    for handle in (0, sock.fd + 1, 2**64 - 1, house.engine.fileno()):
        assert program.write(handle, b"x") == program.close(handle) == -errno.EBADF
    assert program.close(sock.fd) == 0
    assert program.close(sock.fd) == program.write(sock.fd, b"x") == -errno.EBADF
    assert await peer.receive_all() == b""
    place.modules.unload()


@in_house
async def test_write_datagrams(house: House, probe: Path) -> None:
    place = loaded(house, probe)
    sock, peer = house.pair(socket.SOCK_DGRAM)
    assert place.program.write(sock.fd, b"one") == place.program.write(sock.fd, b"two") == 0
    assert await peer.receive(3) == b"one" and await peer.receive(3) == b"two"
    assert place.program.write(sock.fd, b"x" * 65508) == -errno.EMSGSIZE
    sock.abort()
    place.modules.unload()


@in_house
async def test_watching(house: House, probe: Path) -> None:
    place = loaded(house, probe)
    program = place.program
    ours, theirs = socket.socketpair()
    with ours, theirs:
        seen: list[tuple[int, int]] = []
        fd = ours.fileno()
        assert program.add_fd(fd, READ, lambda *event: seen.append(event)) == 0
        await turns()
        assert seen == []
        theirs.send(b"x")
        await until(lambda: len(seen) > 2)  # nobody reads it: told again and again
        assert set(seen) == {(fd, READ)}
        assert program.add_fd(fd, WRITE, lambda *event: seen.append(event)) == 0
        seen.clear()
        await until(lambda: seen)
        assert set(seen) == {(fd, WRITE)}
        assert program.add_fd(fd, READ | WRITE, lambda *event: seen.append(event)) == 0
        await until(lambda: set(seen) == {(fd, READ), (fd, WRITE)})
        assert program.remove_fd(fd) == 0
        seen.clear()
        await turns()
        assert seen == [] and program.remove_fd(fd) == -errno.ENOENT
    place.modules.unload()


@in_house
async def test_what_cannot_be_watched(house: House, probe: Path, tmp_path: Path) -> None:
    place = loaded(house, probe)
    program = place.program
    reader, writer = os.pipe()
    (tmp_path / "file").touch()
    file = os.open(tmp_path / "file", os.O_RDONLY)
    for events in (0, 4, 7, -1):
        assert program.add_fd(reader, events, print) == -errno.EINVAL
    assert program.add_fd(reader, READ, None) == -errno.EINVAL
    assert program.add_fd(file, READ, print) == -errno.EPERM
    assert program.remove_fd(file) == -errno.ENOENT
    assert program.add_fd(house.engine.fileno(), READ, print) == -errno.EBUSY
    for fd in (reader, writer, file):
        os.close(fd)
    for fd in (-1, reader, 2**31 - 1):
        assert program.add_fd(fd, READ, print) == -errno.EBADF
        assert program.remove_fd(fd) == -errno.ENOENT
    place.modules.unload()


@in_house
async def test_a_number_that_is_another_descriptor_now(house: House, probe: Path) -> None:
    """Though it forgot to remove the old one."""
    place = loaded(house, probe)
    seen: list[int] = []
    reader, writer = os.pipe()
    assert place.program.add_fd(reader, READ, print) == 0
    os.close(reader)
    os.close(writer)
    again, writer = os.pipe()
    assert again == reader
    assert place.program.add_fd(again, READ, lambda fd, event: seen.append(os.read(fd, 9)[0])) == 0
    os.write(writer, b"!")
    await until(lambda: seen)
    assert place.program.remove_fd(again) == 0
    os.close(again)
    os.close(writer)
    place.modules.unload()


@in_house
async def test_a_callback_may_add_and_remove(house: House, probe: Path) -> None:
    place = loaded(house, probe)
    program = place.program
    pipes = [os.pipe() for _ in range(40)]
    seen: list[int] = []

    def first(fd: int, event: int) -> None:
        assert program.remove_fd(fd) == 0
        for reader, writer in pipes[1:]:  # the table grows
            assert program.add_fd(reader, READ, others) == 0
            os.write(writer, b"x")

    def others(fd: int, event: int) -> None:
        seen.append(fd)
        for reader, _ in pipes[1:]:
            assert program.remove_fd(reader) == 0

    assert program.add_fd(pipes[0][0], READ, first) == 0
    os.write(pipes[0][1], b"x")
    await until(lambda: seen)
    await turns()
    assert len(seen) == 1, "one that was removed in the same turn was called"
    for pair in pipes:
        for fd in pair:
            os.close(fd)
    place.modules.unload()


@in_house
async def test_what_a_callback_raises_is_the_loops(house: House, probe: Path) -> None:
    place = loaded(house, probe)
    reader, writer = os.pipe()

    def fail(fd: int, event: int) -> None:
        os.read(fd, 1)
        raise KeyError("callback")

    assert place.program.add_fd(reader, READ, fail) == 0
    os.write(writer, b"xy")
    await until(lambda: len(house.errors) == 2)  # and it is called again
    assert [type(error["exception"]) for error in house.errors] == [KeyError, KeyError]
    house.errors.clear()
    place.modules.unload()
    os.close(reader)
    os.close(writer)


@in_house
async def test_what_is_left_is_removed(house: House, probe: Path) -> None:
    place = loaded(house, probe)
    reader, writer = os.pipe()
    seen: list[int] = []
    assert place.program.add_fd(reader, READ, lambda fd, event: seen.append(fd)) == 0
    os.write(writer, b"x")
    place.modules.unload()
    await turns()
    assert seen == [] and not house.loop.remove_reader(reader)
    os.close(reader)
    os.close(writer)


class Link:
    """Takes three messages."""

    def __init__(self) -> None:
        self.sent: list[tuple[int | None, bytes]] = []

    def mail(self, worker: int | None, sender: int, target: int, message: bytes) -> bool:
        self.sent.append((worker, message))
        return len(self.sent) < 4


@in_house
async def test_mail(house: House, probe: Path) -> None:
    place = loaded(house, probe, workers=2)
    mail = place.program.mail
    assert mail(0, b"x") == -errno.EBUSY, "no post: a RuntimeError"
    link: Any = Link()
    post.use(post.Post(0, 2, "here", link))
    try:
        assert mail(1, b"to one") == mail(-1, b"to all") == mail(0, None) == 0
        assert link.sent == [(1, b"to one"), (None, b"to all"), (0, b"")]
        assert mail(1, b"x") == -errno.EAGAIN
        assert mail(2, b"x") == mail(-2, b"x") == -errno.ESRCH
        assert mail(1, b"x" * 65537) == -errno.EMSGSIZE
        assert mail(1, None, 3) == -errno.EINVAL
    finally:
        post.use(None)
    place.modules.unload()


@in_house
async def test_log(house: House, probe: Path, lines: Lines) -> None:
    place = loaded(house, probe)
    log = place.program.log
    assert log("info", "grüezi") == log("warning", "mind") == 0
    assert log(None, "x") == log("info", None) == log("loud", "x") == -errno.EINVAL
    assert lines == [("info", "grüezi"), ("warning", "mind")]
    place.modules.unload()


@in_house
async def test_misuse(house: House, probe: Path, lines: Lines) -> None:
    place = loaded(house, probe)
    program = place.program
    assert program.misuse() == [-errno.EPERM] * 3 + [-errno.EINVAL] * 7
    place.modules.unload()
    assert program.log("info", "too late") == program.add_fd(0, READ, print) == program.write(1, b"x") == -errno.EINVAL
    del place.modules  # the NativeModule is gone, its code is not
    gc.collect()
    assert program.log("info", "much too late") == -errno.EINVAL
    assert lines == []


@in_house
async def test_an_engine_that_is_closed(house: House, probe: Path) -> None:
    place = loaded(house, probe)
    sock, _ = house.pair()
    house.loop.remove_reader(house.engine.fileno())
    house.engine.close()
    assert place.program.write(sock.fd, b"x") == place.program.close(sock.fd) == -errno.EBADF
    place.modules.unload()


# ---- reloading ----


@in_house
async def test_a_changed_file_is_loaded_anew(house: House, tmp_path: Path) -> None:
    path = build(PROBE, tmp_path / "m.so", '-DWORD="one"')
    place = loaded(house, path)
    before = place.program
    build(PROBE, path, '-DWORD="two"')
    after = place.reload()
    assert before.calls == [("load", "one", 0), ("unload", "one", 1)]
    assert after.calls == [("load", "two", 1)] and after.facts()["reload"] == 1
    assert before.log("info", "x") == -errno.EINVAL, "the old one's functions are there, but refused"
    place.modules.unload()
    assert after.calls[1:] == [("unload", "two", 0)]


@in_house
async def test_a_file_that_is_overwritten_in_place(house: House, tmp_path: Path) -> None:
    """As `cp` does: what runs must not change under its feet."""
    path = build(PROBE, tmp_path / "m.so", '-DWORD="one"')
    place = loaded(house, path)
    content = build(PROBE, tmp_path / "other.so", '-DWORD="two"').read_bytes()
    path.write_bytes(b"")
    assert place.program.facts()["reload"] == 0
    path.write_bytes(content)
    assert place.reload().calls == [("load", "two", 1)]
    place.modules.unload()


@in_house
async def test_an_unchanged_file_stays_open(house: House, tmp_path: Path) -> None:
    counting = BARE.replace("{ return !ctx", "{ static int calls; if (calls++) return 7; return !ctx", 1)
    place = loaded(house, build(counting, tmp_path / "m.so"))
    with pytest.raises(LoadError, match="m.so: on_load failed: it returned 7"):
        place.reload()
    place.modules.unload()


@in_house
async def test_what_says_that_it_is_unused_is_unmapped(house: House, tmp_path: Path) -> None:
    def mapped() -> int:
        return Path("/proc/self/maps").read_text().count("/unmapped-")

    path = build(BARE, tmp_path / "unmapped.so")
    before = mapped()
    place = loaded(house, path)
    once = mapped()
    assert once > before
    for number in range(5):
        build(BARE.replace("!ctx", f"{number} > 9 || !ctx"), path)
        place.reload()
    assert mapped() == once
    build(PROBE, path, "-DUNLOADS=1")
    place.reload()
    build(BARE, path)
    place.reload()
    assert mapped() > once, "of the probe, which said it is used, the code stays"
    place.modules.unload()
    assert not list(Path(os.environ.get("TMPDIR", "/tmp")).glob("unmapped-*")), "no copy is left"


FAILURES = [
    (("-DLOADS=5",), "on_load failed: it returned 5"),
    (("-DRAISES",), "on_load failed: ValueError: no luck"),
    (("-Don_load=other",), "it has no on_load: it must define that function"),
]


@pytest.mark.parametrize(("flags", "message"), FAILURES)
@in_house
async def test_a_reload_that_fails_changes_nothing(
    house: House, flags: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    first = build(PROBE, tmp_path / "first.so", '-DWORD="first"')
    second = build(PROBE, tmp_path / "second.so", '-DWORD="second"')
    place = loaded(house, first, second)
    program = place.program
    build(PROBE, first, '-DWORD="new"')
    build(PROBE, second, *flags)
    with pytest.raises(LoadError) as raised:
        place.reload()
    assert str(raised.value).startswith(f"native module {second}: {message}")
    assert (raised.value.traceback is not None) == ("-DRAISES" in flags)
    if "other" in flags[0]:
        assert program.calls == [("load", "first", 0), ("load", "second", 0)]
    else:
        back = [("unload", "second", 1), ("unload", "first", 1), ("load", "first", 1), ("load", "second", 1)]
        assert program.calls[2:] == back
    assert program.facts()["workerid"] == 0
    build(PROBE, second, '-DWORD="mended"')
    assert place.reload().calls == [("load", "new", 1), ("load", "mended", 1)]
    place.modules.unload()


@in_house
async def test_a_file_that_is_gone_or_half_written(house: House, tmp_path: Path) -> None:
    path = build(PROBE, tmp_path / "m.so")
    place = loaded(house, path)
    content = path.read_bytes()
    path.unlink()
    with pytest.raises(LoadError, match="it cannot be read: No such file or directory"):
        place.reload()
    for size in (0, 3, 63, 64, 4096, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(LoadError, match="m.so: "):
            place.reload()
    path.write_bytes(content)
    assert place.reload().calls == [("load", "probe", 1)]
    place.modules.unload()


@in_house
async def test_a_reload_from_within_a_callback_is_refused(house: House, probe: Path) -> None:
    place = loaded(house, probe)
    reader, writer = os.pipe()
    errors: list[str] = []
    places = [place]  # the probe never gives the callback up, so it shall hold nothing

    def change(fd: int, event: int) -> None:
        os.read(fd, 1)
        with pytest.raises(LoadError) as raised:
            places[0].reload()
        errors.append(str(raised.value))

    assert place.program.add_fd(reader, READ, change) == 0
    os.write(writer, b"x")
    await until(lambda: errors)
    places.clear()
    assert "from within a call into it" in errors[0]
    assert place.program.facts()["reload"] == 0
    place.modules.unload()
    os.close(reader)
    os.close(writer)


@in_house
async def test_an_unload_that_raises(house: House, tmp_path: Path, lines: Lines) -> None:
    place = loaded(house, build(PROBE, tmp_path / "m.so", "-DRAISES_LATE"))
    assert place.reload().calls == [("load", "probe", 1)]
    place.modules.unload()
    message = f"native module {tmp_path / 'm.so'}: on_unload failed: ValueError: no luck at the end"
    assert lines == [("error", message)] * 2


@in_house
async def test_many_reloads_hold_nothing(house: House, tmp_path: Path) -> None:
    path = build(BARE, tmp_path / "m.so")
    texts = [path.read_bytes(), build(BARE, tmp_path / "n.so", "-O2").read_bytes()]
    place = loaded(house, path)

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    for number in range(1000):
        if number == 100:
            before, objects = resident(), len(gc.get_objects())
        path.write_bytes(texts[number % 2])
        place.reload()
    gc.collect()
    assert len(gc.get_objects()) - objects < 50
    if "EIGHTIES_SANITIZE" not in os.environ:
        assert resident() - before < 2 << 20
    place.modules.unload()


# ---- what cannot be loaded ----


@in_house
async def test_one_of_several_fails(house: House, probe: Path, tmp_path: Path) -> None:
    """Those before it are unloaded."""
    place = Place(house.engine, probe, build(PROBE, tmp_path / "bad.so", "-DLOADS=-3", '-DWORD="bad"'))
    with pytest.raises(LoadError, match="bad.so: on_load failed: it returned -3"):
        place.load()
    assert place.program.calls == [("load", "probe", 0), ("load", "bad", 0), ("unload", "probe", 0)]


RAISES_AT_CLOSE = """
    #include <Python.h>
    static PyObject *program;
    __attribute__((destructor)) static void end(void) {
      PyObject *result = PyObject_CallMethod(program, "end", NULL);
      Py_XDECREF(result);
    }
""" + BARE.replace("{ return", "{ program = ctx; return", 1)


@in_house
async def test_a_destructor_that_calls_python(house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It finds the module closed, and what it raises does not make the reload fail."""
    path = build(RAISES_AT_CLOSE, tmp_path / "m.so")
    place = loaded(house, path)
    unraisable: list[str] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda told: unraisable.append(str(told.exc_value)))
    natives = [found for found in gc.get_objects() if isinstance(found, NativeModule) and found.loaded]
    place.program.end = lambda: natives[0].close()
    build(BARE, path)
    first = place.program
    place.reload()
    assert unraisable == ["the module is closed"]
    vars(first).clear()
    natives.clear()
    place.modules.unload()


def test_methods_out_of_order(probe: Path) -> None:
    import asyncio

    with asyncio.Runner() as runner:
        engine = make_engine(runner.get_loop(), log=print)
        copy = modules.copy_of(str(probe), probe.read_bytes())
        said: Any = lambda first, second: 0  # noqa: E731
        make = functools.partial(NativeModule, engine, name="m", node="n", workers=1, port=0, mail=said, log=said)
        native = make(copy)
        os.unlink(copy)
        program: Any = Place(engine).program
        with pytest.raises(RuntimeError, match="not loaded"):
            native.unload(False)
        assert native.load(program, False) == 0 and native.loaded
        for action in (native.close, lambda: native.load(program, False)):
            with pytest.raises(RuntimeError, match="is loaded"):
                action()
        native.ready(5, 1)  # nothing is watched
        assert native.unload(True) == 1 and not native.loaded and not native.watched
        program.__dict__.clear()
        native.close()
        for action in (native.close, lambda: native.load(program, False), lambda: native.unload(False)):
            with pytest.raises(RuntimeError, match="is closed"):
                action()
        with pytest.raises(ImportError):
            make("/nowhere.so")
        with pytest.raises(ValueError, match="null"):
            make("a\0b")
        engine.close()
