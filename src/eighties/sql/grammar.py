"""Names of methods to queries: `find_by_author_and_created_after_order_by_id_desc` is taken apart here.

Pure: no database, no SQLAlchemy; `methods.py` and `orm.py` call it. The grammar is Spring Data's in snake_case
("Repository query keywords": subject keywords, predicate keywords and modifiers). What Spring tells apart by capitals
is told apart by the fields that the entity has: the whole name is tried with the longest field first, then the longest
keyword, and the first reading that fits the whole name is the meaning. So a field `check_in` is never `check` + `in`,
and a field `a_and_b` never two; an explicit `is` (`find_by_a_is_and_b`) says that the field ends there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from difflib import SequenceMatcher
from typing import Literal, NamedTuple

Action = Literal["find", "stream", "count", "exists", "delete"]

ACTIONS: dict[str, Action] = {
    **dict.fromkeys(("find", "read", "get", "query", "search"), "find"),
    "stream": "stream",
    "count": "count",
    "exists": "exists",
    **dict.fromkeys(("delete", "remove"), "delete"),
}
"""Spring's "Query subject keywords"."""

OPERATORS: dict[str, tuple[int, tuple[str, ...]]] = {
    "equals": (1, ("is", "equals")),
    "not": (1, ("not", "is_not")),
    "between": (2, ("between", "is_between")),
    "less_than": (1, ("less_than", "is_less_than")),
    "less_than_equal": (1, ("less_than_equal", "is_less_than_equal")),
    "greater_than": (1, ("greater_than", "is_greater_than")),
    "greater_than_equal": (1, ("greater_than_equal", "is_greater_than_equal")),
    "before": (1, ("before", "is_before")),
    "after": (1, ("after", "is_after")),
    "null": (0, ("null", "is_null")),
    "not_null": (0, ("not_null", "is_not_null")),
    "like": (1, ("like", "is_like")),
    "not_like": (1, ("not_like", "is_not_like")),
    "starting_with": (1, ("starting_with", "is_starting_with", "starts_with")),
    "ending_with": (1, ("ending_with", "is_ending_with", "ends_with")),
    "containing": (1, ("containing", "is_containing", "contains")),
    "not_containing": (1, ("not_containing", "is_not_containing", "not_contains")),
    "in": (1, ("in", "is_in")),
    "not_in": (1, ("not_in", "is_not_in")),
    "true": (0, ("true", "is_true")),
    "false": (0, ("false", "is_false")),
}
"""Spring's "Query predicate keywords" that a table's columns know: how many arguments each takes, and its phrases."""

MAX_LIMIT = 1_000_000
"""The largest N of `first` and `top`: more is taken for a mistake."""

_IGNORE_CASE = (("ignore", "case"), ("ignoring", "case"))
_ALL_IGNORE_CASE = (("all", "ignore", "case"), ("all", "ignoring", "case"))
_LIMIT = re.compile(r"(?:first|top)([0-9]*)\Z")
_PHRASES: list[tuple[tuple[str, ...], str]] = sorted(
    ((tuple(phrase.split("_")), operator) for operator, (_, phrases) in OPERATORS.items() for phrase in phrases),
    key=lambda item: -len(item[0]),
)
_PHRASE_NAMES = ["_".join(phrase) for phrase, _ in _PHRASES]
_JOINTS = frozenset(("and", "or", "order"))

Words = tuple[str, ...]


class BadName(ValueError):
    """A method's name cannot be read as a query: `part` is what does not fit, `suggestion` the closest that would."""

    def __init__(self, name: str, problem: str, part: str = "", suggestion: str | None = None) -> None:
        hint = f"; did you mean {suggestion!r}?" if suggestion else ""
        super().__init__(f"{name}: {problem}{hint}")
        self.name, self.problem, self.part, self.suggestion = name, problem, part, suggestion


class Condition(NamedTuple):
    """One field compared: `operator` is a key of OPERATORS."""

    field: str
    operator: str = "equals"
    ignore_case: bool = False

    @property
    def arguments(self) -> int:
        """How many arguments it takes: 0, 1 or 2."""
        return OPERATORS[self.operator][0]


class Order(NamedTuple):
    """One field that rows are sorted by."""

    field: str
    descending: bool = False


class Derived(NamedTuple):
    """What a name says. `alternatives` are joined by OR, the conditions of each by AND; none is every row.

    `all_ignore_case` holds for the conditions on text, those on other fields are left as they are.
    """

    action: Action
    distinct: bool = False
    limit: int | None = None
    alternatives: tuple[tuple[Condition, ...], ...] = ()
    order: tuple[Order, ...] = ()
    all_ignore_case: bool = False

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """All conditions, in the order in which they take their arguments."""
        return tuple(condition for group in self.alternatives for condition in group)

    @property
    def arguments(self) -> int:
        """How many arguments the query takes."""
        return sum(condition.arguments for condition in self.conditions)


