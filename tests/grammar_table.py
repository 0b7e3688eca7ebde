"""The grammar of derived queries, row by row: a method's name, its arguments, and the same by hand. Data, no tests.

`test_grammar.py` runs each row against both databases. Sections are those of Spring Data's "Repository query keywords".
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any, NamedTuple

from eighties.sql.entity import Entity, Varchar, field


class Color(Enum):
    RED = "red"
    GREEN = "green"


class Thing(Entity, source="things"):
    """Fields that look like keywords are here on purpose."""

    id: int = field(primary=True)
    name: Varchar(50) | None  # type: ignore[valid-type]
    note: str
    number: int | None
    price: Decimal
    active: bool
    created: datetime | None
    color: Color
    check_in: date
    order_by_name: Varchar(20) = field(name="order", index=True)  # type: ignore[valid-type]
    is_new: bool = False
    new: bool = False
    a_and_b: int = 0
    a: int = 0
    b: int = 0
    data: dict[str, Any] | None = None


NOON, LATER = datetime(2024, 1, 1, 12), datetime(2024, 1, 1, 12, 0, 0, 500_000)
DAY = date(2024, 2, 29)
_first = Thing("ann", "first", 1, Decimal("1.5"), True, NOON, Color.RED, DAY, "z")
THINGS = [
    _first,
    replace(_first, name="Ann", note="50% off", number=2, active=False, created=LATER, is_new=True, a=1),
    replace(_first, name="bob", note="snake_case", number=None, price=Decimal("2"), color=Color.GREEN, b=1),
    replace(_first, name=None, note="FIRST! really", number=-3, created=None, order_by_name="a", a_and_b=1, a=1, b=1),
    replace(_first, name="o'hara", note='say "hi" \\ back\\slash', number=2, check_in=date(2023, 1, 1), new=True),
    replace(_first, name="søren 🎸", note="", price=Decimal("-10.25"), number=7, data={"k": ["v", None]}),
    replace(_first, name="ann", note="first", number=1, order_by_name="b"),
]


class Line(NamedTuple):
    """One row of the table. `where` is what stands after FROM; `values` are its arguments, if not the method's own."""

    name: str
    args: tuple[Any, ...]
    where: str
    values: tuple[Any, ...] | None = None


LOGICAL = [
    Line("find_by_name_and_note", ("ann", "first"), "WHERE name = %s AND note = %s"),
    Line("find_by_name_or_note", ("bob", "first"), "WHERE name = %s OR note = %s"),
    Line("find_by_name_or_note_and_number", ("bob", "first", 1), "WHERE name = %s OR (note = %s AND number = %s)"),
    Line("find_by_name_and_note_or_number", ("ann", "first", 7), "WHERE (name = %s AND note = %s) OR number = %s"),
    Line(
        "find_by_name_and_number_or_name_and_number_or_id",
        ("ann", 1, "bob", 3, 5),
        "WHERE (name = %s AND number = %s) OR (name = %s AND number = %s) OR id = %s",
    ),
]

