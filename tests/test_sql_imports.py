"""Who does not use eighties.sql does not pay for it: no driver, no SQLAlchemy, no sqlite3."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from conftest import Serve

DATA = {"eighties.sql", "asyncmy", "sqlalchemy", "sqlite3", "aiosqlite"}
PLAIN = """
    import sys
    from eighties import App

    app = App()


    @app.get("/")
    async def loaded(request):
        return sorted(sys.modules)
"""


def loaded_by(statement: str) -> set[str]:
    """The modules that a statement loads in a fresh interpreter."""
    code = (
        f"import json, sys; before = set(sys.modules); {statement}; print(json.dumps(list(set(sys.modules) - before)))"
    )
    paths = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=paths, capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def test_the_package_loads_none_of_it() -> None:
    assert not loaded_by("import eighties; from eighties import App, Request, Response, aio, net") & DATA


def test_a_server_loads_none_of_it(serve: Serve) -> None:
    assert not set(serve(PLAIN).get("/").json()) & DATA


@pytest.mark.parametrize(
    ("statement", "used"),
    [
        ("from eighties.sql import connect", set()),
        ("from eighties.sql import connect; connect('sqlite://:memory:')", {"sqlite3"}),
        ("from eighties.sql import connect; connect('mysql://a@localhost/b')", {"asyncmy"}),
        ("from eighties.sql import Entity", {"sqlalchemy"}),
    ],
)
def test_one_database_does_not_load_the_other(statement: str, used: set[str]) -> None:
    assert loaded_by(statement) & DATA == used | {"eighties.sql"}
