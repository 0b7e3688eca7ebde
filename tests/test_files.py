"""files: watching, and the small calls on folders and files."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from conftest import Serve
from server import PATIENCE, wait_until

from eighties import files
from eighties.files import FileEvent, watch


class Seen:
    """What an `on_change` was told, and waiting for it."""

    def __init__(self) -> None:
        self.events: list[FileEvent] = []
        self.more = asyncio.Event()

    def __call__(self, events: list[FileEvent]) -> None:
        self.events += events
        self.more.set()

    async def until(self, condition: Callable[[FileEvent], bool]) -> FileEvent:
        """The first event of that kind."""
        async with asyncio.timeout(PATIENCE):
            while True:
                for event in self.events:
                    if condition(event):
                        return event
                self.more.clear()
                await self.more.wait()


def run(test: Callable[[], Awaitable[None]]) -> None:
    """Run a test in a loop; a task that is left over fails it."""

    async def main() -> None:
        await test()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert not files._watches

    asyncio.run(main())


def test_watching_writes_no_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A log in a watched folder would feed itself."""

    async def test() -> None:
        caplog.set_level(logging.INFO)
        seen = Seen()
        watching = watch([tmp_path], seen)
        await asyncio.sleep(0)  # on Python 3.11 it begins now
        (tmp_path / "one.txt").write_text("1")
        await seen.until(lambda event: event.create)
        watching.close()
        await watching
        assert caplog.records == []

    run(test)


def test_watch_tells_what_happens_to_files(tmp_path: Path) -> None:
    async def test() -> None:
        seen = Seen()
        watching = watch([tmp_path], seen)
        await asyncio.sleep(0)  # on Python 3.11 it begins now
        before = asyncio.get_running_loop().time()
        file = tmp_path / "one.txt"
        file.write_text("1")
        made = await seen.until(lambda event: event.create and event.name == str(file))
        assert not made.delete and not made.dir
        assert before <= made.clock <= asyncio.get_running_loop().time()
        file.write_text("2")
        await seen.until(lambda event: event.modify and event.name == str(file))
        file.unlink()
        gone = await seen.until(lambda event: event.delete and event.name == str(file))
        assert not gone.dir
        assert not watching.closed
        watching.close()
        assert watching.closed
        watching.close()
        await watching
        await watching

    run(test)


def test_watch_sees_folders_below_unless_told_otherwise(tmp_path: Path) -> None:
    async def test() -> None:
        deep = tmp_path / "a" / "b"
        deep.mkdir(parents=True)
        everything, flat = Seen(), Seen()
        watches = [watch(tmp_path, everything), watch(str(tmp_path), flat, recursive=False)]
        await asyncio.sleep(0)  # on Python 3.11 it begins now
        (deep / "file").write_text("x")
        (deep / "folder").mkdir()
        await everything.until(lambda event: event.create and event.name == str(deep / "file"))
        folder = await everything.until(lambda event: event.name == str(deep / "folder"))
        assert folder.dir
        (tmp_path / "top").write_text("x")
        await flat.until(lambda event: event.name == str(tmp_path / "top"))
        assert not [event for event in flat.events if event.name.startswith(str(deep))]
        for watching in watches:
            watching.close()
            await watching

    run(test)


def test_watch_of_one_file_and_an_async_on_change(tmp_path: Path) -> None:
    async def test() -> None:
        file, other = tmp_path / "file", tmp_path / "other"
        file.write_text("1")
        seen = Seen()

        async def on_change(events: list[FileEvent]) -> None:
            await asyncio.sleep(0)
            seen(events)

        watching = watch(file, on_change)
        await asyncio.sleep(0)  # on Python 3.11 it begins now
        other.write_text("x")
        file.write_text("2")
        await seen.until(lambda event: event.name == str(file))
        assert {event.name for event in seen.events} == {str(file)}
        watching.close()
        await watching

    run(test)


