"""`--reload`: a saved file of the program or of its site is noticed, and nothing else is."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import Serve
from reloading import diary, write_program
from server import Server, wait_until
from site_folder import write_site

from eighties import files
from eighties.serve import logs, watch
from eighties.serve.frames import PROGRAM
from eighties.serve.fresh import Own, is_foreign
from eighties.serve.watch import is_temporary


def loads(server: Server) -> int:
    """How often the program has been executed."""
    return int(server.get("/loads").text)


def becomes(server: Server, path: str, text: str) -> None:
    """Wait until every worker answers so."""
    wait_until(lambda: {server.get(path).text for _ in range(4)} == {text}, f"{path} answers {text}")


def test_a_saved_program_is_reloaded_in_every_worker(serve: Serve, tmp_path: Path, workers: int) -> None:
    write_program(tmp_path, 1)
    server = serve("program.py", "--reload", "-c", str(workers))
    wait_until(lambda: len(diary(tmp_path)) >= workers, "every worker has loaded it")
    becomes(server, "/", "1 helper")
    (tmp_path / "helper.py").write_text("NAME = 'two'\n")
    becomes(server, "/", "1 two")
    write_program(tmp_path, 2, "broken", "1 / 0")
    server.wait_for("not reloaded")
    becomes(server, "/", "1 two")
    write_program(tmp_path, 3, "mended")
    becomes(server, "/", "3 mended")
    (tmp_path / "helper.py").unlink()
    server.wait_for("No module named 'helper'")
    (tmp_path / "helper").mkdir()
    (tmp_path / "helper" / "__init__.py").write_text("NAME = 'package'\n")
    becomes(server, "/", "3 package")
    (tmp_path / "helper").rename(tmp_path / "other")
    (tmp_path / "program.py").write_text((tmp_path / "program.py").read_text().replace("helper", "other"))
    becomes(server, "/", "3 package")
    (tmp_path / "other" / "__init__.py").write_text("NAME = 'moved'\n")
    becomes(server, "/", "3 moved")


def test_a_burst_is_one_reload_and_strangers_are_none(serve: Serve, tmp_path: Path) -> None:
    write_program(tmp_path, 1)
    server = serve("program.py", "--reload")
    for name in (".git", "__pycache__", ".venv", "venv", "node_modules", "tests", "env"):
        (tmp_path / name).mkdir(exist_ok=True)
    (tmp_path / "env" / "pyvenv.cfg").touch()
    time.sleep(0.7)  # new folders are noticed
    before = loads(server)
    for name in (".git", "__pycache__", ".venv", "venv", "node_modules", "tests", "env"):
        (tmp_path / name / "helper.py").write_text("1 / 0")
    for name in (".program.py.swp", "4913", "program.py~", "#program.py#", "data.db", "server.log", "unused.py"):
        (tmp_path / name).write_text("x")
    time.sleep(0.5)
    assert loads(server) == before
    made: list[int] = []
    while 1 not in made and len(made) < 5:  # a slow machine may tear a burst apart
        before = loads(server)
        for number in range(5):
            (tmp_path / "helper.py").write_text(f"NAME = '{len(made)} {number}'\n")
            (tmp_path / "program.py").write_text((tmp_path / "program.py").read_text())
            time.sleep(0.002)
        becomes(server, "/", f"1 {len(made)} 4")
        time.sleep(0.3)
        made.append(loads(server) - before)
    assert 1 in made
    saved = tmp_path / "helper.py.new.tmp"  # as editors do that never leave half a file
    saved.write_text("NAME = 'renamed'\n")
    saved.rename(tmp_path / "helper.py")
    becomes(server, "/", "1 renamed")


def test_templates_are_part_of_the_program(serve: Serve, tmp_path: Path) -> None:
    write_program(tmp_path, 1, more="TEXT = open('templates/a.txt').read()\napp.get('/text')(lambda request: TEXT)\n")
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "a.txt").write_text("one")
    server = serve("program.py", "--reload")
    (tmp_path / "templates" / "a.txt").write_text("two")
    becomes(server, "/text", "two")


def test_a_sites_program_is_reloaded_and_its_pages_are_not_compiled_again(serve: Serve, tmp_path: Path) -> None:
    files = {"a.html": "<?py | #[[NAME]] ?>", "b.html": "<?pya | #[[NAME]] ?>", "c.html": "<?py = ?>"}
    write_site(tmp_path, files)
    (tmp_path / "main.py").write_text("NAME = 'one'\ndef on_before_http(method, endpoint, session): pass\n")
    server = serve(".", "--reload")
    assert [server.get(path).text for path in ("/a", "/b")] == ["one", "one"]
    os.utime(tmp_path / "public_html" / "a.html")
    (tmp_path / "main.py").write_text("NAME = 'two'\nfrom eighties import App\napp = App()\n")
    for path in ("/a", "/b"):
        becomes(server, path, "two")
    (tmp_path / "main.py").write_text("NAME = 'three'\nNAME =\n")
    line = server.wait_for("not reloaded")
    assert "main.py:2: SyntaxError" in line["message"]
    becomes(server, "/a", "two")
    (tmp_path / "public_html" / "a.html").write_text("<?py | page #[[NAME]] ?>")
    becomes(server, "/a", "page two")
    (tmp_path / "main.py").unlink()
    becomes(server, "/static.none", server.get("/none").text)
    wait_until(lambda: server.get("/a").status == 500, "no NAME any more")
    (tmp_path / "main.py").write_text("NAME = 'new'\n")
    becomes(server, "/a", "page new")
    assert len([line for line in server.log if "a page cannot be served: c.html" in line["message"]]) == 1


def in_place(path: Path, text: str) -> None:
    """As VS Code and nano do: emptied, written."""
    with path.open("w") as file:
        file.write(text)


def as_vim(path: Path, text: str) -> None:
    (path.parent / ".helper.py.swp").write_text("b0VIM")
    (path.parent / "4913").touch()
    (path.parent / "4913").unlink()
    path.rename(f"{path}~")
    path.write_text(text)
    Path(f"{path}~").unlink()


def as_emacs(path: Path, text: str) -> None:
    (path.parent / f"#{path.name}#").write_text(text)
    (path.parent / f".#{path.name}").symlink_to("somebody@somewhere.1")
    path.rename(f"{path}~")
    path.write_text(text)
    (path.parent / f"#{path.name}#").unlink()
    (path.parent / f".#{path.name}").unlink()


def as_jetbrains(path: Path, text: str) -> None:
    Path(f"{path}___jb_tmp___").write_text(text)
    path.rename(f"{path}___jb_old___")
    Path(f"{path}___jb_tmp___").rename(path)
    Path(f"{path}___jb_old___").unlink()


def test_however_editors_save(serve: Serve, tmp_path: Path) -> None:
    write_program(tmp_path, 1)
    server = serve("program.py", "--reload")
    for number, save in enumerate((in_place, as_vim, as_emacs, as_jetbrains), 2):
        save(tmp_path / "helper.py", f"NAME = {number}\n")
        becomes(server, "/", f"1 {number}")
    assert not [line for line in server.log if line["level"] == "error"]


def test_a_save_while_a_reload_is_under_way(serve: Serve, tmp_path: Path) -> None:
    more = "\n@app.on_start\nasync def wait(reload):\n    if reload: write('loading'); await asyncio.sleep(0.3)\n"
    write_program(tmp_path, 1, more=more)
    server = serve("program.py", "--reload")
    (tmp_path / "helper.py").write_text("NAME = 1\n")
    wait_until(lambda: "loading" in diary(tmp_path), "a reload")
    (tmp_path / "helper.py").write_text("NAME = 2\n")
    becomes(server, "/", "1 2")


def test_links_are_followed_to_what_is_loaded(serve: Serve, tmp_path: Path) -> None:
    elsewhere, folder = tmp_path / "elsewhere", tmp_path / "program"
    for path in (elsewhere, elsewhere / "package", folder):
        path.mkdir()
    (elsewhere / "package" / "__init__.py").write_text("NAME = 'a'\n")
    (elsewhere / "one.py").write_text("NAME = 'a'\n")
    (folder / "package").symlink_to(elsewhere / "package")
    (folder / "one.py").symlink_to(elsewhere / "one.py")
    (folder / "round").symlink_to(folder)
    (folder / "program.py").write_text(
        "from eighties import App\nimport one, package\napp = App()\n"
        "app.get('/')(lambda request: one.NAME + package.NAME)\n"
    )
    server = serve(str(folder / "program.py"), "--reload")
    assert server.get("/").text == "aa"
    (elsewhere / "one.py").write_text("NAME = 'b'\n")
    becomes(server, "/", "ba")
    (elsewhere / "package" / "__init__.py").write_text("NAME = 'b'\n")
    becomes(server, "/", "bb")
    (elsewhere / "three.py").write_text("NAME = 'c'\n")
    (folder / "other.py").symlink_to(elsewhere / "three.py")
    (folder / "other.py").rename(folder / "one.py")
    becomes(server, "/", "cb")


def test_what_is_saved_while_nobody_watches(serve: Serve, tmp_path: Path) -> None:
    """The first worker is stopped, files are saved, and it dies: all of them end with the code that is there."""
    write_program(tmp_path, 1)
    server = serve("program.py", "--reload", "-c", "3")
    wait_until(lambda: len(diary(tmp_path)) >= 3, "every worker has loaded it")
    first = server.workers[0]
    os.kill(first, signal.SIGSTOP)
    write_program(tmp_path, 2, "two")
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: len(server.workers) == 3 and first not in server.workers, "another in its place")
    wait_until(lambda: {server.get("/").text for _ in range(12)} == {"2 two"}, "the new code in all of them")
    (tmp_path / "helper.py").write_text("NAME = 'three'\n")
    wait_until(lambda: {server.get("/").text for _ in range(12)} == {"2 three"}, "the newest code in all of them")


# ---- in the test's own process ----


class Folder:
    """A program that is watched: what is asked for, and what is logged."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.asked: list[bytes] = []
        self.lines: list[str] = []
        self.own = Own(str(path), str(path / "program.py"))

    @contextmanager
    def watched(self) -> Iterator[watch.Watch]:
        watching = watch.Watch(
            self.own, lambda: None, lambda: False, self.asked.append, watch.look(self.own.folder, None)
        )
        try:
            yield watching
        finally:
            watching.close()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    (tmp_path / "program.py").write_text("1\n")
    made = Folder(tmp_path)
    monkeypatch.setattr(logs, "log", lambda level, message, **_: made.lines.append(message))
    return made


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.mark.pure
def test_a_system_that_cannot_watch_is_looked_at(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[int] = []

    class Refused(files.Watch):
        def __init__(self, targets: list[str], *_: object) -> None:
            tries.append(len(targets))

        closed = True

        def close(self) -> None:
            pass

    monkeypatch.setattr(files, "Watch", Refused)
    monkeypatch.setattr(watch, "LOOK", 0.01)

    async def main() -> None:
        with folder.watched():
            for count in range(1, 10):
                (folder.path / "program.py").write_text("1\n" * (count + 1))
                await until(lambda count=count: len(folder.asked) == count)  # type: ignore[misc]

    asyncio.run(main())
    assert set(folder.asked) == {PROGRAM}
    assert len(tries) < 8


@pytest.mark.pure
def test_a_file_that_is_being_written_is_waited_for(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "TICK", 0.2)

    async def main() -> None:
        with folder.watched() as watching:
            await asyncio.sleep(0)
            (folder.path / "program.py").write_text("")
            looking = asyncio.create_task(watching._look())
            await asyncio.sleep(0.1)
            assert folder.asked == []
            (folder.path / "program.py").write_text("22\n")
            await looking

    asyncio.run(main())
    assert folder.asked == [PROGRAM]


@pytest.mark.pure
def test_a_tree_of_any_size(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only so much is looked at, and what is nearest; of the rest, the modules that are loaded."""
    for number in range(30):
        (folder.path / "data" / str(number) / "deep").mkdir(parents=True)
        (folder.path / "data" / str(number) / "deep" / "module.py").touch()
    (folder.path / "src").mkdir()
    (folder.path / "src" / "near.py").touch()
    monkeypatch.setattr(watch, "MOST_FOLDERS", 10)
    loaded = str(folder.path / "data" / "7" / "deep" / "module.py")
    seen = watch.look(folder.own.folder, None, (), [loaded])
    assert seen.cut
    assert set(seen.sources) == {str(folder.path / "program.py"), str(folder.path / "src" / "near.py")}
    assert set(seen.distant) == {loaded}
    assert os.path.dirname(loaded) in seen.folders and len(seen.folders) < 20

    async def main() -> None:
        with folder.watched() as watching:
            await watching._look()
            await watching._look()

    asyncio.run(main())
    assert len([line for line in folder.lines if "more than 10 folders" in line]) == 1
    monkeypatch.setattr(watch, "MOST_FILES", 3)
    monkeypatch.setattr(watch, "MOST_FOLDERS", 1000)
    assert watch.look(folder.own.folder, None).cut


@pytest.mark.pure
def test_what_a_program_writes_beside_its_code_costs_no_look(folder: Folder) -> None:
    (folder.path / "templates").mkdir()

    def event(name: str, dir: bool = False) -> files.FileEvent:
        return files.FileEvent(str(folder.path / name), False, True, False, dir, 0.0)

    async def main() -> list[str]:
        with folder.watched() as watching:
            names = ("data.db", "data.db-wal", "server.log", "x.pyc", "program.py~", ".git", "__pycache__")
            named = ("program.py", "new.py", "templates/a.html", "templates")
            assert all(watching._may_matter(event(name)) for name in named)
            assert watching._may_matter(event("folder", dir=True))
            return [name for name in names if watching._may_matter(event(name))]

    assert asyncio.run(main()) == []


@pytest.mark.pure
def test_what_is_a_programs_own(tmp_path: Path) -> None:
    own = Own(str(tmp_path))
    assert own.has(str(tmp_path / "a.py"))
    assert own.has(str(tmp_path / "b" / "c.py"))
    for name in ("venv", ".venv/lib", "lib/site-packages", "__pycache__", ".git"):
        assert not own.has(str(tmp_path / name / "a.py"))
    assert not own.has(str(tmp_path) + "2/a.py")
    assert not own.has(os.__file__)
    assert not Own("/").has(os.__file__)
    installed = os.path.join(os.path.dirname(pytest.__file__), "")
    assert Own(installed).has(pytest.__file__)
    assert is_foreign(".idea")
    assert not any(is_temporary(name) for name in ("a.py", "4913.html", "#1.html", "temporary.py"))
    temporary = ("a.py~", ".a.swp", "4913", "#a.py#", ".#a.py", "a.py___jb_tmp___", "a.py.tmp")
    assert all(is_temporary(name) for name in temporary)


def test_a_site_that_is_away_for_a_while(serve: Serve, tmp_path: Path) -> None:
    root = write_site(tmp_path, {"a.html": "<?py | one ?>"}) / "public_html"
    server = serve(".", "--reload")
    root.rename(tmp_path / "away")
    wait_until(lambda: server.get("/a").status == 404, "it is gone")
    begun = cpu_time(server.workers[0])
    time.sleep(1)
    assert cpu_time(server.workers[0]) - begun < 0.3
    (tmp_path / "away").rename(root)
    (root / "a.html").write_text("<?py | two ?>")
    becomes(server, "/a", "two")


def cpu_time(pid: int) -> float:
    """Seconds that a process has computed."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
