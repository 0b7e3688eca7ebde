"""Native modules in real servers: `-m`, the example, the page about them, and what is said of those that are none."""

from __future__ import annotations

import errno
import re
import signal
import socket
from pathlib import Path

import pytest
from conftest import Serve
from native_modules import BARE, HELLO, HERE, INCLUDE, PROBE, build, run
from server import PATIENCE, Server, wait_until
from test_cli import cfg, command, one_message, write

from eighties.serve.settings import SettingsError, collect

APP = """
    from eighties import App
    app = App()

    @app.get("/")
    def index(request):
        return "here"
"""
DOCS = HERE.parent / "docs" / "modules.md"


def command_in(source: Path) -> str:
    """How a file says that it is built."""
    found = re.search(r"^ \* +(cc .*)$", source.read_text(), re.M)
    assert found is not None
    return found[1]


def ask(port: int) -> str | None:
    """A datagram from a port of its own, and the answer to it."""
    with socket.socket(type=socket.SOCK_DGRAM) as client:
        client.settimeout(0.5)
        client.sendto(b"anyone?", ("127.0.0.1", port))
        try:
            return client.recv(1000).decode()
        except (TimeoutError, ConnectionRefusedError):
            return None


def hear_from_all(server: Server, greeting: str, workers: int) -> None:
    """Each of them answers, and nobody says anything else."""
    wanted = {f"{greeting} from worker {number} of {workers}" for number in range(workers)}
    heard: set[str] = set()

    def complete() -> bool:
        answer = ask(server.port)
        heard.update([answer] if answer is not None else [])
        return heard >= wanted

    wait_until(complete, f"{wanted}, in {heard} and {server.stderr}")
    assert heard == wanted


@pytest.fixture
def hello(tmp_path: Path) -> Path:
    """The example, built as it says."""
    source = tmp_path / "hello.c"
    source.write_text(HELLO.read_text())
    run(command_in(HELLO), tmp_path)
    return tmp_path / "hello.so"


def test_the_folder_of_the_header(tmp_path: Path) -> None:
    result = command(tmp_path, "--include")
    assert result.returncode == 0 and Path(result.stdout.strip()) == INCLUDE
    assert (INCLUDE / "eighties.h").is_file()


@pytest.mark.parametrize("compiler", [("cc", "-std=c99"), ("c++", "-xc++", "-std=c++17")], ids=["C", "C++"])
def test_the_header_is_for_any_compiler(compiler: tuple[str, ...], tmp_path: Path) -> None:
    """With no other header, and whatever is visible by default; its symbols are there in each file that includes it."""
    program, *flags = compiler
    for name, text in (("one.c", '#include "eighties.h"\n'), ("two.c", BARE)):
        (tmp_path / name).write_text(text)
    strict = ["-Wall", "-Wextra", "-Werror", "-pedantic", "-fvisibility=hidden", "-shared", "-fPIC", f"-I{INCLUDE}"]
    run([program, *flags, *strict, "one.c", "two.c", "-o", "m.so"], tmp_path)
    content = (tmp_path / "m.so").read_bytes()
    assert all(name in content for name in (b"on_load", b"on_unload", b"eighties_abi"))


def test_how_modules_are_named(tmp_path: Path) -> None:
    assert collect(["-m", "a.so,b.so", "--modules=c.so"], {}).modules == "a.so,b.so,c.so"
    assert collect([], {"EIGHTIES_MODULES": "a.so, b.so"}).modules == "a.so,b.so"
    assert collect(["-mc.so"], {"EIGHTIES_MODULES": "a.so"}).modules == "c.so"
    assert cfg(tmp_path, "-m", "a.so")["modules"] == ("a.so", "command line")
    for wrong in ("", ",", "a.so,", "a\0.so"):
        with pytest.raises(SettingsError, match="-m must be files with commas between them"):
            collect(["-m", wrong], {})


def test_the_example(serve: Serve, workers: int, hello: Path, tmp_path: Path) -> None:
    """Loaded, served, and unloaded at the end."""
    server = serve(APP, "-c", str(workers), "-m", "hello.so")
    server.wait_for(f"loaded: hello on UDP port {server.port}", workers)
    hear_from_all(server, "hello", workers)
    assert server.get("/").text == "here"
    assert server.stop() == 0
    ends = [line for line in server.log if line["message"] == "unloaded"]
    assert len(ends) == workers and all(line["module"] == "hello.so" and line["level"] == "info" for line in ends)
    assert ask(server.port) is None


