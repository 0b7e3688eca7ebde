"""A program of two modules for tests of reloads in place: its answers name its version, its hooks write a diary."""

from __future__ import annotations

from pathlib import Path

from conftest import Serve
from server import Server, wait_until

PROGRAM = """
import asyncio, os, pathlib
from eighties import App, Response, net, state
import helper
app = App()
state.loads = getattr(state, "loads", 0) + 1

def write(line):
    with pathlib.Path("diary").open("a") as file:
        file.write(line + "\\n")

@app.on_start
def start(reload):
    write(f"start {VERSION} {reload}")

@app.on_stop
async def stop(reload):
    write(f"stop {VERSION} {reload}")

@app.get("/")
def root(request):
    return f"{VERSION} {helper.NAME}"

@app.get("/loads")
def loads(request):
    return str(state.loads)

@app.get("/slow/{n:int}")
async def slow(request, n):
    write("slow")
    await asyncio.sleep(n / 1000)
    return f"slow {VERSION}"

@app.get("/slow-error")
async def slow_error(request):
    write("slow")
    await asyncio.sleep(0.5)
    raise ValueError

@app.error(ValueError)
def wrong(request, error):
    return Response(f"error {VERSION}", 500)

@app.post("/reload")
async def reload(request):
    return await net.reload()

@app.post("/upload")
def upload(request):
    return f"{VERSION} {len(request.body)}"
"""


def write_program(folder: Path, version: object, helper: str = "helper", more: str = "") -> None:
    """A program of two modules; what is written last has another second than any byte code of it."""
    folder.joinpath("helper.py").write_text(f"NAME = {helper!r}\n")
    folder.joinpath("program.py").write_text(f"VERSION = {version!r}\n" + PROGRAM + more)


def diary(folder: Path) -> list[str]:
    """What hooks and handlers wrote down."""
    path = folder / "diary"
    return path.read_text().splitlines() if path.exists() else []


def start(serve: Serve, *arguments: str, workers: int = 1) -> Server:
    """Serve the program of `write_program`."""
    server = serve("program.py", "-c", str(workers), *arguments)
    wait_until(lambda: len(diary(server.folder)) >= workers, "every worker has loaded it")
    return server


def reload(server: Server) -> list[list[object]]:
    """Ask for it as a program does: the failures."""
    failures: list[list[object]] = server.request("POST", "/reload").json()
    return failures
