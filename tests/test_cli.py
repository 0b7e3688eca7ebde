"""The command line: options, where values come from, how a program is found, and what is said when it cannot be."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from eighties.limits import LIMITS
from eighties.serve.settings import EVERY_OPTION, MOST_WORKERS, SettingsError, collect, usable_cores

PATIENCE = 60
APP = "from eighties import App\napp = App()\n"


def command(folder: Path, *arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run `80s` to its end."""
    return subprocess.run(
        # -P: as with the script `80s`, files of the current folder do not hide the standard library's.
        [sys.executable, "-P", "-m", "eighties", *arguments],
        cwd=folder,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def one_message(result: subprocess.CompletedProcess[str]) -> str:
    """The only line of the log, which must have no traceback."""
    lines = [json.loads(line) for line in result.stderr.splitlines()]
    assert len(lines) == 1, result.stderr
    assert "traceback" not in lines[0], result.stderr
    return str(lines[0]["message"])


def write(folder: Path, name: str, text: str) -> None:
    """A program."""
    folder.joinpath(name).write_text(textwrap.dedent(text))


def cfg(folder: Path, *arguments: str, env: dict[str, str] | None = None) -> dict[str, tuple[str, str]]:
    """What `--cfg` prints: value and source by name."""
    result = command(folder, *arguments, "--cfg", env=env)
    assert result.returncode == 0, result.stderr
    rows = [line.split(maxsplit=2) for line in result.stdout.splitlines()]
    return {name: (value, source) for name, value, source in rows}


# ---- help and version ----


def test_help_names_every_option_and_limit(tmp_path: Path) -> None:
    result = command(tmp_path, "--help")
    assert (result.returncode, result.stderr) == (0, "")
    for option in EVERY_OPTION:
        assert all(flag in result.stdout for flag in option.flags)
    for limit in LIMITS:
        assert limit.reason in result.stdout
    assert max(map(len, result.stdout.splitlines())) < 160


def test_version(tmp_path: Path) -> None:
    result = command(tmp_path, "--version")
    assert result.returncode == 0
    assert result.stdout.startswith("80s ")


def test_the_script_is_the_same_command(tmp_path: Path) -> None:
    script = Path(sys.executable).with_name("80s")
    if not script.exists():
        pytest.skip("eighties is not installed in this environment")
    result = subprocess.run([script, "--version"], capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert result.stdout == command(tmp_path, "--version").stdout


# ---- values ----


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-p", "x"], "-p must be a whole number from 0 to 65535, not 'x'"),
        (["-p", "65536"], "65536"),
        (["-p", "-1"], "-p must be"),
        (["-p", ""], "-p must be"),
        (["--port=1_0"], "--port must be"),
        (["-c", "many"], "-c must be auto, or a whole number"),
        (["-c", str(MOST_WORKERS + 1)], "-c must be"),
        (["--grace", "soon"], "--grace must be seconds"),
        (["--grace", "1e3"], "--grace must be seconds"),
        (["--loop", "twisted"], "--loop must be asyncio, uvloop or auto"),
        (["--max-body", "1MB"], "--max-body must be a whole number"),
        (["--uds", ""], "--uds must be"),
        (["--dev=1"], "--dev takes no value"),
        (["--nonsense"], "there is no option --nonsense"),
        (["-x"], "there is no option -x"),
        (["-h"], "-h needs a value: it is the address"),
        (["-p"], "-p needs a value"),
        (["-6", "-h", "127.0.0.1"], "127.0.0.1 is an IPv4 address"),
        (["a.py", "b.py"], "one program at a time"),
    ],
)
def test_a_bad_value_is_one_clear_message(arguments: list[str], words: str, tmp_path: Path) -> None:
    result = command(tmp_path, *arguments)
    assert result.returncode == 2
    assert words in one_message(result)


@pytest.mark.parametrize("variable", ["EIGHTIES_PORT", "EIGHTIES_MAX_BODY", "EIGHTIES_DEV"])
def test_a_bad_variable_is_named(variable: str, tmp_path: Path) -> None:
    result = command(tmp_path, env={variable: "maybe"})
    assert result.returncode == 2
    assert variable in one_message(result)


def test_how_values_are_written() -> None:
    for arguments in (["-p", "80"], ["-p80"], ["--port", "80"], ["--port=80"]):
        assert collect(arguments, {}).port == 80
    settings = collect(["--dev", "x.py", "-c", "3", "--grace", "0.5"], {})
    assert (settings.entry, settings.dev, settings.workers, settings.grace) == ("x.py", True, 3, 0.5)
    assert collect(["-p", "1", "--", "-odd.py"], {}).entry == "-odd.py"


@pytest.mark.parametrize("text", ["0", "auto"])
def test_workers_for_every_core(text: str) -> None:
    assert collect(["-c", text], {}).workers == usable_cores() >= 1


