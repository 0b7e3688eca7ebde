"""Names of methods taken apart: what they mean, what cannot be read, and which of several readings is taken."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eighties.sql.grammar import ACTIONS, OPERATORS, BadName, Condition, Derived, Order, parse

pytestmark = pytest.mark.pure

FIELDS = ("id", "author", "text", "created", "check_in", "check", "active", "is_active")


def predicate(name: str, *fields: str) -> list[list[tuple[Any, ...]]]:
    return [[tuple(one) for one in group] for group in parse(name, fields or FIELDS).alternatives]


def one(name: str, *fields: str) -> tuple[str, str]:
    [[condition]] = parse(name, fields or FIELDS).alternatives
    return condition.field, condition.operator


@pytest.mark.parametrize(("verb", "action"), ACTIONS.items())
def test_verbs(verb: str, action: str) -> None:
    assert parse(f"{verb}_by_id", FIELDS).action == action


@pytest.mark.parametrize(
    ("name", "distinct", "limit"),
    [
        ("find_by_id", False, None),
        ("find_all", False, None),
        ("find_first_by_id", False, 1),
        ("find_top_by_id", False, 1),
        ("find_first10_by_id", False, 10),
        ("find_top_10_by_id", False, 10),
        ("find_distinct_by_id", True, None),
        ("find_distinct_first3_posts_by_id", True, 3),
        ("find_posts_distinct_top3_by_id", True, 3),
        ("find_first_posts_by_id", False, 1),
        ("stream_all", False, None),
        ("find_first", False, 1),
        ("delete_first2_by_id", False, 2),
        ("count_distinct_by_id", True, None),
    ],
)
def test_subjects(name: str, distinct: bool, limit: int | None) -> None:
    derived = parse(name, FIELDS)
    assert (derived.distinct, derived.limit) == (distinct, limit)


def test_fields_come_before_keywords_and_the_longest_first() -> None:
    assert one("find_by_check_in") == ("check_in", "equals")
    assert one("find_by_check_in", "check") == ("check", "in")
    assert one("find_by_check_in_in") == ("check_in", "in")
    assert one("find_by_check_not_in") == ("check", "not_in")
    assert one("find_by_is_active") == ("is_active", "equals")
    assert one("find_by_active_is_true") == ("active", "true")
    assert one("find_by_is_is_not_null", "is") == ("is", "not_null")
    assert one("find_by_not_not", "not") == ("not", "not")
    assert one("find_by_order_by_name", "order_by_name", "name") == ("order_by_name", "equals")
    assert one("find_by_a_ignore_case", "a", "a_ignore_case") == ("a_ignore_case", "equals")
    assert predicate("find_by_a_and_b", "a", "b", "a_and_b") == [[("a_and_b", "equals", False)]]
    assert predicate("find_by_a_is_and_b", "a", "b", "a_and_b") == [[("a", "equals", False), ("b", "equals", False)]]
    assert predicate("find_by_a_or_b", "a", "b") == [[("a", "equals", False)], [("b", "equals", False)]]


def test_backtracking_over_the_whole_name() -> None:
    # The longer field is tried first, and only the shorter one reaches the end.
    assert one("find_by_a_less_than", "a", "a_less") == ("a", "less_than")
    assert one("find_by_a_not", "a", "a_not_in") == ("a", "not")
    order = parse("find_by_x_order_by_a_desc_b", ("x", "a", "a_desc", "b", "desc_b")).order
    assert order == (Order("a_desc"), Order("b"))
    order = parse("find_by_x_order_by_a_desc_b", ("x", "a", "b", "desc_b")).order
    assert order == (Order("a", True), Order("b"))


def test_the_longest_keyword_first() -> None:
    assert one("find_by_id_less_than_equal") == ("id", "less_than_equal")
    assert one("find_by_id_is_not_in") == ("id", "not_in")
    assert one("find_by_id_is_not") == ("id", "not")
    assert one("find_by_text_not_containing") == ("text", "not_containing")


def test_or_binds_weaker_than_and() -> None:
    found = predicate("find_by_id_and_author_or_text_and_created_or_check")
    assert [[field for field, *_ in group] for group in found] == [["id", "author"], ["text", "created"], ["check"]]


def test_modifiers() -> None:
    assert predicate("find_by_author_ignore_case") == [[("author", "equals", True)]]
    assert predicate("find_by_author_ignoring_case_like") == [[("author", "like", True)]]
    assert predicate("find_by_author_like_ignore_case_and_id") == [[("author", "like", True), ("id", "equals", False)]]
    for name in (
        "author_and_text_all_ignore_case",
        "author_all_ignoring_case_and_text",
        "author_and_text_order_by_id_all_ignore_case",
    ):
        derived = parse(f"find_by_{name}", FIELDS)
        assert derived.all_ignore_case
        assert [one.field for one in derived.conditions] == ["author", "text"]


def test_orders() -> None:
    assert parse("find_by_id_order_by_author_desc_text_asc_id", FIELDS).order == (
        Order("author", True),
        Order("text"),
        Order("id"),
    )
    assert parse("find_all_by_order_by_check_in", FIELDS).order == (Order("check_in"),)


BAD = [
    ("find_by_autor", "'autor'", "author"),
    ("find_by_author_and_txt", "'txt'", "text"),
    ("find_by_author_contaning", "'contaning'", "containing"),
    ("find_by_author_and_creatd_after", "'creatd_after'", "created"),
    ("find_by_author_order_by_creatd_desc", "'creatd_desc'", "created"),
    ("find_by_id_greater_then", "'greater_then'", "greater_than"),
    ("finde_by_author", "'finde'", "find"),
    ("find_by_author_and", "field is missing at its end", None),
    ("find_by_author_or_or_text", "'or_text'", "text"),
    ("find_by_and_author", "'and_author'", "author"),
    ("find_by_author_order_by", "field is missing at its end", None),
    ("find_by_id_between_and_", "no field begins ''", None),
    ("find_author", "no 'by'", "find_author_by_…"),
    ("find_all_order_by_author", "needs a 'by'", "find_all_by_order_by_…"),
    ("find_first0_by_id", "'first0'", None),
    ("find_first2_top3_by_id", "once", None),
    ("find_first99999999_by_id", "'first99999999'", None),
    ("count_first2_by_id", "first and top", None),
    ("exists_top2_by_id", "first and top", None),
    ("delete_distinct_by_id", "distinct", None),
    ("find_by_id_desc", "'desc'", None),
    ("find_by_id_near", "'near'", None),
    ("find_by_id_all_ignore_case_order_by_id_all_ignore_case_id", "'id' is no keyword", None),
    ("", "", None),
    ("_", "", None),
    ("find_by__", "", None),
]


@pytest.mark.parametrize(("name", "part", "suggestion"), BAD)
def test_what_cannot_be_read(name: str, part: str, suggestion: str | None) -> None:
    with pytest.raises(BadName) as caught:
        parse(name, FIELDS)
    assert str(caught.value).startswith(f"{name}: ")
    assert part in str(caught.value)
    assert caught.value.suggestion == suggestion


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    for name in (text, f"find_by_{text}", "find_by_" + "_".join(text)):
        try:
            parse(name, FIELDS)
        except BadName:
            pass


def test_time_is_bounded() -> None:
    fields = ["_".join("a" * count) for count in range(1, 20)]
    with pytest.raises(BadName):
        parse("find_by_" + "_and_".join(["a_a_a_is"] * 200) + "_x", fields)
    with pytest.raises(BadName):
        parse("find_by_a_order_by_" + "_".join("a" * 300) + "_x", fields)


CONDITIONS = st.builds(
    lambda field, operator, case: Condition(field, operator, case and OPERATORS[operator][0] > 0),
    st.sampled_from(("id", "author", "check_in")),
    st.sampled_from(sorted(OPERATORS)),
    st.booleans(),
)
ORDERS = st.builds(Order, st.sampled_from(("id", "author", "check_in")), st.booleans())


@given(
    st.lists(st.lists(CONDITIONS, min_size=1, max_size=3), min_size=1, max_size=3),
    st.lists(ORDERS, max_size=3),
    st.booleans(),
    st.none() | st.integers(1, 99),
    st.booleans(),
    st.randoms(use_true_random=False),
)
def test_what_is_written_is_read(
    groups: list[list[Condition]], orders: list[Order], distinct: bool, limit: int | None, every: bool, random: Any
) -> None:
    def words(condition: Condition) -> str:
        phrase = random.choice(OPERATORS[condition.operator][1])
        case = random.choice(("_ignore_case", "_ignoring_case")) if condition.ignore_case else ""
        return f"{condition.field}_{phrase}{case}"

    name = "find" + "_distinct" * distinct + (f"_first{limit}" if limit else "") + "_by_"
    name += "_or_".join("_and_".join(map(words, group)) for group in groups) + "_all_ignore_case" * every
    if orders:
        name += "_order_by_" + "_".join(f"{field}_{'desc' if descending else 'asc'}" for field, descending in orders)
    wanted = Derived("find", distinct, limit, tuple(map(tuple, groups)), tuple(orders), every)
    assert parse(name, FIELDS) == wanted
