"""docs/data.md: its programs run as they stand there, against both databases, and its tables are true.

The first Python block is a program that is served. The others are one, each going on where the one before it ended;
`connect` gets the test's database. A statement may have a comment at its end: `# → VALUE`, what the expression gives,
or `# raises NAME` and perhaps `: TEXT`, in a class statement at the end of any line.
"""

from __future__ import annotations

import ast
import inspect
import re
from enum import Enum
from pathlib import Path
from types import FunctionType
from typing import Annotated, Any
from uuid import UUID

import pytest
from conftest import Serve
from database import run
from grammar_table import LINES

from eighties import sql
from eighties.sql import client, grammar, markers, pool, results, sqlite, statements, threads, writes
from eighties.sql import mysql as mysql_client
from eighties.sql.kinds import DIALECTS, kind_of

pytestmark = pytest.mark.pure

PAGE = Path(__file__).parent.parent / "docs" / "data.md"
TEXT = PAGE.read_text("utf-8")
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.M | re.S)
GIVES = re.compile(r"#\s*→ (.+)$")
RAISES = re.compile(r"# raises (\w+)(?:: (.*))?$", re.M)
URL = '"sqlite:///site.db"'
SERVED, *PROGRAM = BLOCK.finditer(TEXT)


# ---- programs ----


def test_the_first_program_serves(database: str, serve: Serve, tmp_path: Path) -> None:
    server = serve(SERVED[1], env={"DATABASE_URL": database})
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert server.request("POST", "/posts", b"author=ann&text=Hello", form).json() == {
        "id": 1,
        "author": "ann",
        "text": "Hello",
    }
    assert server.request("POST", "/posts", b"author=ann&text=Again", form).status == 200
    assert [post["text"] for post in server.get("/posts/ann").json()] == ["Again", "Hello"]
    assert server.get("/posts/bob").json() == []


class Statement:
    """A statement of the page, and what the comment says of it."""

    def __init__(self, tree: ast.stmt, source: list[str], first: int) -> None:
        text = "\n".join(source[tree.lineno - 1 : tree.end_lineno])
        self.gives, self.raises = GIVES.search(text), RAISES.search(text)
        self.line = first + tree.lineno - 1
        ast.increment_lineno(tree, first - 1)
        self.expression = isinstance(tree, ast.Expr)
        body: Any = ast.Expression(tree.value) if isinstance(tree, ast.Expr) else ast.Module([tree], [])
        mode = "eval" if self.expression else "exec"
        self.code = compile(body, str(PAGE), mode, ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)

    async def run(self, names: dict[str, Any]) -> None:
        if self.raises:
            error = getattr(sql, self.raises[1], None) or {"ValueError": ValueError}[self.raises[1]]
            with pytest.raises(error, match=re.escape(self.raises[2]) if self.raises[2] else None):
                await self.value(names)
            return
        value = await self.value(names)
        if self.gives:
            assert value == eval(self.gives[1], names), f"docs/data.md:{self.line}"

    async def value(self, names: dict[str, Any]) -> Any:
        if not self.code.co_flags & inspect.CO_COROUTINE:
            return eval(self.code, names)
        return await FunctionType(self.code, names)()


def statements_of(block: re.Match[str]) -> list[Statement]:
    first = TEXT[: block.start(1)].count("\n") + 1
    return [Statement(one, block[1].splitlines(), first) for one in ast.parse(block[1]).body]


def test_the_programs_of_the_page(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "site"}

    def connect(url: str) -> client.Client:
        assert f'"{url}"' == URL
        return sql.connect(database)

    async def main() -> None:
        for block in PROGRAM:
            for statement in statements_of(block):
                await statement.run(names)
                if "db" not in names and "connect" in names:
                    names["connect"] = connect
        assert sorted(row["word"] for row in names["heard"]) == ["block", "page"]
        await names["db"].close()

    run(main())


def test_what_is_said_is_checked() -> None:
    all_statements = [one for block in PROGRAM for one in statements_of(block)]
    assert sum(bool(one.gives) for one in all_statements) == TEXT.count("# → ") > 25
    assert sum(bool(one.raises) for one in all_statements) == TEXT.count("# raises ") >= 4
    assert all(one.expression for one in all_statements if one.gives)


def test_tables_of_others(mysql: str) -> None:
    """What is said of BIT, and of tables that `create_table` did not make."""

    async def main() -> None:
        client = sql.connect(mysql)
        await client.exec("CREATE TABLE flags (id INT PRIMARY KEY AUTO_INCREMENT, flag BIT(1), t DATETIME, u UUID)")
        repo = sql.orm.create(
            client,
            source="flags",
            entity={"id": int, "flag": sql.orm.t.bit, "t": sql.orm.t.datetime, "u": sql.orm.t.uuid},
        )
        try:
            await repo.insert({"flag": True}, {"flag": False}, {})
            assert [one.flag for one in await repo.all.by(order_by="id")] == [True, False, None]
            assert [one.id for one in await repo.all.by_flag_true()] == [1]
            assert [one.id for one in await repo.all.by_flag(False)] == [2]
        finally:
            await client.close()

    run(main())


# ---- tables ----