def parse(name: str, fields: Iterable[str]) -> Derived:
    """Read a method's name.

    Arguments:
        name: as `find_first10_by_author_order_by_created_desc`; without `by` only what asks for all (`stream_all`).
        fields: the names of the entity's fields.
    Raises:
        BadName: it cannot be read; the message names the part and suggests the closest field or keyword.
    """
    known = list(fields)
    words = tuple(name.split("_"))
    action = ACTIONS.get(words[0])
    if action is None:
        suggestion = closest(words[0], ACTIONS)
        raise BadName(name, f"{words[0]!r} is no way to begin a query's name", words[0], suggestion)
    end = words.index("by") if "by" in words else len(words)
    distinct, limit, free = _subject(name, words[1:end])
    if action in ("count", "exists") and limit is not None:
        raise BadName(name, f"first and top do not go with {words[0]!r}", "first")
    if action == "delete" and distinct:
        raise BadName(name, f"distinct does not go with {words[0]!r}", "distinct")
    if end == len(words):
        if [word for word in free if word != "all"]:
            raise BadName(name, "there is no 'by' in it", "_".join(free), f"{name}_by_…")
        return Derived(action, distinct, limit)
    if free and free[-1] == "order":
        raise BadName(
            name, "an order needs a 'by' before it", "order_by", "_".join((*words[: end - 1], "by_order_by_…"))
        )
    alternatives, order, all_ignore_case = _Predicate(name, words[end + 1 :], known).read()
    return Derived(action, distinct, limit, alternatives, order, all_ignore_case)


def parse_predicate(name: str, predicate: str, fields: Iterable[str], action: Action, limit: int | None) -> Derived:
    """Read what follows `by`, as `author_and_id`; empty is every row. For `orm.py`. Raises as `parse` does."""
    words = tuple(predicate.split("_")) if predicate else ()
    return Derived(action, False, limit, *_Predicate(name, words, list(fields)).read())


def closest(text: str, names: Iterable[str]) -> str | None:
    """The name that is most like the text, None if none is near."""
    matcher = SequenceMatcher(b=text)
    best, found = 0.6, None
    for name in names:
        matcher.set_seq1(name)
        if (ratio := matcher.ratio()) > best:
            best, found = ratio, name
    return found


def _subject(name: str, words: Words) -> tuple[bool, int | None, list[str]]:
    """`distinct`, `first` and `top` may stand anywhere between the verb and `by`; other words there say nothing."""
    distinct, limit, free = False, None, []
    rest = iter(enumerate(words))
    for index, word in rest:
        match = _LIMIT.match(word)
        if word == "distinct":
            distinct = True
        elif match is not None:
            number = match[1]
            if not number and index + 1 < len(words) and words[index + 1].isdecimal():
                number = next(rest)[1]
            count = int(number or 1)
            if limit is not None:
                raise BadName(name, "first and top may stand in it once", word)
            if not 0 < count <= MAX_LIMIT:
                raise BadName(name, f"{word!r} is no number of rows", word)
            limit = count
        else:
            free.append(word)
    return distinct, limit, free


class _Rest(NamedTuple):
    """A reading of the words from some place to the end."""

    conditions: tuple[tuple[bool, Condition], ...]  # each with: an `or` stands before it
    order: tuple[Order, ...]
    all_ignore_case: bool


