"""Every row of the grammar of derived queries, against both databases, compared with SQL by hand."""

# mypy: disable-error-code="empty-body"
from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
from database import run
from grammar_table import LINES, THINGS, Color, Line, Thing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eighties.sql import connect
from eighties.sql.entity import Entity, Varchar, field, model_of
from eighties.sql.grammar import OPERATORS, parse
from eighties.sql.repository import NoRow, Page, Pageable, Repository, TooManyRows

pytestmark = pytest.mark.pure


def repository(*names: str, gives: Any = list[Thing], of: Any = Thing) -> Any:
    """A repository class with those methods, as if they were written down."""
    namespace: dict[str, Any] = {}
    for name in names:
        count = parse(name, model_of(of).columns).arguments
        parameters = "".join(f", argument{i}" for i in range(count))
        code: dict[str, Any] = {}
        exec(f"async def {name}(self{parameters}): ...", code)
        namespace[name] = code[name]
        namespace[name].__annotations__ = {"return": gives}
    return type("Made", (Repository[of],), namespace)


async def filled(url: str) -> Any:
    """A client of a database with the things."""
    client = connect(url)
    things = Repository[Thing](client)
    await things.create_table()
    await things.insert(*[Thing(**{**vars(thing), "id": place}) for place, thing in enumerate(THINGS, 1)])
    return client


async def by_hand(client: Any, line: Line) -> list[int]:
    values = line.args if line.values is None else line.values
    return [row["id"] for row in await client.select(f"SELECT id FROM things {line.where}", *values)]


def test_every_row_of_the_grammar(database: str) -> None:
    async def main() -> list[str]:
        client = await filled(database)
        wrong = []
        try:
            things = repository(*{line.name for line in LINES})(client)
            for line in LINES:
                found = await getattr(things, line.name)(*line.args)
                ids, wanted = [thing.id for thing in found], await by_hand(client, line)
                if "ORDER BY" not in line.where:
                    ids, wanted = sorted(ids), sorted(wanted)
                if ids != wanted:
                    wrong.append(f"{line.name}{line.args}: {ids}, by hand {wanted}")
                by_id = dict(enumerate(THINGS, 1))
                for thing in found:
                    assert vars(thing) == {**vars(by_id[thing.id]), "id": thing.id}
        finally:
            await client.close()
        return wrong

    assert run(main()) == []


def test_the_table_has_every_keyword() -> None:
    fields = model_of(Thing).columns
    phrases = [phrase for _, some in OPERATORS.values() for phrase in some]
    used = " ".join(line.name for line in LINES)
    assert [phrase for phrase in phrases if f"_{phrase}" not in used] == []
    assert {one.operator for line in LINES for one in parse(line.name, fields).conditions} == set(OPERATORS)


def test_count_exists_delete(database: str) -> None:
    lines = [line for line in LINES if re.match("find_by_.", line.name) and "ORDER BY" not in line.where]

    async def main() -> None:
        client = await filled(database)
        try:
            names = sorted({line.name.removeprefix("find_") for line in lines})
            counts = repository(*[f"count_{name}" for name in names], gives=int)(client)
            found = repository(*[f"exists_{name}" for name in names], gives=bool)(client)
            gone = repository(*[f"{verb}_{name}" for name in names for verb in ("delete", "remove")], gives=int)(client)
            for line in lines:
                name, wanted = line.name.removeprefix("find_"), len(await by_hand(client, line))
                assert await getattr(counts, f"count_{name}")(*line.args) == wanted, line
                assert await getattr(found, f"exists_{name}")(*line.args) is (wanted > 0), line
                for verb in ("delete", "remove"):
                    with pytest.raises(_Undo):
                        async with client.transaction():
                            assert await getattr(gone, f"{verb}_{name}")(*line.args) == wanted, line
                            assert await by_hand(client, line) == []
                            raise _Undo
        finally:
            await client.close()

    run(main())


class _Undo(Exception):
    pass


def test_what_the_annotation_says(database: str) -> None:
    class Things(Repository[Thing]):
        async def find_by_name(self, name: str) -> Thing: ...
        async def get_by_name(self, name: str) -> Thing | None: ...
        async def find_first_by_name_order_by_id(self, name: str) -> Thing: ...
        async def read_first_by_name_order_by_id_desc(self, name: str) -> Thing | None: ...
        def stream_by_number_greater_than_order_by_id(self, number: int) -> AsyncIterator[Thing]: ...
        async def stream_by_name(self, name: str) -> AsyncIterator[Thing]: ...
        async def count_distinct_by_name(self, name: str) -> int: ...
        async def delete_by_name(self, name: str) -> None: ...
        async def delete_first2_by_order_by_id_desc(self) -> int: ...
        async def find_by_active_true_order_by_id(self, *, page: int = 0, size: int = 2) -> Page[Thing]: ...
        async def get_by_active_true_order_by_id(self, pageable: Pageable) -> Page[Thing]: ...

    async def main() -> None:
        client = await filled(database)
        things = Things(client)
        try:
            assert (await things.find_by_name("bob")).id == 3
            with pytest.raises(NoRow, match=r"Things\.find_by_name"):
                await things.find_by_name("nobody")
            with pytest.raises(TooManyRows, match=r"Things\.find_by_name"):
                await things.find_by_name("ann")
            assert await things.get_by_name("nobody") is None
            with pytest.raises(TooManyRows):
                await things.get_by_name("ann")
            assert (await things.find_first_by_name_order_by_id("ann")).id == 1
            last = await things.read_first_by_name_order_by_id_desc("ann")
            assert last is not None and last.id == 7
            assert [one.id async for one in things.stream_by_number_greater_than_order_by_id(1)] == [2, 5, 6]
            assert {one.id async for one in await things.stream_by_name("bob")} == {3}
            assert await things.count_distinct_by_name("bob") == 1
            page = await things.find_by_active_true_order_by_id()
            assert ([one.id for one in page], page.total, page.pages, page.has_next) == ([1, 3], 6, 3, True)
            page = await things.find_by_active_true_order_by_id(page=2)
            assert ([one.id for one in page], page.total, page.has_next, page.has_previous) == ([6, 7], 6, False, True)
            page = await things.find_by_active_true_order_by_id(page=9)
            assert ([one.id for one in page], page.total) == ([], 6)
            page = await things.get_by_active_true_order_by_id(Pageable(0, 4, "-id"))
            assert ([one.id for one in page], page.total) == ([7, 6, 5, 4], 6)
            assert await things.delete_first2_by_order_by_id_desc() == 2
            delete: Any = things.delete_by_name
            assert await delete("bob") is None
            assert [one.id for one in await things.find_all(order_by="id")] == [1, 2, 4, 5]
        finally:
            await client.close()

    run(main())


