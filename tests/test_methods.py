"""Stubs of repository classes: which do not fit, what is said of them, and which fit."""

# mypy: disable-error-code="valid-type,empty-body"
from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from datetime import date, datetime
from typing import Annotated, Any

import pytest
from test_repository import Count, Post

from eighties.sql.entity import Varchar
from eighties.sql.grammar import BadName
from eighties.sql.repository import BadMethod, Call, Page, Pageable, Repository, derived, query

pytestmark = pytest.mark.pure


def _refused(stub: Callable[..., Any]) -> str:
    with pytest.raises((BadMethod, BadName)) as caught:
        type("Refused", (Repository[Post],), {stub.__name__: stub})
    assert str(caught.value).startswith(f"Refused.{stub.__name__}: ")
    return str(caught.value)


class Stubs:
    """Stubs that do not fit, each with what must be said of it."""

    async def find_by_autor(self, author: str) -> list[Post]:
        """'autor' … did you mean 'author'?"""

    async def find_by_author_contaning(self, author: str) -> list[Post]:
        """'contaning' is no keyword; did you mean 'containing'?"""

    async def something(self) -> list[Post]:
        """'something' is no way to begin"""

    async def find_by_author(self) -> list[Post]:
        """takes 1 argument (author), it has 0: 'author' has none"""

    async def find_by_author_and_likes(self, author: str) -> list[Post]:
        """takes 2 arguments (author, likes), it has 1: 'likes' has none"""

    async def find_by_likes_between(self, likes: int, *, until: int) -> list[Post]:
        """takes 2 arguments"""

    async def find_by_author_or_text(self, author: str, text: str, more: str) -> list[Post]:
        """and 'more' is one more (it may have limit, offset, order_by besides)"""

    async def count_by_author(self, author: str, limit: int) -> int:
        """'limit' is one more"""

    async def find_by_text_and_author(self, author: str, text: str) -> list[Post]:
        """'author' stands where the name takes 'text'"""

    async def find_by_text(self, text: int) -> list[Post]:
        """'text' is compared with Post.text: str is wanted, not int"""

    async def find_by_likes(self, likes: str) -> list[Post]:
        """int is wanted, not str"""

    async def find_by_created_after(self, created: str) -> list[Post]:
        """datetime is wanted, not str"""

    async def read_by_created(self, created: date) -> list[Post]:
        """datetime is wanted, not date"""

    async def find_by_likes_in(self, likes: int) -> list[Post]:
        """list[int] is wanted, not int"""

    async def find_by_author_in(self, authors: str) -> list[Post]:
        """list[str] is wanted, not str"""

    async def find_by_author_not_in(self, authors: list[int]) -> list[Post]:
        """list[str] is wanted"""

    async def find_by_likes_like(self, likes: int) -> list[Post]:
        """Post.likes is int: 'like' is for text"""

    async def find_by_author_true(self) -> list[Post]:
        """Post.author is str: 'true' is for bool"""

    async def find_by_likes_ignore_case(self, likes: int) -> list[Post]:
        """'ignore_case' is for text"""

    async def find_by_likes_all_ignore_case(self, likes: int) -> list[Post]:
        """all_ignore_case: no field of it is text"""

    async def find_by_id(self, id: int) -> list[Count]:
        """not a list of Count"""

    async def find_all(self) -> int:
        """not a one of int"""

    async def find_by(self) -> None:
        """'find' gives Post"""

    async def count_all(self) -> bool:
        """'count' gives int"""

    async def exists_by_id(self, id: int) -> int:
        """'exists' gives bool"""

    async def delete_by_id(self, id: int) -> Post:
        """'delete' gives int or None"""

    async def stream_all(self) -> list[Post]:
        """'stream' gives AsyncIterator[Post]"""

    async def find_first3_by_author(self, author: str) -> Page[Post]:
        """a Page has its own limit"""

    async def count_distinct_first_by_id(self, id: int) -> int:
        """first and top do not go"""

    async def find_by_author_is(self, *author: str) -> list[Post]:
        """named one by one"""

    async def read_by_author(self, author: str):  # type: ignore[no-untyped-def]
        """must say what it gives"""

    async def get_by_author(self, author: Nowhere) -> list[Post]:  # type: ignore[name-defined]  # noqa: F821
        """names what is not known here"""

    @query("SELECT * FROM posts WHERE author = :autor")
    async def by_hand(self, author: str) -> list[Post]:
        """the query has :autor, and no parameter is it; is it 'author'?"""

    @query("SELECT * FROM posts")
    async def by_hand_too(self, author: str) -> list[Post]:
        """the query has no :author"""

    @query("SELECT * FROM posts")
    async def by_hand_page(self) -> Page[Post]:
        """a Page needs a derived query"""

    @query("SELECT * FROM posts")
    async def by_hand_complex(self) -> list[complex]:
        """no row can become"""

    @derived("find_by_autor")
    async def other(self, author: str) -> list[Post]:
        """did you mean 'author'?"""


@pytest.mark.parametrize("name", [name for name in vars(Stubs) if not name.startswith("__")])
def test_what_does_not_fit_raises_when_the_class_is_made(name: str) -> None:
    stub = vars(Stubs)[name]
    said = _refused(stub)
    for part in (stub.__doc__ or "").split(" … "):
        assert part in said


def test_annotations_that_fit() -> None:
    class Fits(Repository[Post]):
        async def find_by_author(self, author: Varchar(50)) -> list[Post]: ...
        async def read_by_author(self, author: Annotated[str, "x"] | None) -> Sequence[Post]: ...
        async def get_by_author(self, author: Any) -> list[Any]: ...
        async def search_by_author(self, author: object) -> Iterable[Post]: ...
        async def query_by_author(self, author) -> list[Post]: ...  # type: ignore[no-untyped-def]
        async def find_by_created(self, created: datetime | None) -> Post | None: ...
        async def find_by_likes_in(self, likes: set[int]) -> list[Post]: ...
        async def find_by_likes_not_in(self, likes: tuple[int, ...]) -> list[Post]: ...
        def read_by_likes(self, likes: int) -> Awaitable[list[Post]]: ...
        def get_by_likes(self, likes: bool) -> Coroutine[Any, Any, list[Post]]: ...
        def query_by_likes(self, likes: int) -> Call[list[Post]]: ...
        async def find_page_by_likes(self, likes: int, pageable: Pageable) -> Page[Post]: ...

    assert Fits.find_by_author.__name__ == "find_by_author"
    assert Fits.find_by_author.__doc__ is None


@pytest.mark.parametrize("decorator", [query, derived])
def test_decorators_need_their_text(decorator: Any) -> None:
    async def stub(self: object) -> int: ...

    with pytest.raises(TypeError, match="needs a text: @"):
        decorator(stub)