PREDICATES = [
    Line("find_by_name", ("ann",), "WHERE name = %s"),
    Line("find_by_name_is", ("ann",), "WHERE name = %s"),
    Line("find_by_name_equals", ("ann",), "WHERE name = %s"),
    Line("find_by_name", (None,), "WHERE name IS NULL", ()),
    Line("find_by_name_not", ("ann",), "WHERE name <> %s"),
    Line("find_by_name_is_not", ("ann",), "WHERE name <> %s"),
    Line("find_by_name_not", (None,), "WHERE name IS NOT NULL", ()),
    Line("find_by_number_between", (1, 2), "WHERE number BETWEEN %s AND %s"),
    Line("find_by_number_is_between", (2, 1), "WHERE number BETWEEN %s AND %s"),
    Line("find_by_number_between_and_name", (1, 2, "ann"), "WHERE number BETWEEN %s AND %s AND name = %s"),
    Line("find_by_number_less_than", (2,), "WHERE number < %s"),
    Line("find_by_number_is_less_than", (2,), "WHERE number < %s"),
    Line("find_by_number_less_than_equal", (2,), "WHERE number <= %s"),
    Line("find_by_number_is_less_than_equal", (2,), "WHERE number <= %s"),
    Line("find_by_price_greater_than", (Decimal("1.5"),), "WHERE price > %s"),
    Line("find_by_price_is_greater_than", (Decimal("-11"),), "WHERE price > %s"),
    Line("find_by_price_greater_than_equal", (Decimal("1.5"),), "WHERE price >= %s"),
    Line("find_by_price_is_greater_than_equal", (2,), "WHERE price >= %s"),
    Line("find_by_created_before", (LATER,), "WHERE created < %s"),
    Line("find_by_created_is_before", (NOON,), "WHERE created < %s"),
    Line("find_by_created_after", (NOON,), "WHERE created > %s"),
    Line("find_by_created_is_after", (LATER,), "WHERE created > %s"),
    Line("find_by_created_after", (NOON.replace(tzinfo=UTC),), "WHERE created > %s", (NOON,)),
    Line("find_by_created", (LATER,), "WHERE created = %s"),
    Line("find_by_check_in_before", (DAY,), "WHERE check_in < %s"),
    Line("find_by_number_null", (), "WHERE number IS NULL"),
    Line("find_by_number_is_null", (), "WHERE number IS NULL"),
    Line("find_by_number_not_null", (), "WHERE number IS NOT NULL"),
    Line("find_by_number_is_not_null", (), "WHERE number IS NOT NULL"),
    Line("find_by_data_is_not_null", (), "WHERE data IS NOT NULL"),
    Line("find_by_note_like", ("%irst%",), "WHERE note LIKE %s"),
    Line("find_by_note_is_like", ("fi_st",), "WHERE note LIKE %s"),
    Line("find_by_note_like", ("50\\% off",), "WHERE note = %s", ("50% off",)),
    Line("find_by_note_not_like", ("%irst%",), "WHERE note NOT LIKE %s"),
    Line("find_by_note_is_not_like", ("%irst%",), "WHERE note NOT LIKE %s"),
    Line("find_by_note_starting_with", ("fir",), "WHERE note LIKE %s", ("fir%",)),
    Line("find_by_note_is_starting_with", ("50%",), "WHERE note LIKE %s ESCAPE '|'", ("50|%%",)),
    Line("find_by_note_starts_with", ("_",), "WHERE note LIKE %s ESCAPE '|'", ("|_%",)),
    Line("find_by_note_ending_with", ("irst",), "WHERE note LIKE %s", ("%irst",)),
    Line("find_by_note_is_ending_with", ("slash",), "WHERE note LIKE %s", ("%slash",)),
    Line("find_by_note_ends_with", ("_case",), "WHERE note LIKE %s ESCAPE '|'", ("%|_case",)),
    Line("find_by_note_containing", ("%",), "WHERE note LIKE %s ESCAPE '|'", ("%|%%",)),
    Line("find_by_note_is_containing", ("_",), "WHERE note LIKE %s ESCAPE '|'", ("%|_%",)),
    Line("find_by_note_contains", ("\\",), "WHERE note LIKE %s ESCAPE '|'", ("%\\%",)),
    Line("find_by_note_contains", ("!",), "WHERE note LIKE %s ESCAPE '|'", ("%!%",)),
    Line("find_by_note_contains", ("",), "WHERE note LIKE '%%'", ()),
    Line("find_by_note_not_containing", ("%",), "WHERE note NOT LIKE %s ESCAPE '|'", ("%|%%",)),
    Line("find_by_note_is_not_containing", ("i",), "WHERE note NOT LIKE %s", ("%i%",)),
    Line("find_by_note_not_contains", ("i",), "WHERE note NOT LIKE %s", ("%i%",)),
    Line("find_by_number_in", ([1, 7],), "WHERE number IN (%s, %s)", (1, 7)),
    Line("find_by_number_is_in", ({2},), "WHERE number IN (2)", ()),
    Line("find_by_number_in", ([],), "WHERE 1 = 0", ()),
    Line("find_by_number_in_or_name", ([], "bob"), "WHERE name = %s", ("bob",)),
    Line("find_by_name_and_number_in", ("ann", []), "WHERE 1 = 0", ()),
    Line("find_by_number_not_in", ((1, 7),), "WHERE number NOT IN (%s, %s)", (1, 7)),
    Line("find_by_number_is_not_in", ([2],), "WHERE number NOT IN (2)", ()),
    Line("find_by_number_not_in", ([],), "WHERE 1 = 1", ()),
    Line("find_by_name_and_number_not_in", ("ann", []), "WHERE name = %s", ("ann",)),
    Line("find_by_number_in_and_name_in", ([1, 2, 7], ["ann"]), "WHERE number IN (1, 2, 7) AND name = 'ann'", ()),
    Line("find_by_color_in", ([Color.GREEN],), "WHERE color = 'green'", ()),
    Line("find_by_color", (Color.RED,), "WHERE color = 'red'", ()),
    Line("find_by_color_not", (Color.RED,), "WHERE color <> 'red'", ()),
    Line("find_by_active_true", (), "WHERE active = 1"),
    Line("find_by_active_is_true", (), "WHERE active = 1"),
    Line("find_by_active_false", (), "WHERE active = 0"),
    Line("find_by_active_is_false", (), "WHERE active = 0"),
    Line("find_by_active", (False,), "WHERE active = 0", ()),
]

