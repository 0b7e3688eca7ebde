"""What can go wrong between a program and its database. The driver's own error is each one's `__cause__`."""

from __future__ import annotations

SHOWN_LENGTH = 200
"""Characters of a query that an error shows."""


class DatabaseError(Exception):
    """The base of all of these."""


class ServerDown(DatabaseError):
    """The database cannot be reached, or does not let us in. Nothing was sent; the next query tries again."""


class ConnectionLost(DatabaseError):
    """The connection ended in the middle of a query: whether it was done is not known. The next one reconnects."""


class PoolTimeout(DatabaseError):
    """Every connection was in use for as long as `timeout` allows to wait. Nothing was sent."""


class ClientClosed(DatabaseError):
    """The client is closed, or belongs to another loop or process. Nothing was sent."""


class TransactionError(DatabaseError):
    """The transaction has ended, or another part of it is open: the query was not sent."""


class BadRow(DatabaseError):
    """A row does not fit the class that it is read into: it lacks a column, or holds a value that the class has not."""


class QueryError(DatabaseError):
    """The database did not accept a query.

    Attributes:
        code: the database's number: MySQL's (1062 is a duplicate), or SQLite's extended one (2067); None if the query
            never got there.
        query: its text, shortened. Arguments are not in it.
    """

    def __init__(self, message: str, query: str = "", code: int | None = None) -> None:
        """`query` in full."""
        self.code = code
        self._message = message
        super().__init__(message)
        self.show(query)

    def show(self, query: str) -> None:
        """Have it show another text: the one that the program wrote."""
        text = " ".join(query.split())
        self.query = text if len(text) <= SHOWN_LENGTH else text[: SHOWN_LENGTH - 1] + "…"
        self.args = (f"{self._message}, in: {self.query}" if query else self._message,)


class Duplicate(QueryError):
    """A unique key, or the primary one, has that value already."""