def test_addresses() -> None:
    assert collect([], {}).address == "127.0.0.1"
    assert collect(["-6"], {}).address == "::1"
    assert collect(["-h", "::"], {}).ipv6
    assert collect(["-6", "-h", "localhost"], {}).address == "localhost"


def test_each_option_has_a_variable() -> None:
    samples = {"loop": "asyncio", "workers": "2", "grace": "3", "fd": "3"}
    for option in EVERY_OPTION:
        settings = collect([], {option.variable: samples.get(option.name, "1")})
        assert settings.source(option.name) == "environment"
        flag = option.flags[-1]
        typed = [flag] if option.is_flag else [flag, samples.get(option.name, "1")]
        assert collect(typed, {}).to_dict()[option.name] == settings.to_dict()[option.name]


def test_a_flag_can_be_switched_off_by_its_variable() -> None:
    assert not collect([], {"EIGHTIES_DEV": "0"}).dev
    with pytest.raises(SettingsError):
        collect([], {"EIGHTIES_DEV": "2"})


def test_precedence_is_command_line_environment_app_default(tmp_path: Path) -> None:
    write(tmp_path, "app.py", "from eighties import App\napp = App(max_body=1, max_headers=2, min_rate=3)\n")
    env = {"EIGHTIES_MAX_BODY": "10", "EIGHTIES_MAX_HEADERS": "20", "EIGHTIES_PORT": "5000"}
    shown = cfg(tmp_path, "--max-body", "100", env=env)
    assert shown["max_body"] == ("100", "command line")
    assert shown["max_headers"] == ("20", "environment")
    assert shown["min_rate"] == ("3", "App(...)")
    assert shown["keep_alive_timeout"] == ("75", "default")
    assert shown["port"] == ("5000", "environment")
    assert cfg(tmp_path, "-p", "1", env=env)["port"] == ("1", "command line")


def test_the_server_header_has_the_same_precedence(tmp_path: Path) -> None:
    write(tmp_path, "app.py", "from eighties import App\napp = App(server_header='mine')\n")
    assert cfg(tmp_path)["server_header"] == ("mine", "App(...)")
    assert cfg(tmp_path, "--no-server-header")["server_header"] == ("none", "command line")
    assert cfg(tmp_path, env={"EIGHTIES_NO_SERVER_HEADER": "1"})["server_header"] == ("none", "environment")
    write(tmp_path, "app.py", APP)
    assert cfg(tmp_path)["server_header"] == ("80s", "default")


def test_cfg_without_a_program(tmp_path: Path) -> None:
    assert cfg(tmp_path)["entry"][0] == "none"


# ---- finding the program ----


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("missing.py", "there is no file missing.py"),
        ("folder", "folder has no folder public_html"),
        ("notes.txt", "notes.txt is not a Python file"),
        ("what is this", "neither a .py file, nor module:attr, nor a folder"),
        ("module", "neither a .py file, nor module:attr, nor a folder"),
        (":app", "neither a .py file, nor module:attr, nor a folder"),
    ],
)
@pytest.mark.parametrize("action", [[], ["--cli"], ["--cfg"]])
def test_no_such_program(entry: str, words: str, action: list[str], tmp_path: Path) -> None:
    tmp_path.joinpath("folder").mkdir()
    tmp_path.joinpath("notes.txt").touch()
    result = command(tmp_path, entry, *action)
    assert result.returncode == 2
    assert words in one_message(result)


def test_nothing_named_and_nothing_found(tmp_path: Path) -> None:
    result = command(tmp_path)
    assert result.returncode == 2
    assert "no app.py and no public_html and no main.py" in one_message(result)


def test_the_usual_files_are_found_and_it_says_so(tmp_path: Path) -> None:
    write(tmp_path, "main.py", APP)
    assert cfg(tmp_path)["entry"] == ("main.py", "no program was named; main.py was found in the current folder")
    write(tmp_path, "app.py", APP)
    assert cfg(tmp_path)["entry"][0] == "app.py"
    assert cfg(tmp_path, "main.py")["entry"] == ("main.py", "command line")
    assert cfg(tmp_path, env={"EIGHTIES_ENTRY": "main.py"})["entry"] == ("main.py", "environment")


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        ("program.py", "from eighties import App\nother = App()\napp = App(max_body=5)\n"),
        ("program.py", "from eighties import App\nsite = App(max_body=5)\nalias = site\n"),
        ("program:site", "from eighties import App\napp = App()\nsite = App(max_body=5)\n"),
        ("program:Box.site", "from eighties import App\nclass Box:\n    site = App(max_body=5)\n"),
        ("my-app.py", "from eighties import App\napp = App(max_body=5)\n"),
        ("json.py", "import json\nfrom eighties import App\nassert json.dumps\napp = App(max_body=5)\n"),
    ],
)
def test_which_app_is_served(entry: str, text: str, tmp_path: Path) -> None:
    write(tmp_path, entry if entry.endswith(".py") else "program.py", text)
    assert cfg(tmp_path, entry)["max_body"] == ("5", "App(...)")