class _Predicate:
    """One predicate's words, read by backtracking: each method reads from a place to the end, or gives None.

    A place that once led nowhere is not tried again, so a name takes time in proportion to its length. The farthest
    place where something was missing is what an error tells.
    """

    def __init__(self, name: str, words: Words, fields: list[str]) -> None:
        self.name, self.words, self.names = name, words, fields
        self.fields = sorted(((tuple(field.split("_")), field) for field in fields), key=lambda item: -len(item[0]))
        self.dead: set[tuple[str, int]] = set()
        self.missing = (0, "field")

    def read(self) -> tuple[tuple[tuple[Condition, ...], ...], tuple[Order, ...], bool]:
        rest = self.condition(0, False) if self.words else _Rest((), (), False)
        if rest is None:
            missing = self.missing  # what the conditions miss tells more than that no keyword stands at the beginning
            rest = self.tail(0)
            if rest is None:
                self.missing = max(missing, self.missing if self.missing[0] else missing)
                raise self.error()
        groups: list[list[Condition]] = []
        for alternative, condition in rest.conditions:
            if alternative or not groups:
                groups.append([])
            groups[-1].append(condition)
        return tuple(map(tuple, groups)), rest.order, rest.all_ignore_case

    def condition(self, place: int, alternative: bool) -> _Rest | None:
        """field [ignore_case] [keyword] [ignore_case], and what follows."""
        if ("condition", place) in self.dead:
            return None
        for field, after in self.matches(place):
            for operator, ignore_case, end in self.operators(after):
                rest = self.after_condition(end)
                if rest is not None:
                    first = (alternative, Condition(field, operator, ignore_case))
                    return rest._replace(conditions=(first, *rest.conditions))
        self.dead.add(("condition", place))
        return None

    def matches(self, place: int) -> Iterator[tuple[str, int]]:
        found = False
        for parts, field in self.fields:
            if self.words[place : place + len(parts)] == parts:
                found = True
                yield field, place + len(parts)
        if not found:
            self.miss(place, "field")

    def operators(self, place: int) -> Iterator[tuple[str, bool, int]]:
        """The keywords that may stand here, the longest first; last none, which is `equals`."""
        before = self.skip(place, _IGNORE_CASE)
        for start in dict.fromkeys((before, place)):
            for phrase, operator in _PHRASES:
                if self.words[start : start + len(phrase)] == phrase:
                    end = start + len(phrase)
                    after = self.skip(end, _IGNORE_CASE)
                    if OPERATORS[operator][0]:  # there is an argument, whose case may be ignored
                        yield operator, after > end or start > place, after
                    else:
                        yield operator, False, end
        yield "equals", before > place, before

    def after_condition(self, place: int) -> _Rest | None:
        if place < len(self.words) and self.words[place] in ("and", "or"):
            rest = self.condition(place + 1, self.words[place] == "or")
            if rest is not None:
                return rest
        return self.tail(place)

    def tail(self, place: int) -> _Rest | None:
        """[all_ignore_case] [order_by …] [all_ignore_case] and the end; or the next condition after all_ignore_case."""
        after = self.skip(place, _ALL_IGNORE_CASE)
        if after > place:
            rest = self.after_condition(after)
            return None if rest is None else rest._replace(all_ignore_case=True)
        if place == len(self.words):
            return _Rest((), (), False)
        if self.words[place : place + 2] == ("order", "by"):
            return self.orders(place + 2)
        self.miss(place, "keyword")
        return None

    def orders(self, place: int) -> _Rest | None:
        """field [asc|desc], once or more."""
        if ("order", place) in self.dead:
            return None
        for field, after in self.matches(place):
            word = self.words[after] if after < len(self.words) else ""
            end = after + 1 if word in ("asc", "desc") else after
            rest = self.after_order(end)
            if rest is not None:
                return rest._replace(order=(Order(field, word == "desc"), *rest.order))
        self.dead.add(("order", place))
        return None

    def after_order(self, place: int) -> _Rest | None:
        if place == len(self.words):
            return _Rest((), (), False)
        after = self.skip(place, _ALL_IGNORE_CASE)
        if after == place:
            return self.orders(place)
        if after == len(self.words):
            return _Rest((), (), True)
        self.miss(after, "keyword")
        return None

    def skip(self, place: int, phrases: tuple[Words, ...]) -> int:
        for phrase in phrases:
            if self.words[place : place + len(phrase)] == phrase:
                return place + len(phrase)
        return place

    def miss(self, place: int, what: str) -> None:
        if place > self.missing[0] or (place == self.missing[0] and what == "keyword"):
            self.missing = (place, what)

    def error(self) -> BadName:
        place, what = self.missing
        if place >= len(self.words):
            return BadName(self.name, f"a {what} is missing at its end", "")
        end = next((i for i in range(place + 1, len(self.words)) if self.words[i] in _JOINTS), len(self.words))
        part = "_".join(self.words[place:end])
        if what == "field":
            # The field may be misspelt and a keyword follow: the best of all beginnings.
            tries = ["_".join(self.words[place:stop]) for stop in range(end, place, -1)]
            found = max(tries, key=lambda text: _nearness(text, self.names))
            suggestion = closest(found, self.names)
            return BadName(self.name, f"no field begins {part!r} (fields: {', '.join(self.names)})", part, suggestion)
        suggestion = closest(part, [*_PHRASE_NAMES, "ignore_case", "all_ignore_case", "order_by", "and", "or"])
        return BadName(self.name, f"{part!r} is no keyword", part, suggestion)


def _nearness(text: str, names: list[str]) -> float:
    return max((SequenceMatcher(a=name, b=text).ratio() for name in names), default=0.0)
