"""`--reload`: a saved file of the program or of its site is noticed, and nothing else is."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from conftest import Serve
from server import Server, wait_until
from site_folder import write_site
from test_reload import diary, write_program

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
    for number in range(5):
        (tmp_path / "helper.py").write_text(f"NAME = {number}\n")
        (tmp_path / "program.py").write_text((tmp_path / "program.py").read_text())
        time.sleep(0.002)
    becomes(server, "/", "1 4")
    time.sleep(0.3)
    assert loads(server) == before + 1
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


def test_from_save_to_the_new_answer(serve: Serve, tmp_path: Path) -> None:
    write_program(tmp_path, 1)
    server = serve("program.py", "--reload")
    times = []
    for version in range(2, 12):
        time.sleep(0.15)
        saved = time.monotonic()
        (tmp_path / "helper.py").write_text(f"NAME = {version}\n")
        becomes(server, "/", f"1 {version}")
        times.append(time.monotonic() - saved)
    assert sorted(times)[4] < 0.1, times


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
    assert [is_temporary(name) for name in ("a.py", "a.py~", ".a.swp", "4913")] == [False, True, True, True]


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