MODIFIERS = [
    Line("find_by_name_ignore_case", ("ANN",), "WHERE lower(name) = lower(%s)"),
    Line("find_by_name_ignoring_case", ("ANN",), "WHERE lower(name) = lower(%s)"),
    Line("find_by_name_is_ignore_case", ("ANN",), "WHERE lower(name) = lower(%s)"),
    Line("find_by_name_not_ignore_case", ("ANN",), "WHERE lower(name) <> lower(%s)"),
    Line("find_by_name_ignore_case_and_number", ("ANN", 2), "WHERE lower(name) = lower(%s) AND number = %s"),
    Line("find_by_name_in_ignore_case", (["ANN", "BOB"],), "WHERE lower(name) IN ('ann', 'bob')", ()),
    Line("find_by_note_containing_ignore_case", ("FIRST",), "WHERE lower(note) LIKE %s", ("%first%",)),
    Line("find_by_note_ignore_case_containing", ("FIRST",), "WHERE lower(note) LIKE %s", ("%first%",)),
    Line("find_by_note_starting_with_ignore_case", ("FIRST!",), "WHERE lower(note) LIKE %s", ("first!%",)),
    Line("find_by_name_between_ignore_case", ("ANN", "B"), "WHERE lower(name) BETWEEN 'ann' AND 'b'", ()),
    Line(
        "find_by_name_and_note_all_ignore_case",
        ("ANN", "FIRST"),
        "WHERE lower(name) = lower(%s) AND lower(note) = lower(%s)",
    ),
    Line(
        "find_by_name_and_number_all_ignoring_case_order_by_id_desc",
        ("ANN", 1),
        "WHERE lower(name) = lower(%s) AND number = %s ORDER BY id DESC",
    ),
    Line("find_all_by_order_by_id", (), "ORDER BY id"),
    Line("find_by_order_by_id_desc", (), "ORDER BY id DESC"),
    Line("find_by_name_order_by_id_desc", ("ann",), "WHERE name = %s ORDER BY id DESC"),
    Line("find_all_by_order_by_number_desc_id_asc", (), "ORDER BY number DESC, id ASC"),
    Line("find_all_by_order_by_price_asc_order_by_name_desc_id_desc", (), "ORDER BY price, `order` DESC, id DESC"),
    Line("find_all_by_order_by_number_id", (), "ORDER BY number, id"),
]

SUBJECTS = [
    Line("find_by_id", (3,), "WHERE id = %s"),
    Line("read_by_id", (3,), "WHERE id = %s"),
    Line("get_by_id", (3,), "WHERE id = %s"),
    Line("query_by_id", (3,), "WHERE id = %s"),
    Line("search_by_id", (3,), "WHERE id = %s"),
    Line("find_all_things_by_id", (3,), "WHERE id = %s"),
    Line("find_all", (), ""),
    Line("find_by", (), ""),
    Line("find_first_by_order_by_id", (), "ORDER BY id LIMIT 1"),
    Line("find_top_by_order_by_id_desc", (), "ORDER BY id DESC LIMIT 1"),
    Line("find_first3_by_order_by_id", (), "ORDER BY id LIMIT 3"),
    Line("find_top_3_by_order_by_id", (), "ORDER BY id LIMIT 3"),
    Line("find_distinct_by_name", ("ann",), "WHERE name = %s"),
    Line("find_distinct_first2_by_name_order_by_id_desc", ("ann",), "WHERE name = %s ORDER BY id DESC LIMIT 2"),
]

FIELDS_BEFORE_KEYWORDS = [
    Line("find_by_check_in", (DAY,), "WHERE check_in = %s"),
    Line("find_by_check_in_in", ([DAY],), "WHERE check_in = %s", (DAY,)),
    Line("find_by_order_by_name", ("z",), "WHERE `order` = %s"),
    Line("find_by_order_by_name_order_by_order_by_name", ("z",), "WHERE `order` = %s ORDER BY `order`, id"),
    Line("find_by_is_new", (True,), "WHERE is_new = %s"),
    Line("find_by_is_new_is_true", (), "WHERE is_new = 1"),
    Line("find_by_new_is_true", (), "WHERE new = 1"),
    Line("find_by_a_and_b", (1,), "WHERE a_and_b = %s"),
    Line("find_by_a_is_and_b", (1, 1), "WHERE a = %s AND b = %s"),
    Line("find_by_b_and_a", (1, 1), "WHERE b = %s AND a = %s"),
    Line("find_by_a_and_b_and_b", (1, 1), "WHERE a_and_b = %s AND b = %s"),
    Line("find_by_b_or_a_and_b", (1, 1), "WHERE b = %s OR a_and_b = %s"),
]

LINES = [*LOGICAL, *PREDICATES, *MODIFIERS, *SUBJECTS, *FIELDS_BEFORE_KEYWORDS]
