"""Print what pyproject.toml asks for: `requires.py build`, or the name of an optional group. Used by the Makefile."""

import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))
for group in sys.argv[1:]:
    if group == "build":
        print(*project["build-system"]["requires"])
    else:
        print(*project["project"]["optional-dependencies"][group])
