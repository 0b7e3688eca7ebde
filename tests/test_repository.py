"""Repositories: what every one can do, stubs made into methods, SQL by hand, and what is refused when."""

# mypy: disable-error-code="valid-type,empty-body"
from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Generic, TypeVar

import pytest
from database import run

from eighties.sql import Duplicate, connect
from eighties.sql.entity import Entity, Varchar, field
from eighties.sql.repository import (
    Call,
    NoRow,
    Page,
    Pageable,
    Repository,
    TooManyRows,
    derived,
    query,
)
from eighties.sql.statements import MAX_SHAPES
from eighties.sql.writes import MAX_BYTES, MAX_PARAMETERS, MAX_ROWS

pytestmark = pytest.mark.pure


class Post(Entity, source="posts"):
    id: int = field(primary=True)
    author: Varchar(50)
    text: str = ""
    created: datetime | None = None
    likes: int = 0


class Count(Entity):
    """What a query counts: no table."""

    author: str
    posts: int


class Posts(Repository[Post]):
    async def find_by_author(self, author: str) -> list[Post]: ...

    async def find_by_author_and_likes(self, author: str, likes: int = 0) -> list[Post]: ...

    async def find_by_author_in(self, authors: Sequence[str]) -> list[Post]: ...

    async def find_by_text_containing_order_by_id(self, text: str, *, limit: int | None = None) -> list[Post]:
        """With a docstring."""
        ...

    async def find_by_likes(self, likes: int, limit: int = 1) -> list[Post]:
        raise NotImplementedError

    async def get_by_author(self, author: str) -> Post | None: ...

    @derived("find_first_by_author_order_by_id_desc")
    async def latest(self, author: str) -> Post | None: ...

    @query("SELECT author, COUNT(*) AS posts FROM posts WHERE author IN :authors GROUP BY author ORDER BY author")
    async def counts(self, authors: list[str]) -> list[Count]: ...

    @query("SELECT * FROM posts WHERE author NOT IN (:authors) AND text <> ':text %s ? %' ORDER BY id -- :no")
    async def others(self, authors: Iterable[str]) -> list[Post]: ...

    @query("SELECT text, id, author, likes, created FROM posts WHERE id = :id OR id = :id")
    async def by_hand(self, id: int) -> Post: ...

    @query("SELECT MAX(likes) FROM posts")
    async def most(self) -> int | None: ...

    @query("SELECT created FROM posts WHERE created IS NOT NULL ORDER BY id")
    async def moments(self) -> list[datetime]: ...

    @query("UPDATE posts SET likes = likes + :by WHERE author = :author")
    async def like(self, author: str, by: int = 1) -> int: ...

    @query("DELETE FROM posts WHERE author = :author")
    async def forget(self, author: str) -> None: ...

    @query("SELECT author, likes % 2 AS odd FROM posts WHERE likes > :likes ORDER BY id")
    def walk(self, likes: int) -> AsyncIterator[dict[str, Any]]: ...

    @query("SELECT author, likes FROM posts WHERE author LIKE 'a%' AND id > :id ORDER BY id")
    async def pairs(self, id: int) -> list[tuple[str, int]]: ...

    async def shout(self, author: str) -> list[str]:
        """A method of the program's own."""
        return [post.text.upper() for post in await self.find_by_author(author)]


@asynccontextmanager
async def posts(url: str, *some: Post) -> AsyncIterator[Any]:
    client = connect(url)
    try:
        repository = Posts(client)
        await repository.create_table(if_missing=True)
        await repository.insert(*some)
        yield repository
    finally:
        await client.close()


def test_what_every_repository_can_do(database: str) -> None:
    async def main() -> None:
        async with posts(database) as all_:
            one, two, three = Post("ann", "1"), Post("bob", "2"), Post("ann", "3")
            assert await all_.insert() == 0
            assert await all_.insert(one, two, three) == 3
            assert (one.id, two.id, three.id) == (1, 2, 3)
            assert await all_.find_by_id(2) == two
            assert await all_.find_by_id(9) is None
            assert (await all_.exists_by_id(2), await all_.exists_by_id(9)) == (True, False)
            assert (await all_.count(), await all_.find_all(order_by="id")) == (3, [one, two, three])
            assert await all_.find_all(order_by=["-author", "id desc"], limit=2) == [two, three]
            assert await all_.find_all(order_by="id", offset=1) == [two, three]
            assert await all_.find_all(limit=0) == []
            assert await all_.update(two, text="x", likes=5) == 1
            assert (two.text, (await all_.find_by_id(2)).text) == ("x", "x")
            assert await all_.update(two, {"text": "y"}) == 1
            assert await all_.update(two, {"text": "y"}) == 1, "rows that are there count, changed or not"
            assert await all_.update(two, {}) == 0
            two.likes = 7
            assert await all_.update(two) == 1
            assert await all_.find_by_id(2) == two
            assert await all_.delete(two) == 1
            assert (await all_.delete(two), await all_.update(two, text="z")) == (0, 0)
            assert await all_.delete_by_id(1) == 1
            assert await all_.delete_all() == 1

    run(main())


