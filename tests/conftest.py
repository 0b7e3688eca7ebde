"""Fixtures that every test may ask for. The servers they start are ended, and looked over, when the test is."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest
from database import database, loops, mariadb, mysql  # noqa: F401 fixtures
from hypothesis import HealthCheck, settings
from promise_loops import loop, quiet  # noqa: F401 fixtures
from server import Server

# The command must mean the same wherever the tests run.
for _name in [name for name in os.environ if name.startswith("EIGHTIES_") and name != "EIGHTIES_SANITIZE"]:
    del os.environ[_name]


# How long an example takes says nothing on a busy machine.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """How many processes test side by side (`-n auto`): two for each core, as tests often wait. Each takes 200 MB."""
    return min(2 * (os.cpu_count() or 1), 8)


def pytest_report_header() -> str:
    """Which engine is tested. Under `make sanitize` it must be the one that the sanitizers watch."""
    from eighties import _engine

    assert "EIGHTIES_SANITIZE" not in os.environ or _engine.BUILD == "check", _engine.__file__
    return f"engine: {_engine.VERSION} ({_engine.BUILD}), {_engine.__file__}"


def pytest_collection_finish() -> None:
    """The thousands of tests stay, and so does what they import: no `gc.collect()` of a test has to walk over them."""
    gc.collect()
    gc.freeze()


class Serve(Protocol):
    """The fixture `serve`: `Server`, in the test's own folder."""

    def __call__(
        self, program: str | Path, *arguments: str, env: dict[str, str] | None = None, wait: bool = True
    ) -> Server: ...


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Start servers; `wait=False` for one that will not serve. Those still running are stopped, and must end well."""
    servers: list[Server] = []

    def start(program: str | Path, *arguments: str, env: dict[str, str] | None = None, wait: bool = True) -> Server:
        server = Server(program, *arguments, folder=tmp_path, env=env)
        servers.append(server)
        return server.wait_until_serving() if wait else server

    yield start
    codes = []
    try:
        for server in servers:
            if not server.ended:
                codes.append(server.stop())
    finally:
        for server in servers:
            server.kill()
    assert not any(codes), servers[-1].stderr


@pytest.fixture(params=[1, 2], ids=["1 worker", "2 workers"])
def workers(request: pytest.FixtureRequest) -> int:
    """How many workers to serve with."""
    count: int = request.param
    return count
