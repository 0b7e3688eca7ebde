"""Data: clients for MySQL and SQLite. Names are imported when first used: nobody loads a driver that is not wanted."""

from __future__ import annotations

from importlib import import_module

_HOMES = {
    "ClientClosed": "client",
    "ConnectionLost": "client",
    "DatabaseError": "client",
    "Duplicate": "client",
    "MarkerError": "client",
    "MySQL": "mysql",
    "PoolTimeout": "client",
    "QueryError": "client",
    "Result": "client",
    "SQLite": "sqlite",
    "ServerDown": "client",
    "TransactionError": "client",
    "connect": "client",
}

__all__ = [
    "ClientClosed",
    "ConnectionLost",
    "DatabaseError",
    "Duplicate",
    "MarkerError",
    "MySQL",
    "PoolTimeout",
    "QueryError",
    "Result",
    "SQLite",
    "ServerDown",
    "TransactionError",
    "connect",
]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .client import (
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
    from .mysql import MySQL
    from .sqlite import SQLite


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f".{home}", __name__), name)
    globals()[name] = value
    return value
