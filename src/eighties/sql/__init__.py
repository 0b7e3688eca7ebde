"""Data: clients for MySQL and SQLite, and repositories on top of them.

Names are imported when first used: nobody loads a driver, or SQLAlchemy, that is not wanted.
"""

from __future__ import annotations

from importlib import import_module

_HOMES = {
    "BadMethod": "repository",
    "BadName": "grammar",
    "BadRow": "errors",
    "Call": "repository",
    "Client": "client",
    "ClientClosed": "client",
    "ConnectionLost": "client",
    "DatabaseError": "client",
    "Duplicate": "client",
    "Entity": "entity",
    "MarkerError": "client",
    "MySQL": "mysql",
    "NoRow": "repository",
    "Page": "repository",
    "Pageable": "repository",
    "PoolTimeout": "client",
    "QueryError": "client",
    "Record": "entity",
    "Repository": "repository",
    "Result": "client",
    "SQLite": "sqlite",
    "ServerDown": "client",
    "TooManyRows": "repository",
    "TransactionError": "client",
    "Varchar": "entity",
    "connect": "client",
    "derived": "repository",
    "field": "entity",
    "query": "repository",
}

__all__ = [
    "BadMethod",
    "BadName",
    "BadRow",
    "Call",
    "Client",
    "ClientClosed",
    "ConnectionLost",
    "DatabaseError",
    "Duplicate",
    "Entity",
    "MarkerError",
    "MySQL",
    "NoRow",
    "Page",
    "Pageable",
    "PoolTimeout",
    "QueryError",
    "Record",
    "Repository",
    "Result",
    "SQLite",
    "ServerDown",
    "TooManyRows",
    "TransactionError",
    "Varchar",
    "connect",
    "derived",
    "field",
    "orm",
    "query",
]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from . import orm
    from .client import (
        Client,
        ClientClosed,
        ConnectionLost,
        DatabaseError,
        Duplicate,
        MarkerError,
        PoolTimeout,
        QueryError,
        Result,
        ServerDown,
        TransactionError,
        connect,
    )
    from .entity import Entity, Record, Varchar, field
    from .errors import BadRow
    from .grammar import BadName
    from .mysql import MySQL
    from .repository import (
        BadMethod,
        Call,
        NoRow,
        Page,
        Pageable,
        Repository,
        TooManyRows,
        derived,
        query,
    )
    from .sqlite import SQLite


def __getattr__(name: str) -> object:
    if name == "orm":
        return import_module(".orm", __name__)
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f".{home}", __name__), name)
    globals()[name] = value
    return value