def ask_on(client: socket.socket, server: Server) -> None:
    """A request on a connection that is kept."""
    client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    answer = b""
    while not answer.endswith(b"here"):
        data = client.recv(65536)
        assert data, f"{answer!r}, and the end, in {server.stderr}"
        answer += data
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")


def test_a_reload(serve: Serve, workers: int, hello: Path, tmp_path: Path) -> None:
    """Whoever is connected stays so; a module that is broken leaves the old one, until it is mended."""
    server = serve(APP, "-c", str(workers), "-m", "hello.so")
    source = hello.with_suffix(".c")
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as client:
        ask_on(client, server)
        for count, greeting in enumerate(("good morning", "good night"), 1):
            source.write_text(HELLO.read_text().replace('"hello"', f'"{greeting}"'))
            run(command_in(HELLO), tmp_path)
            server.send(signal.SIGHUP)
            server.wait_for(f"reloaded: {greeting} on", workers)
            server.wait_for("unloaded, to be loaded again", count * workers)
            hear_from_all(server, greeting, workers)
            ask_on(client, server)
        source.write_text(HELLO.read_text().replace("fd = open_socket(params->port)", "fd = -1"))
        run(command_in(HELLO), tmp_path)
        server.send(signal.SIGHUP)
        server.wait_for("native module hello.so: on_load failed: it returned 1")
        server.wait_for("reloaded: good night on", workers + 1)  # the one that went ahead has its old one again
        hear_from_all(server, "good night", workers)
        ask_on(client, server)
        source.write_text(HELLO.read_text())
        run(command_in(HELLO), tmp_path)
        server.send(signal.SIGHUP)
        server.wait_for("reloaded: hello on", workers)
        hear_from_all(server, "hello", workers)
        ask_on(client, server)


def test_a_program_that_cannot_be_swapped_in_leaves_its_modules(serve: Serve, hello: Path, tmp_path: Path) -> None:
    """Routes that clash are found last of all."""
    server = serve(APP, "-m", "hello.so")
    program = tmp_path / "program.py"
    text = program.read_text()
    program.write_text(
        f"{text}\nlate = App()\napp.mount('/', late)\napp.on_start(lambda: late.get('/')(lambda request: 'late'))\n"
    )
    server.send(signal.SIGHUP)
    server.wait_for("not reloaded, the old program serves on: ValueError: two routes clash")
    assert server.get("/").text == "here"
    hear_from_all(server, "hello", 1)
    program.write_text(text.replace("here", "there"))
    server.send(signal.SIGHUP)
    server.wait_for("unloaded, to be loaded again")
    server.wait_for("reloaded", 3)
    assert server.get("/").text == "there"
    assert len([line for line in server.log if line["message"].startswith("unloaded")]) == 1


def test_a_greeting_of_any_length(serve: Serve, hello: Path, tmp_path: Path) -> None:
    """Whoever changes the example's: none is a format, and nothing is sent from behind its end."""
    greeting = "100% " + "hello " * 50
    source = hello.with_suffix(".c")
    source.write_text(HELLO.read_text().replace('"hello"', f'"{greeting}"'))
    run(command_in(source), tmp_path)
    server = serve(APP, "-m", "hello.so")
    assert ask(server.port) == greeting[:127]


NONE = [
    ("", "there is no such file"),
    ("folder", "it is no file"),
    ("text", "m.so: file too short"),
    (BARE.replace("on_load", "on_lod"), "it has no on_load: it must define that function"),
    (BARE.replace("on_unload", "on_unlod"), "it has no on_unload: it must define that function"),
    (BARE.replace("{", "{ extern int nowhere(void); nowhere();", 1), "m.so: undefined symbol: nowhere"),
    (BARE.replace("{ return", "{ if (params) return 3; return", 1), "on_load failed: it returned 3"),
    (
        BARE.replace("#include", "#define eighties_abi other\n#include"),
        "it has no eighties_abi: it must include eighties.h",
    ),
    (
        "const unsigned eighties_abi = 77; int on_load(void) { return 0; } int on_unload(void) { return 0; }",
        "it was built for version 77 of the interface, this server has version 1: build it again with this server's",
    ),
]