def section(title: str) -> str:
    found = re.search(rf"^#+ {re.escape(title)}\n(.*?)(?=^#+ |\Z)", BLOCK.sub("", TEXT), re.M | re.S)
    assert found, title
    return found[1]


def rows(title: str) -> list[list[str]]:
    """The cells of a section's tables, without their heads."""
    lines = [line for line in section(title).splitlines() if line.startswith("|")]
    heads = {place - 1 for place, line in enumerate(lines) if line.startswith("|---")}
    return [
        [cell.strip() for cell in line.strip("| ").split(" | ")]
        for place, line in enumerate(lines)
        if place not in heads and not line.startswith("|---")
    ]


def code(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def test_the_grammar_is_told_by_the_lines_that_are_tested() -> None:
    tested = {(line.name, " ".join(line.where.removeprefix("WHERE ").split())) for line in LINES}
    told: set[str] = set()
    for keyword, name, text in rows("Names of methods"):
        told |= set(code(keyword))
        assert (code(name)[0], code(text)[0].removeprefix("SELECT DISTINCT … WHERE ")) in tested, name
    phrases = {phrase for _, phrases in grammar.OPERATORS.values() for phrase in phrases}
    modifiers = {"_".join(one) for one in (*grammar._IGNORE_CASE, *grammar._ALL_IGNORE_CASE)}
    assert told == phrases | modifiers | {"and", "or", "order_by", "first", "top", "distinct"}
    for action in grammar.ACTIONS:
        assert re.search(rf"\b{action}\b", section("Names of methods").partition("PREDICATE ")[0])


class Color(Enum):
    RED = "red"


class Size(Enum):
    SMALL = 1


def test_types_are_told() -> None:
    from datetime import date, datetime, time
    from decimal import Decimal

    known = {
        "int": int,
        "str": str,
        "Annotated[str, Varchar(n)]": Annotated[str, sql.Varchar(9)],
        **{"float": float, "bool": bool, "Decimal": Decimal, "bytes": bytes, "datetime": datetime, "date": date},
        **{"time": time, "UUID": UUID, "dict": dict, "list": list},
    }
    for annotation, *types, _ in [[*row, ""][:4] for row in rows("Entities")]:
        for name in code(annotation):
            if name == "Enum":
                wanted = [[kind_of(one)[0].sql for one in (Color, Size)]] * 2
            elif name.endswith("type>]"):
                continue
            else:
                wanted = [[kind_of(known.pop(name))[0].sql]] * 2
            for dialect, said, columns in zip(DIALECTS, types, wanted, strict=True):
                found = [re.sub(r"\(9\)", "", str(one.compile(dialect=DIALECTS[dialect]))) for one in columns]
                assert " or ".join(found) == said, name
    assert not known


def test_every_name_is_told() -> None:
    for name in sql.__all__:
        assert re.search(rf"\b{name}\b", TEXT), name
    for name, value in vars(client.Client).items():
        if not name.startswith("_") and callable(value) and name not in ("fetch", "execute", "iterate"):
            assert re.search(rf"\b{name}\(", section("Asking") + section("Connecting")), name
    for name in vars(sql.Repository):
        if not name.startswith("_"):
            assert re.search(rf"`?{name}\b", section("Repositories")), name
    told = set(code(" ".join(row[0] for row in rows("Errors"))))
    errors = {name for name in sql.__all__ if isinstance(getattr(sql, name), type)}
    assert told >= {name for name in errors if issubclass(getattr(sql, name), Exception)}


@pytest.mark.parametrize(
    ("title", "said"),
    [
        ("Connecting", f"`?timeout={client.TIMEOUT:.0f}`"),
        (
            "Connecting",
            f"`?pool={mysql_client.POOL}` | connections of each worker; {sqlite.READERS_AND_WRITER} with SQLite",
        ),
        ("Connecting", f"under way end within {pool.CLOSING_TIMEOUT:.0f} s"),
        ("The pool, and what goes wrong", f"after {mysql_client.UNSENT_TIMEOUT} s (unsent) to 2 minutes (idle)"),
        ("MySQL and MariaDB", f"{mysql_client.STATEMENTS} kept on each connection"),
        ("Limits", f"{mysql_client.POOL}; SQLite {sqlite.READERS_AND_WRITER}"),
        ("Limits", f"| {client.TIMEOUT:.0f} s |"),
        ("Limits", f"of a connection | {mysql_client.STATEMENTS} |"),
        ("Limits", f"by `stream` | {mysql_client.PART} |"),
        ("Limits", f"by `stream` | {threads.PART} |"),
        ("Limits", f"one INSERT | {writes.MAX_ROWS:,} | and {writes.MAX_BYTES >> 20} MB"),
        ("Limits", f"in names | {grammar.MAX_LIMIT:,} |"),
        ("Limits", f"{markers.CACHED_TEXTS:,} of `select` and the like; {statements.MAX_SHAPES} shapes"),
        ("Limits", f"rows of a page | {results.PAGE_SIZE} |"),
    ],
)
def test_limits_are_told(title: str, said: str) -> None:
    assert said in " ".join(section(title).split())
    assert mysql_client.KEEPALIVE + 6 * 10 == 120
