"""`orm.create`: the ancestor's form of repositories, as its README shows it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from enum import Enum
from typing import Any

import pytest
import sqlalchemy as sa
from database import run

from eighties.promise import Promise
from eighties.sql import connect, orm
from eighties.sql.entity import Entity, Varchar, field

pytestmark = pytest.mark.pure

ENTITY = {
    "id": {"field": "id", "type": orm.t.int},
    "author": orm.t.varchar(50),
    "text": {"field": "body", "type": orm.t.text},
    "seen": orm.t.bit,
}


@asynccontextmanager
async def posts(url: str, *some: Any, **more: Any) -> AsyncIterator[Any]:
    client = connect(url)
    try:
        repo = orm.create(client, source="posts", **{"entity": ENTITY, "find_by_id": True, "find_by": True, **more})
        await repo.create_table(if_missing=True)
        await repo.insert(*some)
        yield repo
    finally:
        await client.close()


def test_the_ancestors_methods(database: str) -> None:
    async def main() -> None:
        first, second = {"author": "bob", "text": "1"}, {"author": "ann", "text": "2", "seen": True}
        async with posts(database, first, second) as repo:
            assert [row["id"] for row in (first, second)] == [1, 2]
            assert [dict(post) for post in await repo.all.by_id(1)] == [
                {"id": 1, "author": "bob", "text": "1", "seen": None}
            ]
            assert await repo.all.by_id(9) == []
            assert (await repo.one.by_id(2)).author == "ann"
            assert await repo.one.by_id(9) is None
            assert (await repo.one.by())["id"] in (1, 2)
            assert [post.id for post in await repo.all.by(order_by="author", limit=2)] == [2, 1]
            assert [post.id for post in await repo.all.by(order_by="-author", limit=1, offset=1)] == [2]
            assert (await repo.one.by(order_by="-id")).id == 2
            assert (await repo.count.by(), await repo.count.by_id(2), await repo.count.by_author("x")) == (2, 1, 0)
            assert [post.id for post in await repo.all.by_author_and_id("ann", 2)] == [2]
            assert [post.id for post in await repo.all.by_author_like_or_text_containing("a%", "1")] == [1, 2]
            assert [post.id for post in await repo.all.by_seen_is_null()] == [1]
            assert [post.id for post in await repo.all.by_author_in_order_by_id_desc(["ann", "bob"])] == [2, 1]
            assert await repo.delete_one.by() == 1
            assert await repo.delete_all.by() == 1
            assert await repo.delete_all.by_author("ann") == 0

    run(main())


def test_writing(database: str) -> None:
    async def main() -> None:
        async with posts(database) as repo:
            assert await repo.insert() == 0
            post = repo.entity(author="ann", text="x")
            assert await repo.insert(post, {"author": "bob"}, {}) == 3
            assert post.id == 1
            assert await repo.update(post, {"text": "y"}) == 1
            assert (post.text, (await repo.one.by_id(1)).text) == ("y", "y")
            given = {"id": 2}
            assert await repo.update(given, {"author": "eve"}) == 1
            assert given == {"id": 2, "author": "eve"}
            assert (await repo.one.by_id(2)).author == "eve"
            assert await repo.update({"id": 99}, {"author": "x"}) == 0
            saved: dict[str, Any] = {"author": "new"}
            assert await repo.save(saved) is saved
            assert saved["id"] == 4
            saved["author"] = "newer"
            await repo.save(saved)
            assert (await repo.one.by_id(4)).author == "newer"
            assert await repo.replace({"id": 4, "author": "newest"}) in (1, 2)
            assert (await repo.one.by_id(4)).author == "newest"
            assert await repo.count.by() == 4

    run(main())


def test_methods_give_promises(database: str) -> None:
    async def main() -> None:
        async with posts(database, {"author": "ann"}) as repo:
            inserted = repo.insert({"author": "bob"})
            assert isinstance(inserted, Promise)
            while not inserted.done():  # nobody awaits it
                await asyncio.sleep(0.001)
            called = asyncio.get_running_loop().create_future()
            repo.count.by()(called.set_result)
            assert await called == 2
            failed = asyncio.get_running_loop().create_future()
            repo.all.by_author(5)(None, failed.set_result)
            assert isinstance(await failed, TypeError)

    run(main())


def test_what_is_refused(database: str) -> None:
    async def main() -> None:
        async with posts(database, {"author": "ann"}) as repo:
            for name in ("by_autor", "by_author_contaning", "author", "by_", "bi", "__deepcopy__"):
                with pytest.raises(AttributeError):
                    getattr(repo.all, name)
                assert not hasattr(repo.all, name)
            with pytest.raises(AttributeError, match="did you mean 'author'"):
                repo.all.by_autor("x")
            with pytest.raises(TypeError, match="posts.all.by_id.. takes 1 argument, 0 were given"):
                repo.all.by_id()
            with pytest.raises(TypeError, match="takes no 'limits'"):
                repo.all.by(limits=1)
            with pytest.raises(TypeError, match="takes no 'limit'"):
                repo.count.by(limit=1)
            for order in ("author; DROP TABLE posts", "1", "body", ""):
                with pytest.raises(ValueError):
                    repo.all.by(order_by=order)
            with pytest.raises(TypeError):
                repo.all.by(limit="1; DROP TABLE posts")
            with pytest.raises(TypeError, match="posts.author: str is wanted, not int"):
                await repo.all.by_author(0)
            with pytest.raises(ValueError, match="did you mean 'author'"):
                await repo.insert({"autor": "x"})
            with pytest.raises(ValueError, match="did you mean 'author'"):
                await repo.update({"id": 1}, {"autor": "x"})
            with pytest.raises(ValueError, match="51 characters, it holds 50"):
                await repo.insert({"author": "x" * 51})
            with pytest.raises(TypeError, match="or a dict, is wanted, not int"):
                await repo.insert(5)
            with pytest.raises(ValueError, match="never saved"):
                await repo.update({"author": "x"}, {"author": "y"})
            assert await repo.count.by() == 1

    run(main())


def test_every_type(database: str) -> None:
    class Color(Enum):
        RED = "red"

    t = orm.t
    entity = {
        "id": t.int, "text": t.text, "double": t.double, "bit": t.bit, "bool": t.bool, "short": t.varchar(5),
        "moment": t.datetime, "day": t.date, "time": t.time, "decimal": t.decimal, "json": t.json, "blob": t.bytes,
        "uuid": t.uuid, "color": t.enum(Color),
    }  # fmt: skip

    async def main() -> None:
        async with posts(database, {"color": Color.RED, "moment": datetime(2024, 1, 1)}, entity=entity) as repo:
            one = await repo.one.by_color(Color.RED)
            assert (one.id, one.moment, one.uuid, one.json) == (1, datetime(2024, 1, 1), None, None)
            assert await repo.count.by_moment_after(datetime(2023, 1, 1)) == 1

    run(main())


def test_indexes_of_the_program(database: str) -> None:
    entity = {"host": orm.t.varchar(20), "port": int, "hits": int}

    async def main() -> None:
        rows = [{"host": "a", "port": 1, "hits": 5}, {"host": "a", "port": 2, "hits": 6}]
        async with posts(
            database, *rows, entity=entity, index=["host", "port"], find_by_id=False, find_by_host_and_port=True
        ) as repo:
            assert await repo.update(rows[0], {"hits": 7}) == 1
            assert (await repo.one.by_host_and_port("a", 1)).hits == 7
            assert (await repo.one.by_host_and_port("a", 2)).hits == 6

    run(main())


def test_entities_and_tables(database: str) -> None:
    class Post(Entity, source="posts"):
        id: int = field(primary=True)
        author: Varchar(50) = ""  # type: ignore[valid-type]

    table = sa.Table(
        "posts", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True), sa.Column("author", sa.Text)
    )

    async def main() -> None:
        async with posts(database, Post("ann"), entity=Post) as repo:
            assert await repo.all.by_author("ann") == [Post(**{"author": "ann", "id": 1})]
            other = orm.create(repo.sql, entity=table)
            assert (other.source, (await other.one.by_author("ann"))["id"]) == ("posts", 1)
            with pytest.raises(ValueError, match="the entity's table is 'posts'"):
                orm.create(repo.sql, source="post", entity=Post)

    run(main())


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"find_by_autor": True}, "did you mean 'author'"),
        ({"find_by_id": "SELECT 1"}, "True or False"),
        ({"sorce": True}, "there is no 'sorce'; did you mean 'source'"),
        ({"index": "key"}, "the index 'key' is no field"),
        ({"entity": {"id": int, "a": complex}}, "complex"),
        ({"entity": {"id": int, "a": {"name": "x"}}}, "'a' is a type, or a dict"),
        ({"entity": {"id": int, "no name": int}}, "cannot be the name"),
        ({"entity": {"id": int, "class": int}}, "cannot be the name"),
        ({"source": None}, "a table's name is wanted"),
        ({"entity": 5}, "5 is no entity"),
    ],
)
def test_what_cannot_be_created(said: dict[str, Any], message: str) -> None:
    client = connect("sqlite://:memory:")
    with pytest.raises((TypeError, ValueError), match=message):
        orm.create(client, **{"source": "posts", "entity": ENTITY, **said})
