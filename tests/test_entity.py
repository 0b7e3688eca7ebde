"""Entities: their fields, constructors and tables, and how objects are made of rows."""

# mypy: disable-error-code="valid-type,empty-body"
from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from typing import Annotated, Any, ClassVar
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa
from database import run
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from eighties.sql import BadRow, connect
from eighties.sql.entity import Entity, Record, Varchar, field, model_of, record
from eighties.sql.repository import Repository

pytestmark = pytest.mark.pure


class Color(Enum):
    RED = "red"
    BLUE = "blue"


class Size(IntEnum):
    SMALL = 1
    LARGE = 2


class Mood(StrEnum):
    GOOD = "good"


class Post(Entity, source="posts"):
    id: int = field(primary=True)
    author: Varchar(50)
    text: str
    created: datetime | None = None


class Everything(Entity, source="everything"):
    kind: ClassVar[str] = "no field"
    id: int = field(primary=True)
    number: int
    text: str
    short: Varchar(20)
    checked: Annotated[str, Varchar(20)]
    maybe: Varchar(20) | None
    double: float
    flag: bool
    decimal: Decimal
    money: Annotated[Decimal, sa.Numeric(12, 2)]
    blob: bytes
    moment: datetime
    day: date
    hour: time
    uuid: UUID
    mapping: dict[str, Any]
    items: list[int]
    color: Color
    size: Size
    mood: Mood
    nothing: int | None = None


def everything(**more: Any) -> Everything:
    values: dict[str, Any] = {
        "number": -(2**63),
        "text": "a'b\"c\\d%e_f\0g🎸\n",
        "short": "ø" * 20,
        "checked": "🎸" * 20,
        "maybe": None,
        "double": 0.1,
        "flag": True,
        "decimal": Decimal("12345678.901234"),
        "money": Decimal("-0.10"),
        "blob": bytes(range(256)),
        "moment": datetime(2024, 2, 29, 23, 59, 59, 999_999),
        "day": date(1000, 1, 1),
        "hour": time(23, 59, 59, 1),
        "uuid": UUID(int=1),
        "mapping": {"a": [1, None, "🎸"], "%s": {"?": ":x"}},
        "items": [1, 2],
        "color": Color.BLUE,
        "size": Size.LARGE,
        "mood": Mood.GOOD,
    }
    return Everything(**{**values, **more})


def test_constructor() -> None:
    post = Post("ann", "text")
    assert vars(post) == {"id": None, "author": "ann", "text": "text", "created": None}
    assert post == Post(text="text", author="ann")
    assert post != Post("bob", "text")
    assert repr(post) == "Post(id=None, author='ann', text='text', created=None)"
    keyed: Any = Post
    assert keyed("ann", "text", id=3).id == 3
    assert dataclasses.replace(keyed("a", "b", id=3), author="c") == keyed("c", "b", id=3)
    assert dataclasses.asdict(post) == {"id": None, "author": "ann", "text": "text", "created": None}
    with pytest.raises(TypeError):
        keyed("ann")


def test_every_type_there_and_back(database: str) -> None:
    async def main() -> None:
        client = connect(database)
        rows = Repository[Everything](client)
        try:
            await rows.create_table()
            first, second = everything(), everything(decimal=7, double=3, blob=b"", mapping={}, items=[], flag=False)
            assert await rows.insert(first, second) == 2
            one, two = await rows.find_all(order_by="id")
            assert one == first
            for name, value in vars(first).items():
                assert type(getattr(one, name)) is type(value), name
            assert (two.decimal, two.double, two.flag, two.blob) == (Decimal(7), 3.0, False, b"")
            assert (type(two.decimal), type(two.double), type(two.flag)) == (Decimal, float, bool)
            assert (two.mapping, two.items) == ({}, [])
            await client.exec("UPDATE everything SET `nothing` = 5")
            assert {row.nothing for row in await rows.find_all()} == {5}
            await client.exec("UPDATE everything SET color = 'unknown'")
            with pytest.raises(BadRow, match="Everything.color: 'unknown' is not a valid Color"):
                await rows.find_all()
        finally:
            await client.close()

    run(main())


def test_moments_with_a_zone_are_stored_in_utc(database: str) -> None:
    async def main() -> None:
        client = connect(database)
        rows = Repository[Everything](client)
        try:
            await rows.create_table()
            moment = datetime(2024, 1, 1, 1, tzinfo=timezone(timedelta(hours=2)))
            await rows.insert(everything(moment=moment))
            assert (await rows.find_all())[0].moment == datetime(2023, 12, 31, 23)
            assert (await rows.find_all())[0].moment.replace(tzinfo=UTC) == moment
        finally:
            await client.close()

    run(main())