def test_save(database: str) -> None:
    async def main() -> None:
        async with posts(database) as all_:
            post = await all_.save(Post("ann"))
            assert post.id == 1
            post.text = "new"
            assert await all_.save(post) is post
            assert await all_.save(post) is post
            assert (await all_.find_by_id(1)).text == "new"
            keyed: Any = Post
            await all_.save(keyed("bob", id=77))
            assert (await all_.find_by_id(77)).author == "bob"
            assert (await all_.save(Post("next"))).id == 78

    run(main())


def test_save_writes_over_no_other_row(database: str) -> None:
    class Named(Entity, source="named"):
        id: int = field(primary=True, default=None, kw_only=True)
        name: Varchar(10) = field(unique=True)
        text: str = ""

    async def main() -> None:
        client = connect(database)
        rows = Repository[Named](client)
        try:
            await rows.create_table()
            await rows.insert(Named("a", "1"))
            with pytest.raises(Duplicate):
                await rows.save(Named("a", "2", id=5))
            assert await rows.find_all() == [Named("a", "1", id=1)]
            assert await rows.replace(Named("a", "3", id=5)) >= 1
            assert await rows.find_all() == [Named("a", "3", id=5)]
        finally:
            await client.close()

    run(main())


def test_an_insert_of_many_is_all_or_nothing(database: str) -> None:
    keyed: Any = Post

    async def main() -> None:
        async with posts(database, keyed("taken", id=1)) as all_:
            many = [Post(f"p{place}", "x" * 20) for place in range(2 * MAX_ROWS + 5)]
            with pytest.raises(Duplicate):
                await all_.insert(*many, keyed("again", id=1))
            assert await all_.count() == 1
            assert {post.id for post in many} == {None}
            assert await all_.insert(*many, keyed("given", id=999_999)) == len(many) + 1
            ids = [post.id for post in many]
            assert ids == sorted(set(ids))
            for place in (0, MAX_ROWS - 1, MAX_ROWS, len(many) - 1):
                assert (await all_.find_by_id(many[place].id)).author == f"p{place}"
            large = [Post("large", "y" * (MAX_BYTES // 3)) for _ in range(5)]
            await all_.insert(*large)
            assert [len(post.text) for post in await all_.find_by_author("large")] == [MAX_BYTES // 3] * 5

    assert MAX_PARAMETERS <= 32_766
    run(main())


def test_keys_of_a_cluster(mysql: str) -> None:
    async def main() -> None:
        client = connect(mysql + "?pool=1")
        try:
            await client.exec("SET SESSION auto_increment_increment = 3")
            rows = Repository[Post](client)
            await rows.create_table()
            some = [Post(str(number)) for number in range(4)]
            await rows.insert(*some)
            assert {post.id: post.author for post in await rows.find_all()} == {post.id: post.author for post in some}
        finally:
            await client.close()

    run(main())


def test_methods_take_arguments_as_functions_do(database: str) -> None:
    async def main() -> None:
        async with posts(database, Post("ann", likes=1), Post("ann"), Post("bob", "100%")) as all_:
            assert len(await all_.find_by_author("ann")) == len(await all_.find_by_author(author="ann")) == 2
            assert len(await all_.find_by_author_and_likes("ann")) == 1, "the default of the stub"
            assert len(await all_.find_by_author_and_likes("ann", likes=1)) == 1
            assert len(await all_.find_by_likes(0)) == 1, "the default limit of the stub"
            assert len(await all_.find_by_likes(0, 5)) == len(await all_.find_by_likes(0, limit=None)) == 2
            assert [post.id for post in await all_.find_by_author("ann", order_by="-id", limit=1)] == [2]
            assert [post.id for post in await all_.find_by_author("ann", order_by="id", offset=1)] == [2]
            assert [post.id for post in await all_.find_by_text_containing_order_by_id("%", limit=5)] == [3]
            assert await all_.shout("bob") == ["100%"]
            wrong: list[tuple[tuple[str, ...], dict[str, Any], str]] = [
                ((), {}, "needs 'author'"),
                (("a", "b"), {}, "takes 1 argument, 2 were given"),
                (("a",), {"author": "b"}, "two values for 'author'"),
                (("a",), {"limits": 1}, "no 'limits'; did you mean 'limit'"),
                (("a",), {"page": 1}, "no 'page'"),
            ]
            for args, keywords, message in wrong:
                with pytest.raises(TypeError, match=f"Posts.find_by_author.. .*{message}"):
                    all_.find_by_author(*args, **keywords)

    run(main())


def test_no_text_of_a_call_gets_into_sql(database: str) -> None:
    async def main() -> None:
        async with posts(database, Post("ann")) as all_:
            for order in (
                "id; DROP TABLE posts",
                "id desc, 1",
                "nothing",
                "(SELECT 1)",
                "id DESC --",
                "--id",
                "",
                "-id asc",
                "id,author,-id",
                ",".join(["id"] * 400_000),
            ):
                with pytest.raises(ValueError, match="order_by|has no field"):
                    all_.find_all(order_by=order)
            with pytest.raises(ValueError, match="did you mean 'author'"):
                all_.find_by_author("ann", order_by="autor")
            for value in (3, {"id": 1}, [3], b"id"):
                with pytest.raises((TypeError, ValueError)):
                    all_.find_all(order_by=value)
            for name in ("limit", "offset"):
                for wrong in ("1", 1.5, True, -1, 2**63, [1]):
                    with pytest.raises((TypeError, ValueError), match=name):
                        all_.find_all(**{name: wrong})
            assert await all_.count() == 1

    run(main())


HOSTILE = [
    "'; DROP TABLE posts; --",
    '"', "'", "`", "\\", "\\'", "%", "_", "%s", "%(a)s", ":author", "?", "!", "!%", "\\%", "\\_",
    "\n\r\t", "é", "🎸", "\u202e", "' OR '1'='1", "\x1a", "{}", "$1", "\ufeff", "ß", "İ",
]  # fmt: skip


def test_hostile_values(database: str) -> None:
    texts = [*HOSTILE, "plain"]

    async def main() -> None:
        async with posts(database, *[Post(f"{text}x", text) for text in texts]) as all_:
            assert [post.text for post in await all_.find_all(order_by="id")] == texts
            for text in HOSTILE:
                assert text in [post.text for post in await all_.find_by_author(f"{text}x")]
                found = [post.text for post in await all_.find_by_text_containing_order_by_id(text)]
                if text.isascii():  # collations know equals among others
                    assert found == [other for other in texts if text in other]
                assert text in found
                assert f"{text}x" in [post.author for post in await all_.find_by_author_in([f"{text}x"])]
                assert {one.author for one in await all_.counts([f"{text}x"])} == {f"{text}x"}
                assert await all_.like(f"{text}x") >= 1
            assert await all_.count() == len(texts)

    run(main())


def test_nul_and_surrogates(database: str) -> None:
    async def main() -> None:
        async with posts(database, Post("a\0b", "t\0")) as all_:
            [post] = await all_.find_by_author("a\0b")
            assert post.text == "t\0"
            assert await all_.find_by_author("a") == []
            if all_.client.dialect == "mysql":
                assert len(await all_.find_by_text_containing_order_by_id("\0")) == 1
            else:
                with pytest.raises(ValueError, match="NUL"):
                    await all_.find_by_text_containing_order_by_id("\0")
            with pytest.raises(ValueError):
                await all_.find_by_author("\ud800")
            assert await all_.count() == 1

    run(main())


def test_arguments_of_another_type_are_refused(database: str) -> None:
    async def main() -> None:
        async with posts(database, Post("ann")) as all_:
            for wrong in (0, 1.5, True, b"ann", ["ann"], {"author": 1}, datetime.now()):
                with pytest.raises(TypeError, match="Post.author: str is wanted"):
                    await all_.find_by_author(wrong)
            for no_list in ("ann", 5, None, b"x", {"a": 1}):
                with pytest.raises(TypeError, match="Post.author: a list is wanted"):
                    await all_.find_by_author_in(no_list)
            with pytest.raises(TypeError, match="None"):
                await all_.find_by_author_in([None])
            with pytest.raises(ValueError, match="64 bits"):
                await all_.find_by_id(2**64)
            with pytest.raises(TypeError, match="Posts holds Post, not dict"):
                all_.insert({"author": "x"})
            with pytest.raises(ValueError, match="never saved|never None"):
                await all_.delete(Post("x"))
            with pytest.raises(ValueError, match="Post has no field 'autor'; did you mean 'author'"):
                await all_.update(Post("x"), autor="y")

    run(main())


def test_sql_by_hand(database: str) -> None:
    moment = datetime(2024, 1, 1, 12, 30, 0, 5)

    async def main() -> None:
        some = [Post("ann", likes=3, created=moment), Post("bob"), Post("ann", likes=4)]
        async with posts(database, *some) as all_:
            assert await all_.counts(["ann", "bob", "x"]) == [Count("ann", 2), Count("bob", 1)]
            assert await all_.counts([]) == []
            assert [post.id for post in await all_.others({"ann"})] == [2]
            assert [post.id for post in await all_.others([])] == [1, 2, 3]
            assert await all_.by_hand(1) == some[0]
            with pytest.raises(NoRow, match=r"Posts\.by_hand"):
                await all_.by_hand(9)
            assert (await all_.most(), await all_.moments()) == (4, [moment])
            assert await all_.like("ann") == 2
            assert await all_.like(by=10, author="ann") == 2
            assert [row async for row in all_.walk(0)] == [{"author": "ann", "odd": 0}, {"author": "ann", "odd": 1}]
            assert await all_.pairs(0) == [("ann", 14), ("ann", 15)]
            assert await all_.forget("ann") is None
            assert (await all_.count(), await all_.most()) == (1, 0)
            with pytest.raises(TypeError, match="needs 'id'"):
                all_.by_hand()

    run(main())


def test_derived_under_another_name(database: str) -> None:
    async def main() -> None:
        async with posts(database, Post("ann"), Post("ann")) as all_:
            latest = await all_.latest("ann")
            assert latest is not None
            assert latest.id == 2
            with pytest.raises(TooManyRows, match=r"Posts\.get_by_author"):
                await all_.get_by_author("ann")

    run(main())


def test_calls_are_coroutines_and_promises(database: str) -> None:
    async def main() -> None:
        from eighties import aio

        async with posts(database, Post("ann"), Post("bob")) as all_:
            unused = all_.count()
            assert isinstance(unused, Call)
            assert asyncio.iscoroutine(unused)
            unused.close()
            assert await asyncio.create_task(all_.count()) == 2
            both: Any = await asyncio.gather(all_.count(), all_.find_by_author("x"))
            assert both == [2, []]
            assert await aio.gather(all_.count(), all_.exists_by_id(1)) == (2, True)
            assert await asyncio.wait_for(all_.count(), 5) == 2
            done = asyncio.get_running_loop().create_future()
            all_.count()(done.set_result)
            assert await done == 2
            failed = asyncio.get_running_loop().create_future()
            all_.get_by_author(5)(None, failed.set_result)
            assert isinstance(await failed, TypeError)

    run(main())


def test_within_a_transaction(database: str) -> None:
    async def main() -> None:
        async with posts(database, Post("ann")) as all_:
            with pytest.raises(ZeroDivisionError):
                async with all_.client.transaction():
                    await all_.insert(Post("bob"), Post("eve"))
                    assert await all_.count() == 3
                    raise ZeroDivisionError
            assert await all_.count() == 1

    run(main())


def test_texts_are_kept_within_bounds(database: str) -> None:
    async def main() -> None:
        async with posts(database, *[Post(str(number)) for number in range(300)]) as all_:
            for count in range(0, 300, 2):
                assert len(await all_.find_by_author_in([str(number) for number in range(count)])) == count

    run(main())
    assert MAX_SHAPES < 150


E = TypeVar("E")


class Base(Repository[E], Generic[E]):
    async def find_first_by_order_by_id(self) -> E | None: ...

    async def count_by_author(self, author: str) -> int: ...


class Derived(Base[Post]):
    async def count_by_author_and_likes(self, author: str, likes: int) -> int: ...


class Further(Derived):
    async def count_by_likes(self, likes: int) -> int: ...


def test_repositories_have_bases(database: str) -> None:
    async def main() -> None:
        async with posts(database, Post("ann"), Post("bob")) as all_:
            further = Further(all_.client)
            assert await further.count_by_likes(0) == 2
            assert await further.count_by_author("ann") == await further.count_by_author_and_likes("ann", 0) == 1
            first = await further.find_first_by_order_by_id()
            assert first is not None
            assert first.author == "ann"
            assert Repository[Post] is Repository[Post]
            assert await Repository[Post](all_.client).count() == 2

    run(main())
    with pytest.raises(TypeError, match="Base has no entity"):
        Base(connect("sqlite://:memory:"))
    with pytest.raises(TypeError, match="has its entity already"):
        Posts[Post]  # type: ignore[misc]


def test_a_reloaded_entity_goes() -> None:
    class Old(Entity, source="old"):
        id: int = field(primary=True)

    class Olds(Repository[Old]):
        async def count_by_id(self, id: int) -> int: ...

    gone: list[weakref.ref[Any]] = [weakref.ref(Old), weakref.ref(Olds)]
    del Old, Olds
    gc.collect()
    assert [one() for one in gone] == [None, None]


def test_pageable() -> None:
    for page, size in ((-1, 1), (0, 0), (2**31, 1), (0, -5)):
        with pytest.raises(ValueError):
            Pageable(page, size)
    with pytest.raises(TypeError):
        Pageable("1")  # type: ignore[arg-type]
    one = Page([1, 2], 1, 2, 5)
    assert (list(one), len(one), bool(one), one.pages) == ([1, 2], 2, True, 3)
    assert not Page([], 0, 2, 0)
