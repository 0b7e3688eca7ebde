"""The types are complete: a program that uses them rightly passes mypy --strict, mistakes are found."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PROGRAMS = ("usage.py", "usage_data.py", "usage_promise.py")


@pytest.mark.lint
def test_types_of_programs(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    result = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", f"--cache-dir={tmp_path}", *PROGRAMS],
        cwd=HERE,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stdout + result.stderr == ""
