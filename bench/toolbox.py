"""The bench's own place, `.bench-venv` at the project's root: the Python peers and what the bench compiles.

It is made on the first run, kept for the next, ignores itself in git, and may be deleted at any time.
"""

import json
import os
import subprocess
import sys
import venv
from collections.abc import Mapping, Sequence
from pathlib import Path

from processes import ROOT, without_paths

PLACE = ROOT / ".bench-venv"
VENV = PLACE / "python"
PYTHON = VENV / "bin" / "python"
PATIENCE = 600  # seconds one installation or compilation may take


class UnavailableError(Exception):
    """A peer that this machine cannot have, and why."""


def call(command: Sequence[str | Path], environment: Mapping[str, str] | None = None) -> str:
    """Runs a command to its end and returns what it printed. Raises UnavailableError, with the last line it said."""
    name = Path(command[0]).name
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
    except FileNotFoundError:
        raise UnavailableError(f"{name} is not installed") from None
    except subprocess.TimeoutExpired:
        raise UnavailableError(f"{name} did not end within {PATIENCE} s") from None
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()[-1]
        raise UnavailableError(f"{name} failed: {without_paths(said)[:200]}")
    return done.stdout


def _open() -> None:
    """Makes the place, if there is none."""
    (PLACE / "built").mkdir(parents=True, exist_ok=True)
    (PLACE / ".gitignore").write_text("*\n")


def _make_venv() -> None:
    """Makes the environment, or makes it anew when it is of another Python than the one that runs the bench."""
    _open()
    made_with = PLACE / "made-with"
    stamp = f"{sys.implementation.name} {sys.version}"
    if PYTHON.exists() and made_with.exists() and made_with.read_text() == stamp:
        return
    try:
        venv.create(VENV, clear=True, with_pip=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise UnavailableError(
            f"no environment for Python peers (Debian: python3-venv): {type(error).__name__}"
        ) from error
    made_with.write_text(stamp)


def install(*packages: str) -> dict[str, str]:
    """Installs packages into the environment unless it has them; returns their versions."""
    _make_venv()
    missing = [name for name, version in _versions(packages).items() if not version]
    if missing:
        call([PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *missing])
    return _versions(packages)


def _versions(packages: Sequence[str]) -> dict[str, str]:
    program = """
import importlib.metadata, json, sys
versions = {}
for name in sys.argv[1:]:
    try:
        versions[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        versions[name] = ""
print(json.dumps(versions))
"""
    versions: dict[str, str] = json.loads(call([PYTHON, "-c", program, *packages]))
    return versions


def built(name: str) -> Path:
    """Where a compiled program goes."""
    _open()
    return PLACE / "built" / name
