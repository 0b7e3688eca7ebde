"""Building native modules for tests, and a program that they are loaded for."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path
from types import ModuleType
from typing import Any

from server import foreign_environment

import eighties
from eighties import App
from eighties._engine import Engine
from eighties.serve.loader import Program
from eighties.serve.modules import Modules
from eighties.serve.settings import collect

HERE = Path(__file__).parent
PROBE = HERE / "native" / "probe.c"
HELLO = HERE.parent / "examples" / "modules" / "hello.c"
INCLUDE = Path(eighties.__file__).parent / "include"
STRICT = ("-Wall", "-Wextra", "-Werror")
# The smallest module there can be.
BARE = """
    #include "eighties.h"
    int on_load(void *ctx, serve_params *params, int reload) { return !ctx || params->reload != reload; }
    int on_unload(void *ctx, serve_params *params, int reload) { return !ctx || params->reload != reload; }
"""


def run(command: list[str] | str, folder: Path) -> str:
    """What it says; it must end well. A text is for the shell, to which `80s` and `python` are ours."""
    environment = foreign_environment()
    environment["PATH"] = os.path.dirname(sys.executable) + os.pathsep + environment["PATH"]
    done = subprocess.run(
        command,
        shell=isinstance(command, str),
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def build(source: Path | str, target: Path, *flags: str) -> Path:
    """Compile a file, or a text, to a module. As compilers do, it takes the old one's place."""
    if isinstance(source, str):
        text, source = source, target.with_suffix(".c")
        source.write_text(text)
    python = f"-I{sysconfig.get_path('include')}"
    compiler = shlex.split(os.environ.get("CC", "cc"))
    run([*compiler, "-shared", "-fPIC", *STRICT, f"-I{INCLUDE}", python, *flags, str(source), "-o", str(target)], HERE)
    return target


class Place:
    """What a worker has where modules are loaded: a program, and the modules."""

    def __init__(self, engine: Engine, *paths: Path, workers: int = 1) -> None:
        settings = collect([*(f"-m{path}" for path in paths), "-c", str(workers), "-n", "here"], {})
        self.modules = Modules(settings, engine, 8080)
        self.program = self.new_program()

    def new_program(self) -> Any:
        """A program's module, with the list `calls`."""
        module = ModuleType("program_of_test")
        vars(module)["calls"] = []
        return module

    def load(self) -> None:
        self.modules.load(self.program)

    def reload(self) -> Any:
        """For a new program, which is the old one where it fails. Returns the new program."""
        new = self.new_program()
        sys.modules[new.__name__] = new
        try:
            self.modules.reload(Program(App(), {}, vars(new), raw=False))
            self.program = new
        finally:
            del sys.modules[new.__name__]
        return new