class Fact(Entity, source="facts"):
    id: int = field(primary=True)
    text: Varchar(50) | None  # type: ignore[valid-type]
    number: int | None
    flag: bool


TEXTS = st.none() | st.text(st.sampled_from("aB%_!\\'\"ø🎸 \n"), max_size=4)
NUMBERS = st.none() | st.integers(-3, 3) | st.sampled_from([2**63 - 1, -(2**63) + 1])
FACTS = st.lists(st.builds(Fact, TEXTS, NUMBERS, st.booleans()), max_size=8)


# What each keyword means to Python. None is SQL's unknown: the row is not found, and not found by the contrary either.
TESTS: dict[str, Any] = {
    "number": lambda v, a: (v is None) if a is None else (None if v is None else v == a),
    "number_not": lambda v, a: (v is not None) if a is None else (None if v is None else v != a),
    "number_less_than": lambda v, a: None if v is None else v < a,
    "number_greater_than_equal": lambda v, a: None if v is None else v >= a,
    "number_is_null": lambda v: v is None,
    "number_in": lambda v, a: v in a,
    "number_not_in": lambda v, a: not a or (None if v is None else v not in a),
    "number_between": lambda v, a, b: None if v is None else a <= v <= b,
    "text_containing": lambda v, a: None if v is None else a.lower() in v.lower(),
    "text_not_containing": lambda v, a: None if v is None else a.lower() not in v.lower(),
    "text_starting_with": lambda v, a: None if v is None else v.lower().startswith(a.lower()),
    "text_ending_with": lambda v, a: None if v is None else v.lower().endswith(a.lower()),
    "flag_true": lambda v: v,
    "flag": lambda v, a: v is a,
}


@st.composite
def predicates(draw: Any) -> tuple[str, list[Any], Any]:
    """A predicate's words, its arguments, and the same in Python."""
    some_text, some_number = TEXTS.filter(lambda text: text is not None), st.integers(-3, 3)
    groups: list[Any] = []
    words: list[str] = []
    args: list[Any] = []
    for _ in range(draw(st.integers(1, 3))):
        group = []
        for _ in range(draw(st.integers(1, 2))):
            name = draw(st.sampled_from(sorted(TESTS)))
            test, given_to = TESTS[name], name.partition("_")[0]
            if name.endswith("_in"):
                mine = [draw(st.lists(some_number, max_size=3))]
            elif given_to == "number":
                values: Any = NUMBERS if name in ("number", "number_not") else some_number
                mine = [draw(values) for _ in range(test.__code__.co_argcount - 1)]
            else:
                values = st.booleans() if given_to == "flag" else some_text
                mine = [draw(values) for _ in range(test.__code__.co_argcount - 1)]
            group.append((given_to, test, mine))
            words.append(("" if not words else "and_" if len(group) > 1 else "or_") + name)
            args += mine
        groups.append(group)

    def holds(fact: Fact) -> bool:
        return any(all(test(getattr(fact, name), *mine) for name, test, mine in group) for group in groups)

    return "_".join(words), args, holds


SETTINGS = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@given(FACTS, st.lists(predicates(), min_size=1, max_size=6))
@SETTINGS
def test_random_predicates_agree_with_python(database: str, facts: list[Fact], queries: list[Any]) -> None:
    async def main() -> None:
        client = connect(database)
        try:
            known: Any = Repository[Fact](client)
            await known.create_table(if_missing=True)
            await known.delete_all()
            await known.insert(*[Fact(fact.text, fact.number, fact.flag) for fact in facts])
            rows = await known.find_all(order_by="id")
            if client.dialect == "sqlite":
                assert [(r.text, r.number, r.flag) for r in rows] == [(f.text, f.number, f.flag) for f in facts]
            for words, args, holds in queries:
                name = f"find_by_{words}_order_by_id"
                found = await getattr(repository(name, gives=list[Fact], of=Fact)(client), name)(*args)
                assert found == [row for row in rows if holds(row)], (name, args)
        finally:
            await client.close()

    run(main())


def test_enum_in_rows() -> None:
    assert THINGS[2].color is Color.GREEN