WRONG: list[tuple[str, object, type[Exception]]] = [
    ("number", "1", TypeError),
    ("number", 1.0, TypeError),
    ("number", 2**63, ValueError),
    ("number", None, ValueError),
    ("text", 1, TypeError),
    ("text", b"x", TypeError),
    ("short", "x" * 21, ValueError),
    ("checked", "x" * 21, ValueError),
    ("double", float("nan"), ValueError),
    ("double", float("inf"), ValueError),
    ("double", "1", TypeError),
    ("flag", 1, TypeError),
    ("decimal", 1.5, TypeError),
    ("decimal", Decimal("NaN"), ValueError),
    ("blob", "x", TypeError),
    ("moment", date(2024, 1, 1), TypeError),
    ("day", datetime(2024, 1, 1), TypeError),
    ("hour", "12:00", TypeError),
    ("hour", time(1, tzinfo=UTC), ValueError),
    ("uuid", "x", TypeError),
    ("mapping", "{}", TypeError),
    ("mapping", {"x": float("nan")}, ValueError),
    ("items", {1}, TypeError),
    ("color", "red", TypeError),
    ("size", 1, TypeError),
]


@pytest.mark.parametrize(("name", "value", "error"), WRONG)
def test_what_a_field_cannot_hold_is_refused(name: str, value: object, error: type[Exception]) -> None:
    for dialect in ("sqlite", "mysql"):
        with pytest.raises(error, match=f"Everything.{name}: "):
            model_of(Everything).columns[name].writer(dialect)(value)


def test_names_of_columns_and_indexes(database: str) -> None:
    class Odd(Entity, source="odd names"):
        key: Varchar(10) = field(primary=True, auto=False, name='pri`mary"%key')
        value: int = field(name="select", index=True, default=0)
        other: Varchar(10) = field(unique=True, default="")
        text: str = field(default="", name="a:b ?%s")

    async def main() -> None:
        client = connect(database)
        rows = Repository[Odd](client)
        try:
            await rows.create_table()
            await rows.create_table(if_missing=True)
            with pytest.raises(Exception, match="exists"):
                await rows.create_table()
            await rows.insert(Odd("a", 1, "x", "%s?"), Odd("b", 2, "y"))
            assert await rows.find_all(order_by="-value") == [Odd("b", 2, "y"), Odd("a", 1, "x", "%s?")]
            assert await rows.find_by_id("a") == Odd("a", 1, "x", "%s?")
            with pytest.raises(Exception, match=r"(?i)unique|duplicate"):
                await rows.insert(Odd("c", 3, "x"))
        finally:
            await client.close()

    run(main())


def test_annotations_of_a_function_are_known() -> None:
    class Local(Enum):
        A = "a"

    class Here(Entity, source="here"):
        id: int = field(primary=True)
        local: Local | None
        date: date | None = None  # hides the type's name in the class, not in the annotation

    assert model_of(Here).columns["local"].kind.python is Local
    assert model_of(Here).columns["date"].kind.python is date


def test_annotations_are_those_of_the_namespace_that_runs() -> None:
    # As the loader does when it reloads: `sys.modules` still has the old module, or none of that name.
    code = """
from __future__ import annotations
from eighties.sql import Entity, Repository, field
class Tag(Entity, source="tags"):
    id: int = field(primary=True)
    color: Color
class Tags(Repository[Tag]):
    async def find_by_color(self, color: Color) -> list[Tag]: ...
"""
    for module in (__name__, "no.module"):
        names = {"__name__": module, "Color": Enum("Color", {"A": "a"})}
        exec(code, names)
        assert model_of(names["Tag"]).columns["color"].kind.python is names["Color"]


def test_a_base_without_a_table() -> None:
    class Timed(Entity):
        id: int = field(primary=True)
        created: datetime | None = None

    class Note(Timed, source="notes"):
        text: str = ""

    assert list(model_of(Note).columns) == ["id", "created", "text"]
    assert Note(text="x").id is None
    with pytest.raises(TypeError, match="Timed has no table"):
        model_of(Timed)


def test_post_init_is_called_for_rows() -> None:
    class Counted(Entity, source="counted"):
        id: int = field(primary=True)
        text: str = ""

        def __post_init__(self) -> None:
            self.length = len(self.text)

    [one] = model_of(Counted).reader("sqlite")([(1, "four")])
    assert one.length == 4


def _no_type() -> None:
    class Bad(Entity, source="bad"):
        id: int = field(primary=True)
        what: complex


def _union() -> None:
    class Bad(Entity, source="bad"):
        id: int = field(primary=True)
        what: int | str


def _enum() -> None:
    class Mixed(Enum):
        A = 1
        B = "b"

    class Bad(Entity, source="bad"):
        id: int = field(primary=True)
        what: Mixed


def _key() -> None:
    class Bad(Entity, source="bad"):
        what: UUID = field(primary=True)


def _keys() -> None:
    class Bad(Entity, source="bad"):
        what: int = field(primary=True)
        that: int = field(primary=True)


def _index() -> None:
    class Bad(Entity, source="bad"):
        id: int = field(primary=True)
        what: str = field(unique=True)


def _text_key() -> None:
    class Bad(Entity, source="bad"):
        what: str = field(primary=True, auto=False)