def test_watch_goes_on_after_an_exception(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        seen = Seen()

        def on_change(events: list[FileEvent]) -> None:
            seen(events)
            raise ZeroDivisionError("of on_change")

        watching = watch(tmp_path, on_change)
        await asyncio.sleep(0)  # on Python 3.11 it begins now
        (tmp_path / "one").write_text("x")
        await seen.until(lambda event: event.name == str(tmp_path / "one"))
        (tmp_path / "two").write_text("x")
        await seen.until(lambda event: event.name == str(tmp_path / "two"))
        watching.close()
        await watching

    with caplog.at_level(logging.ERROR):
        run(test)
    assert caplog.records[0].name == "eighties"
    assert caplog.records[0].exc_info is not None
    assert isinstance(caplog.records[0].exc_info[1], ZeroDivisionError)


def test_watch_may_be_closed_from_on_change(tmp_path: Path) -> None:
    async def test() -> None:
        calls = 0

        def on_change(events: list[FileEvent]) -> None:
            nonlocal calls
            calls += 1
            watching.close()
            (tmp_path / "two").write_text("x")

        watching = watch(tmp_path, on_change)
        await asyncio.sleep(0)  # on Python 3.11 it begins now
        (tmp_path / "one").write_text("x")
        await watching
        assert calls == 1

    run(test)


def test_watch_ends_with_its_loop(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        watch(tmp_path, lambda events: None)
        await asyncio.sleep(0)

    asyncio.run(main())
    assert not files._watches
    assert not caplog.records


def test_watch_of_what_does_not_exist(tmp_path: Path) -> None:
    async def test() -> None:
        with pytest.raises(FileNotFoundError, match="none"):
            watch([tmp_path, tmp_path / "none"], lambda events: None)

    run(test)
    with pytest.raises(RuntimeError, match="loop"):
        watch(tmp_path, lambda events: None)


WATCHING = """
    from eighties import App
    from eighties.files import watch
    app = App()
    seen = []

    @app.on_start
    def start():
        watch("folder", seen.extend)

    @app.get("/seen")
    def names(request):
        return [event.name for event in seen]
"""


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_watch_in_a_server(serve: Serve, tmp_path: Path, loop: str) -> None:
    """It works on both loops, and the server ends at once and without a word about it."""
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    folder = tmp_path / "folder"
    folder.mkdir()
    server = serve(WATCHING, "--loop", loop)
    assert server.get("/seen").json() == []  # on Python 3.11 it begins in the loop's first turn
    (folder / "one").write_text("x")
    wait_until(lambda: any(name.endswith("folder/one") for name in server.get("/seen").json()), "an event")
    assert server.stop() == 0
    assert not [line for line in server.log if line["level"] in ("warning", "error")], server.stderr


# ---- listdir, readfile, mkdir ----


def test_listdir_is_sorted_and_marks_folders(tmp_path: Path) -> None:
    (tmp_path / "b").write_text("x")
    (tmp_path / "a").mkdir()
    (tmp_path / "c").symlink_to(tmp_path / "a")
    (tmp_path / "é").write_text("x")
    assert files.listdir(tmp_path) == files.listdir(str(tmp_path)) == ["a/", "b", "c/", "é"]
    assert files.listdir(tmp_path / "a") == []
    with pytest.raises(FileNotFoundError):
        files.listdir(tmp_path / "none")
    with pytest.raises(NotADirectoryError):
        files.listdir(tmp_path / "b")


def test_readfile(tmp_path: Path) -> None:
    data = os.urandom(100_000)
    (tmp_path / "file").write_bytes(data)
    assert files.readfile(tmp_path / "file") == data
    with pytest.raises(FileNotFoundError):
        files.readfile(tmp_path / "none")
    with pytest.raises(IsADirectoryError):
        files.readfile(tmp_path)


def test_mkdir(tmp_path: Path) -> None:
    assert files.mkdir(tmp_path / "new", 0o700)
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
    assert files.mkdir(tmp_path / "new")
    (tmp_path / "file").write_text("x")
    assert not files.mkdir(tmp_path / "file")
    with pytest.raises(FileNotFoundError):
        files.mkdir(tmp_path / "none" / "new")
