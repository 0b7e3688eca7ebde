"""Markers in queries: what they become for each driver, and what is refused before anything is sent."""

from __future__ import annotations

import pytest

from eighties.sql.markers import MarkerError, translate

pytestmark = pytest.mark.pure

ACCEPTED = [
    # query, arguments, for MySQL, for SQLite
    ("SELECT 1", 0, "SELECT 1", "SELECT 1"),
    ("SELECT * FROM t WHERE id = %s", 1, "SELECT * FROM t WHERE id = %s", "SELECT * FROM t WHERE id = ?"),
    ("WHERE id = %d AND a=%s", 2, "WHERE id = %s AND a=%s", "WHERE id = ? AND a=?"),
    ("WHERE id = '%d' AND a = '%s'", 2, "WHERE id = %s AND a = %s", "WHERE id = ? AND a = ?"),
    ("a %% 2 = %s", 1, "a %% 2 = %s", "a % 2 = ?"),
    ("a % 2", 0, "a %% 2", "a % 2"),
    ("a %% 2", 0, "a %%%% 2", "a %% 2"),
    ("LIKE 'a%'", 0, "LIKE 'a%%'", "LIKE 'a%'"),
    ("LIKE 'a%' AND b = %s", 1, "LIKE 'a%%' AND b = %s", "LIKE 'a%' AND b = ?"),
    ("LIKE 'a%%' AND b = %s", 1, "LIKE 'a%%' AND b = %s", "LIKE 'a%' AND b = ?"),
    ("DATE_FORMAT(a, '%d')", 0, "DATE_FORMAT(a, '%%d')", "DATE_FORMAT(a, '%d')"),
    ("F(a, '%%d.') = %s", 1, "F(a, '%%d.') = %s", "F(a, '%d.') = ?"),
    ("'it''s' = %s", 1, "'it''s' = %s", "'it''s' = ?"),
    ("'what?' = %s", 1, "'what?' = %s", "'what?' = ?"),
    ("`odd``name` = %s", 1, "`odd``name` = %s", "`odd``name` = ?"),
    ("/* 'half a %s */ a = %s", 1, "/* 'half a %%s */ a = %s", "/* 'half a %s */ a = ?"),
    ("a = %s -- it's 100%\nAND b = %s", 2, "a = %s -- it's 100%%\nAND b = %s", "a = ? -- it's 100%\nAND b = ?"),
    ("a = %s -- what?", 1, "a = %s -- what?", "a = ? -- what?"),
]

REFUSED = [
    # query, arguments, what the error says
    ("WHERE id = %s", 0, "no arguments were given"),
    ("WHERE id = %d", 2, "the query has 1 marker, but 2 arguments were given"),
    ("WHERE id = %s AND a = %s", 1, "the query has 2 markers, but 1 argument was given"),
    ("SELECT 1", 1, "the query has no markers, but 1 argument was given"),
    ("LIKE '%s%'", 1, "write the argument without quotes"),
    ("a = 'x%d'", 1, "write the argument without quotes"),
    ("`%s` = 1", 1, "write the argument without quotes"),
    ("a %f = %s", 1, "is no marker"),
    ("a = ?", 1, "write %s for an argument, not ?"),
    ("a = ?", 0, "write %s for an argument, not ?"),
    ("a = 'open", 0, "is not closed"),
    ("a = %s AND b = 'open %s", 2, "is not closed"),
]


@pytest.mark.parametrize(("query", "given", "mysql", "sqlite"), ACCEPTED)
def test_markers(query: str, given: int, mysql: str, sqlite: str) -> None:
    assert translate("mysql", query, given) == mysql
    assert translate("sqlite", query, given) == sqlite


@pytest.mark.parametrize(("query", "given", "says"), REFUSED)
@pytest.mark.parametrize("dialect", ["mysql", "sqlite"])
def test_refused(dialect: str, query: str, given: int, says: str) -> None:
    with pytest.raises(MarkerError, match=says.replace("?", r"\?")):
        translate(dialect, query, given)


def test_dialects_differ() -> None:
    assert translate("mysql", r"'it\'s' = %s", 1) == r"'it\'s' = %s"
    assert translate("sqlite", r"a ESCAPE '\' AND b = %s", 1) == r"a ESCAPE '\' AND b = ?"
    assert translate("mysql", "a = %s # it's\nAND b = %s", 2) == "a = %s # it's\nAND b = %s"
    assert translate("mysql", "/*!50000 a = %s */", 1) == "/*!50000 a = %s */"
    assert translate("sqlite", "[it's] = %s", 1) == "[it's] = ?"
    assert translate("sqlite", "a = %s --it's", 1) == "a = ? --it's"
    assert translate("mysql", "a --1 = %s", 1) == "a --1 = %s"
    with pytest.raises(MarkerError, match="not closed"):
        translate("mysql", "a --1 = 'it", 0)


def test_errors_name_the_place_and_stay_short() -> None:
    with pytest.raises(MarkerError, match="at character 1009 of the query, in …") as caught:
        translate("sqlite", "x" * 1000 + " LIKE = ?" + "y" * 100000, 0)
    assert len(str(caught.value)) < 200


def test_texts_are_kept_within_a_bound() -> None:
    from eighties.sql import markers

    for number in range(2 * markers.CACHED_TEXTS):
        translate("sqlite", f"SELECT {number}", 0)
    before = markers._translate.cache_info()
    assert before.currsize <= markers.CACHED_TEXTS
    translate("sqlite", "x" * 10_000, 0)
    assert markers._translate.cache_info().misses == before.misses