def _length() -> None:
    class Bad(Entity, source="bad"):
        id: int = field(primary=True)
        what: Varchar(0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_no_type, "Bad.what: .*complex"),
        (_union, "Bad.what: "),
        (_enum, "Bad.what: Mixed: .*all str or all int"),
        (_key, "Bad.what: no database gives this primary key: say `auto=False`"),
        (_keys, "Bad.what: no database gives"),
        (_index, "Bad.what: an index of text needs"),
        (_text_key, "Bad.what: an index of text needs"),
        (_length, "1 to 16383"),
    ],
)
def test_classes_that_cannot_be_made(make: Callable[[], None], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        make()


def test_keys_of_the_program(database: str) -> None:
    class Session(Entity, source="sessions"):
        token: UUID = field(primary=True, default_factory=uuid4)
        user: int = 0

    class Member(Entity, source="members"):
        group: int = field(primary=True, auto=False)
        name: Varchar(20) = field(primary=True, auto=False)
        since: int = 0

    async def main() -> None:
        client = connect(database)
        sessions, members = Repository[Session](client), Repository[Member](client)
        try:
            await sessions.create_table()
            await members.create_table()
            session = Session(user=3)
            await sessions.insert(session)
            assert await sessions.find_by_id(session.token) == session
            await members.insert(Member(1, "a", 5), Member(1, "b", 6))
            assert await members.find_by_id(1, "b") == Member(1, "b", 6)
            assert await members.find_by_id((1, "a")) == Member(1, "a", 5)
            await members.save(Member(1, "a", 7))
            await members.save(Member(2, "a", 8))
            assert [one.since for one in await members.find_all(order_by="since")] == [6, 7, 8]
            assert await members.delete(Member(1, "b")) == 1
            assert await members.exists_by_id(1, "b") is False
            with pytest.raises(TypeError, match="primary key of Member is"):
                members.find_by_id(1)
        finally:
            await client.close()

    run(main())


metadata = sa.MetaData()
tags = sa.Table(
    "tags",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("label", sa.String(20), nullable=False, unique=True),
    sa.Column("from", sa.DateTime),
    sa.Column("uuid", sa.Uuid),
    sa.Column("data", sa.JSON),
    sa.Column("color", sa.Enum(Color)),
    sa.Column("on", sa.Boolean),
    sa.Column("given", sa.Integer, nullable=False, server_default="7"),
)


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "users"
    last: Mapped[str] = mapped_column(sa.String(30), default="", sort_order=9)
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column("full_name", sa.String(30))
    seen: Mapped[datetime | None]


def test_sqlalchemys_tables_are_entities(database: str) -> None:
    class Tags(Repository[Any], entity=tags):
        async def find_by_label_starting_with(self, start: str) -> list[Any]: ...
        async def find_by_color(self, color: Color) -> list[Any]: ...
        async def find_by_from__after(self, moment: datetime) -> list[Any]: ...

    async def main() -> None:
        client = connect(database)
        rows = Tags(client)
        try:
            await rows.create_table()
            tag: Any = rows.entity
            one = tag(label="50%", from_=datetime(2024, 1, 1), uuid=UUID(int=5), data=[1], color=Color.RED, on=True)
            await rows.insert(one, tag(label="x"))
            assert (one.id, one.given) == (1, None)
            one.given = 7  # by the database
            assert await rows.find_by_label_starting_with("50%") == [one]
            assert await rows.find_by_color(Color.RED) == [one]
            assert await rows.find_by_from__after(datetime(2023, 1, 1)) == [one]
            [none] = await rows.find_by_label_starting_with("x")
            assert (none.from_, none.uuid, none.data, none.color, none.on) == (None, None, None, None, None)
        finally:
            await client.close()

    run(main())


def test_sqlalchemys_classes_are_entities(database: str) -> None:
    class Users(Repository[User]):
        async def find_by_name(self, name: str) -> User | None: ...

    async def main() -> None:
        client = connect(database)
        rows = Users(client)
        try:
            await rows.create_table()
            user = User(name="ann", seen=datetime(2024, 1, 1), last="z")
            await rows.insert(user)
            found = await rows.find_by_name("ann")
            assert isinstance(found, User)
            assert (found.id, found.name, found.seen) == (user.id, "ann", datetime(2024, 1, 1))
            assert found.last == "z"
            assert await rows.update(found, name="bob") == 1
            assert await rows.find_by_name("ann") is None
        finally:
            await client.close()

    run(main())


def test_records() -> None:
    made = record("thing", {"id": (int, field(primary=True)), "a": (int | None, None)}, "things")
    one = made(a=3)  # type: ignore[call-arg]
    assert isinstance(one, Record)
    assert (one["a"], dict(one)) == (3, {"id": None, "a": 3})
    one["a"] = 4
    assert one == made(a=4)  # type: ignore[call-arg]
    for name in ("no name", "class", "keys", "__init__"):
        with pytest.raises(ValueError, match="cannot be the name"):
            record("thing", {name: (int, None)})


def test_varchar() -> None:
    assert Varchar(5) == Varchar(5) != Varchar(6)
    assert len({Varchar(5), Varchar(5)}) == 1
    assert repr(Varchar(5)) == "Varchar(5)"
    assert model_of(Everything).columns["maybe"].nullable
    assert not model_of(Everything).columns["short"].nullable