def test_a_program_imports_its_neighbours_from_anywhere(tmp_path: Path) -> None:
    folder = tmp_path / "there"
    folder.mkdir()
    write(folder, "neighbour.py", "SIZE = 7\n")
    write(folder, "program.py", "import neighbour\nfrom eighties import App\napp = App(max_body=neighbour.SIZE)\n")
    assert cfg(tmp_path, "there/program.py")["max_body"][0] == "7"


# ---- programs that cannot be served ----


@pytest.mark.parametrize(
    ("entry", "text", "words"),
    [
        ("program.py", "x = 1\n", "program.py has no App"),
        ("program.py", "app = 3\n", "its `app` is an int"),
        ("program.py", "from eighties import App\na = App()\nb = App()\n", "several Apps (a, b)"),
        ("program.py", "x = (\n", "program.py:1: SyntaxError"),
        ("program.py", "def f():\nreturn 1\n", "program.py:2: IndentationError"),
        ("program.py", "import sys\nsys.exit(4)\n", "sys.exit(4)"),
        ("missing:app", "", "there is no module missing"),
        ("program:nothing", "x = 1\n", "there is no 'nothing' in program"),
        ("program:x", "x = 1\n", "program:x is not an App but an int"),
    ],
)
@pytest.mark.parametrize("action", [["-p", "0"], ["--cli"]])
def test_a_program_that_is_none(entry: str, text: str, words: str, action: list[str], tmp_path: Path) -> None:
    write(tmp_path, "program.py", text)
    result = command(tmp_path, entry, *action)
    assert result.returncode == 3
    assert words in one_message(result)


@pytest.mark.parametrize("action", [["-p", "0", "-c", "2"], ["--cli"], ["--cfg"]])
def test_an_error_in_the_program_shows_the_users_frames_once(action: list[str], tmp_path: Path) -> None:
    write(tmp_path, "helper.py", "def divide(n):\n    return 1 / n\n")
    write(tmp_path, "program.py", "import helper\nhelper.divide(0)\n")
    result = command(tmp_path, "program.py", *action)
    assert result.returncode == 3
    (line,) = map(json.loads, result.stderr.splitlines())
    assert "program.py cannot be loaded: ZeroDivisionError" in line["message"]
    assert 'program.py", line 2' in line["traceback"]
    assert 'helper.py", line 2' in line["traceback"]
    assert "eighties" not in line["traceback"]
    assert "importlib" not in line["traceback"]


def test_a_missing_import_is_named(tmp_path: Path) -> None:
    write(tmp_path, "program.py", "import no_such_module\n")
    for entry in ("program.py", "program:app"):
        result = command(tmp_path, entry, "-p", "0")
        assert result.returncode == 3
        (line,) = map(json.loads, result.stderr.splitlines())
        assert "No module named 'no_such_module'" in line["message"]
        assert 'program.py", line 1' in line["traceback"]


# ---- --cli ----

HOOKS = """
import asyncio
from eighties import App
app = App()

@app.on_start
def first():
    print("first")

@app.on_start
async def second():
    await asyncio.sleep(0)
    print("second", type(asyncio.get_running_loop()).__module__.partition(".")[0])

@app.on_stop
async def last():
    print("last")
"""


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_cli_runs_the_hooks(loop: str, tmp_path: Path) -> None:
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    write(tmp_path, "program.py", HOOKS)
    result = command(tmp_path, "program.py", "--cli", "--loop", loop)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.split() == ["first", "second", loop, "last"]


def test_cli_with_a_hook_that_fails(tmp_path: Path) -> None:
    write(tmp_path, "program.py", HOOKS.replace('print("first")', 'raise KeyError("database")'))
    result = command(tmp_path, "program.py", "--cli")
    assert result.returncode == 3
    (line,) = map(json.loads, result.stderr.splitlines())
    assert "an on_start hook failed: KeyError: 'database'" in line["message"]
    assert "in first" in line["traceback"]
    assert "eighties" not in line["traceback"]


# ---- the parent stays small ----


def test_the_parent_imports_next_to_nothing() -> None:
    heavy = "argparse asyncio dataclasses enum inspect json logging re socket ssl subprocess typing eighties.app"
    code = (
        "import sys; before = set(sys.modules); import eighties.cli, eighties.serve.supervisor;"
        "print(*(set(sys.modules) - before))"
    )
    # -S: what other packages have Python import at its start is not ours.
    paths = {"PYTHONPATH": ":".join(path for path in sys.path if path)}
    result = subprocess.run(
        [sys.executable, "-S", "-c", code], env=paths, capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    assert not set(heavy.split()) & set(result.stdout.split())
