"""docs/repositories.md: its programs run as they stand there."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from types import FunctionType
from typing import Any

from database import run

from eighties.sql import SQLite, connect

PAGE = Path(__file__).parent.parent / "docs" / "repositories.md"
CODE = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


def program(number: int, names: dict[str, Any]) -> Any:
    """A block of the page, to be awaited."""
    code = compile(CODE[number], str(PAGE), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    result = FunctionType(code, names)()
    assert inspect.iscoroutine(result)
    return result


def test_the_first_program(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "site"}

    async def main() -> None:
        await program(0, names)
        assert names["hello"].text == "Hello"
        assert await names["posts"].count_by_created_after(names["datetime"](2000, 1, 1)) == 0
        await names["posts"].client.close()

    run(main())


def test_the_ancestors_form() -> None:
    async def main() -> None:
        sql: Any = SQLite()
        await sql.exec("CREATE TABLE posts (id INTEGER PRIMARY KEY, author TEXT, body TEXT)")
        names: dict[str, Any] = {"sql": sql}
        await program(1, names)
        assert (await names["repo"].one.by())["text"] == "Hello"
        await sql.close()

    run(main())


def test_tables_of_others(mysql: str) -> None:
    """What is said there of BIT, and of tables that `create_table` did not make."""
    from eighties.sql import orm

    async def main() -> None:
        client = connect(mysql)
        await client.exec("CREATE TABLE flags (id INT PRIMARY KEY AUTO_INCREMENT, flag BIT(1), t DATETIME, u UUID)")
        repo = orm.create(
            client, source="flags", entity={"id": int, "flag": orm.t.bit, "t": orm.t.datetime, "u": orm.t.uuid}
        )
        try:
            await repo.insert({"flag": True}, {"flag": False}, {})
            assert [one.flag for one in await repo.all.by(order_by="id")] == [True, False, None]
            assert [one.id for one in await repo.all.by_flag_true()] == [1]
            assert [one.id for one in await repo.all.by_flag(False)] == [2]
        finally:
            await client.close()

    run(main())
