"""How programs use entities and repositories: checked by mypy --strict as `usage.py` is, never run.

Stubs of methods end in `raise NotImplementedError`, or in `...` where this comment is in the file: mypy takes an empty
body for a mistake (pyright does not).
"""

# mypy: disable-error-code="empty-body"
from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Any, assert_type
from uuid import UUID, uuid4

from eighties.sql import Entity, Page, Repository, SQLite, Varchar, connect, derived, field, orm, query


class Post(Entity, source="posts"):
    id: int = field(primary=True)
    author: Annotated[str, Varchar(50)]
    text: str
    created: datetime | None = None
    likes: int = field(default=0, index=True)


class Session(Entity, source="sessions"):
    token: UUID = field(primary=True, default_factory=uuid4, kw_only=True)
    user: Annotated[str, Varchar(20)] = field(unique=True)


class Keyed(Entity, source="keyed"):
    name: Annotated[str, Varchar(20)] = field(primary=True, auto=False)
    value: int


class Optional(Entity, source="optional"):
    id: int = field(primary=True, default=None, kw_only=True)
    text: str


class Called(Entity, source="called"):
    """`Varchar(50)` alone works when the program runs; to a type checker it is a call where a type must be, and Any."""

    id: int = field(primary=True)
    author: Varchar(50)  # type: ignore[valid-type]
    text: str


# The constructor: what is missing, too much, or of the wrong type is found.
post = Post("ann", "text")
Post(author="ann", text="text", created=None, likes=3)
Post("ann")  # type: ignore[call-arg]
Post("ann", 5)  # type: ignore[arg-type]
Post("ann", "text", autor="x")  # type: ignore[call-arg]
Post("ann", "text", id=5)  # type: ignore[call-arg]
Optional("text", id=5)
Optional("text")
Session(user="x")
Keyed("a", 1)
Keyed(value=1)  # type: ignore[call-arg]
Called("anything", "text")
field(primary=1)  # type: ignore[call-overload]

assert_type(post.id, int)
assert_type(post.author, str)
assert_type(post.created, datetime | None)
assert_type(Called("a", "b").author, Any)
post.author = 5  # type: ignore[assignment]
print(post.autor)  # type: ignore[attr-defined]


class Posts(Repository[Post]):
    async def find_by_author(self, author: str) -> list[Post]: ...
    async def find_by_id_in(self, ids: list[int], *, limit: int | None = None) -> list[Post]: ...
    async def get_by_author(self, author: str) -> Post | None: ...
    async def count_by_created_after(self, moment: datetime) -> int: ...
    def stream_by_author(self, author: str) -> AsyncIterator[Post]: ...
    async def find_page_by_author(self, author: str, *, page: int = 0, size: int = 20) -> Page[Post]: ...

    async def exists_by_author(self, author: str) -> bool:
        raise NotImplementedError

    @derived("find_first_by_order_by_created_desc")
    async def latest(self) -> Post | None: ...

    @query("SELECT author, COUNT(*) AS n FROM posts WHERE likes > :likes GROUP BY author")
    async def authors(self, likes: int) -> list[dict[str, Any]]: ...


async def use() -> None:
    posts = Posts(connect("sqlite://:memory:"))
    Posts("sqlite://:memory:")  # type: ignore[arg-type]
    assert_type(await posts.find_by_author("ann"), list[Post])
    assert_type(await posts.find_by_id_in([1], limit=5), list[Post])
    assert_type(await posts.get_by_author("ann"), Post | None)
    assert_type(await posts.count_by_created_after(datetime.now()), int)
    assert_type(await posts.exists_by_author("ann"), bool)
    assert_type(await posts.latest(), Post | None)
    assert_type(await posts.authors(3), list[dict[str, Any]])
    page = await posts.find_page_by_author("ann", page=2)
    assert_type(page, Page[Post])
    assert_type(page.items, list[Post])
    assert_type([one.likes for one in page], list[int])
    async for one in posts.stream_by_author("ann"):
        assert_type(one, Post)
    await posts.find_by_author(5)  # type: ignore[arg-type]
    await posts.find_by_autor("ann")  # type: ignore[attr-defined]

    assert_type(await posts.find_all(order_by=["author", "-id"], limit=2), list[Post])
    assert_type(await posts.find_by_id(3), Post | None)
    assert_type(await posts.save(post), Post)
    assert_type(await posts.insert(post, post), int)
    assert_type(await posts.update(post, text="x"), int)
    assert_type(await posts.update(post, {"text": "x"}), int)
    assert_type(await posts.exists_by_id(3), bool)
    assert_type(posts.entity, type[Post])
    await posts.insert(Keyed("a", 1))  # type: ignore[arg-type]
    posts.find_by_id(3)(lambda found: print(found and found.author), print)

    plain = Repository[Post](SQLite())
    assert_type(await plain.find_all(), list[Post])

    repo = orm.create(SQLite(), source="posts", entity={"id": orm.t.int, "author": orm.t.varchar(50)}, find_by_id=True)
    print((await repo.one.by_id(3)).author, await repo.count.by())