@pytest.mark.parametrize(("text", "message"), NONE, ids=[message for _, message in NONE])
def test_what_is_no_module(text: str, message: str, workers: int, tmp_path: Path) -> None:
    """One message, exit code 3, and the server has not listened."""
    path = tmp_path / "m.so"
    if text == "folder":
        path.mkdir()
    elif text == "text":
        path.write_text("not ELF")
    elif text:
        build(text, path)
    write(tmp_path, "app.py", APP)
    result = command(tmp_path, "app.py", "-p0", "-m", "m.so", "-c", str(workers))
    assert result.returncode == 3
    assert one_message(result).startswith("native module m.so: ") and message in one_message(result)


def test_one_that_raises(tmp_path: Path) -> None:
    build(PROBE, tmp_path / "m.so", "-DRAISES")
    write(tmp_path, "app.py", APP)
    result = command(tmp_path, "app.py", "-p0", "-m", "m.so")
    assert result.returncode == 3 and "native module m.so: on_load failed: ValueError: no luck" in result.stderr


def test_destructors_run_when_python_has_ended(serve: Serve, tmp_path: Path) -> None:
    """Also those that call the server."""
    text = BARE.replace("{ return", "{ kept = params; return", 1)
    text += """
        #include <stdio.h>
        __attribute__((destructor)) static void end(void) { printf("%d\\n", kept->engine->log(kept, "info", "late")); }
    """
    build(text.replace("int on_load", "static serve_params *kept; int on_load", 1), tmp_path / "m.so")
    server = serve(APP, "-m", "m.so")
    server.send(signal.SIGTERM)
    assert server.output().strip() == str(-errno.EPERM)
    assert server.stop() == 0


def test_it_is_loaded_after_the_hooks_and_has_the_program(serve: Serve, tmp_path: Path) -> None:
    """And it may use mail and what else there is, at once."""
    build(PROBE, tmp_path / "probe.so")
    program = """
        from eighties import App
        app = App()
        calls = []
        heard = []

        @app.on_start
        def begin():
            calls.append("start")

        @app.on_stop
        def end():
            calls.append("stop")
            print(calls, flush=True)

        def on_message(worker, sender, elfd, fd, message):
            heard.append(message.decode())

        @app.get("/")
        def index(request):
            return {"calls": calls, "port": facts()["port"], "mailed": mail(0, b"hello"), "heard": heard}
    """
    server = serve(program, "-m", "probe.so")
    first = server.get("/").json()
    assert first == {"calls": ["start", ["load", "probe", 0]], "port": server.port, "mailed": 0, "heard": []}
    assert server.get("/").json()["heard"] == ["hello"]
    server.send(signal.SIGTERM)
    assert server.output().strip() == "['start', ('load', 'probe', 0), ('unload', 'probe', 0), 'stop']"


def test_a_site_has_them_too(serve: Serve, hello: Path, tmp_path: Path) -> None:
    (tmp_path / "public_html").mkdir()
    server = serve(".", "-m", "hello.so")
    assert ask(server.port) == "hello from worker 0 of 1"


def test_a_server_without_a_port(serve: Serve, tmp_path: Path) -> None:
    build(PROBE, tmp_path / "probe.so")
    write(tmp_path, "app.py", APP.replace("    app = App()\n", "    app = App()\n    calls = []\n"))
    server = Server("app.py", "--uds", "socket", "-m", "probe.so", folder=tmp_path, port=None)
    server.wait_for("listening")
    assert server.stop() == 0


def test_the_page(serve: Serve, tmp_path: Path) -> None:
    """docs/modules.md: its module is built with its command, and its program served."""
    blocks = dict(re.findall(r"^```(\w+)\n(.*?)^```$", DOCS.read_text(), re.M | re.S))
    (tmp_path / "sum.c").write_text(blocks["c"])
    (tmp_path / "app.py").write_text(blocks["python"])
    run(blocks["sh"].replace("-Wall", "-Wall -Werror"), tmp_path)
    server = serve("app.py", "-m", "./sum.so")
    server.wait_for("sum is loaded")
    assert server.get("/sum/abc").json() == {"sum": 294}


def test_the_page_names_every_function() -> None:
    header = (INCLUDE / "eighties.h").read_text()
    table = header.partition("struct eighties_functions {")[2].partition("\n};")[0]
    functions = re.findall(r"int \(\*(\w+)\)", table)
    assert functions == re.findall(r"^\| `(\w+)\(params", DOCS.read_text(), re.M) and len(functions) == 6
