"""Page text to tokens: text that is sent as it stands, includes, and blocks of Python with their sugar.

Pure: nothing is read, run or kept. `compiler.py` calls `scan` for a page and for every file it includes. Blocks end at
the first `?>` that stands in no Python string or comment, so strings are read here as Python's own tokenizer reads
them; everything else about the code is left to Python's parser. Sugar is cut out of the code: a name stands in for it
there, on as many lines, and what it writes is listed in `Code.sugar` under that name.
"""

from __future__ import annotations

import ast
import re
from bisect import bisect_right
from typing import Literal, NamedTuple, NoReturn

MAX_NESTED_STRINGS = 50
"""F-strings within f-strings; Python's own limit is of that order, and ours spares a page the interpreter's stack."""

BOM = "\ufeff"
SPACE = " \t\f"
_NEWLINE = re.compile(r"\r\n?|\n")
_TAG = re.compile(r"<\?(pya?|include)(?=[ \t\f\v\r\n]|\?>)")
_PARALLEL = re.compile(r"(\ufeff?)#![ \t]*parallel[ \t]*(?:\r\n?|\n|\Z)")
_INDENT = re.compile(r"[ \t\f]*")
_COMMENT = re.compile(r"#[^\r\n]*")
_BAR = re.compile(r"[ \t\f]*\|(?:[ \t]|(?=[\r\n]|\?>))")
_QUOTE = r"(?<!\w)(\w*)(\"\"\"|'''|\"|')"  # the prefix, and what opens the string
_IN_CODE = re.compile(_QUOTE + r"|#|[\[\](){}]|\\(?:\r\n?|\n)|\r\n?|\n|```|\?>")
_IN_EXPRESSION = re.compile(_QUOTE + r"|[#:\[\](){}]|\r\n?|\n|```|\?>")
_IN_FIELD = re.compile(_QUOTE + r"|#[^\r\n]*|[:\[\](){}]")
_IN_LINE = re.compile(r"#\[\[|\?>|\r\n?|\n")
_IN_FENCE = re.compile(r"#\[\[|```")
_IN_FORMATTED = re.compile(r"\{\{|\{|\\(?:\r\n|[^{])?|\"\"\"|'''|\"|'|\r\n?|\n")
_IN_FORMAT = re.compile(r"[{}\"'\r\n]")
_CHARACTER_NAME = re.compile(r"\{[^{}\r\n]*\}")
_FORMATTED = frozenset(("f", "fr", "rf", "t", "tr", "rt"))
_REST = {
    '"': re.compile(r'(?:[^\\"\r\n]++|\\(?:\r\n|[\s\S]))*+"'),
    "'": re.compile(r"(?:[^\\'\r\n]++|\\(?:\r\n|[\s\S]))*+'"),
    '"""': re.compile(r'(?:[^\\"]++|\\[\s\S]|"(?!""))*+"""'),
    "'''": re.compile(r"(?:[^\\']++|\\[\s\S]|'(?!''))*+'''"),
}
UNPARSABLE = (SyntaxError, ValueError, RecursionError, MemoryError)
"""What Python's parser raises on bad code: zero bytes and half surrogate pairs are ValueErrors, nesting the others."""


class PageError(Exception):
    """A page that cannot be compiled, and why.

    Arguments:
        path: the file the mistake is in, which may be an included one.
        line: its line, from 1.
        message: what is wrong.
        text: that line of the source.
        chain: the files from the page down to `path`; empty where there is no include.
    """

    def __init__(self, path: str, line: int, message: str, text: str = "", chain: tuple[str, ...] = ()) -> None:
        super().__init__(path, line, message)
        self.path = path
        self.line = line
        self.message = message
        self.text = text
        self.chain = chain
        self.shown = path  # as messages show it; `site.py` makes it relative to its root

    def __str__(self) -> str:
        return f"{self.shown}:{self.line}: {self.message}"


class Text(NamedTuple):
    """What is sent as it stands."""

    text: str
    line: int


class Include(NamedTuple):
    """`<?include path ?>`: the path as it is written, without quotes around it."""

    path: str
    line: int


class Expression(NamedTuple):
    """`#[[expression:format]]`, parsed; every node has its line and column of the page."""

    node: ast.expr
    format: str | None


Parts = list[str | Expression]


class Sugar(NamedTuple):
    """What one piece of sugar writes, in order."""

    parts: Parts
    line: int


class Code(NamedTuple):
    """A block.

    Arguments:
        kind: `py` or `pya`.
        code: the text between the tag and `?>`.
        line, column: where that text begins, from 1 and from 0.
        python: `code` with names in place of the sugar and without white space before its first line; as many lines.
        margin: the white space before the block's own statements; `python` has none before its first line.
        opened: whether a statement stands beside the tag, and not only on the lines after it.
        sugar: by the name that stands in for it.
    """

    kind: Literal["py", "pya"]
    code: str
    line: int
    column: int
    python: str
    margin: str
    opened: bool
    sugar: dict[str, Sugar]


class Page(NamedTuple):
    """A page's tokens. `parallel`: its first line says `#! parallel`, and is not among them."""

    parallel: bool
    tokens: list[Text | Code | Include]


def scan(text: str, path: str) -> Page:
    """The tokens of a page or of an included file.

    Arguments:
        text: the whole file, its line ends as they are.
        path: the file's name, for errors.
    Raises:
        PageError: a block, an include, a string or sugar is not closed, or an expression of sugar is no Python.
    """
    match = _PARALLEL.match(text)
    start = match.end() if match else 0
    mark = match[1] if match else ""
    if "<?" not in text:
        rest = mark + text[start:]
        return Page(match is not None, [Text(rest, 1 + (start > 0))] if rest else [])
    return Page(match is not None, _tokens(_Source(text, path), start, mark))


def _tokens(source: _Source, position: int, mark: str) -> list[Text | Code | Include]:
    text = source.text
    tokens: list[Text | Code | Include] = []
    while True:
        tag = _TAG.search(text, position)
        between = mark + text[position : tag.start() if tag else len(text)]
        if between:
            tokens.append(Text(between, source.line(position)))
        if tag is None:
            return tokens
        mark = ""
        if tag[1] == "include":
            include, position = _include(source, tag)
            tokens.append(include)
        else:
            block = _Block(source, tag)
            tokens.append(block.read())
            position = block.position


def _include(source: _Source, tag: re.Match[str]) -> tuple[Include, int]:
    end = source.text.find("?>", tag.end())
    if end < 0:
        source.fail(tag.start(), "<?include is not closed: ?> is missing")
    path = source.text[tag.end() : end].strip()
    if len(path) > 1 and path[0] == path[-1] and path[0] in "\"'":
        path = path[1:-1]
    if not path or "\0" in path or _NEWLINE.search(path):
        source.fail(tag.start(), "<?include names no file: expected <?include path ?>")
    return Include(path, source.line(tag.start())), end + 2


class _Source:
    """A file's text: where its lines are, where Python's strings in it end, and errors about it."""

    def __init__(self, text: str, path: str) -> None:
        self.text = text
        self.path = path
        self.starts = [0, *(match.end() for match in _NEWLINE.finditer(text))]
        self.level = 0
        self.placeholder = "_80s_text"
        while self.placeholder in text:
            self.placeholder += "_"

    def line(self, position: int) -> int:
        """The line of a position, from 1."""
        return bisect_right(self.starts, position)

    def before(self, position: int) -> str:
        """What stands before a position on its line."""
        return self.text[self.starts[self.line(position) - 1] : position]

    def fail(self, position: int, message: str) -> NoReturn:
        line = self.line(position)
        text = _NEWLINE.split(self.text[self.starts[line - 1] :], maxsplit=1)[0]
        raise PageError(self.path, line, message, text)

    def string(self, opening: re.Match[str]) -> int:
        """Where a string ends, given the match of its prefix and opening quotes."""
        prefix, quote = opening[1].lower(), opening[2]
        if prefix in _FORMATTED:
            return self.formatted(opening.end(), quote, "r" in prefix)
        rest = _REST[quote].match(self.text, opening.end())
        if rest is None:
            self.fail(opening.start(), "a string is not closed")
        return rest.end()

    def formatted(self, position: int, quote: str, raw: bool) -> int:
        """Where an f-string ends (PEP 701: any string may stand in its fields), given where its content begins."""
        start = position
        self.level += 1
        if self.level > MAX_NESTED_STRINGS:
            self.fail(start, "f-strings are nested too deeply")
        while match := _IN_FORMATTED.search(self.text, position):
            found = match[0]
            position = match.end()
            if found == "{":
                position = self.field(position, quote)
            elif found[0] in "\"'":
                if self.text.startswith(quote, match.start()):
                    self.level -= 1
                    return match.start() + len(quote)
            elif found == "\\N" and not raw:
                name = _CHARACTER_NAME.match(self.text, position)
                position = name.end() if name else position
            elif found[0] in "\r\n" and len(quote) == 1:
                break
        self.fail(start, "an f-string is not closed")

    def field(self, position: int, quote: str) -> int:
        """Where a field of an f-string ends, given what follows its `{`."""
        start = position
        depth = 0
        while match := _IN_FIELD.search(self.text, position):
            found = match[0]
            position = match.end()
            if match[2]:
                position = self.string(match)
            elif found in "([{":
                depth += 1
            elif found in ")]}" and depth:
                depth -= 1
            elif found == "}":
                return position
            elif found == ":" and not depth:
                return self.format(position, quote)
        self.fail(start, "a field of an f-string is not closed")

    def format(self, position: int, quote: str) -> int:
        """Where a field ends, given what follows its `:`; there may be fields within the format."""
        start = position
        self.level += 1
        if self.level > MAX_NESTED_STRINGS:
            self.fail(start, "f-strings are nested too deeply")
        while match := _IN_FORMAT.search(self.text, position):
            position = match.end()
            if match[0] == "{":
                position = self.field(position, quote)
            elif match[0] == "}":
                self.level -= 1
                return position
            elif self.text.startswith(quote, match.start()) or (len(quote) == 1 and match[0] in "\r\n"):
                break
        self.fail(start, "a field of an f-string is not closed")

    def parse(self, start: int, end: int) -> ast.expr:
        """An expression that stands there, each node with its line and column; raises one of UNPARSABLE."""
        text = self.text[start:end]
        if not text.strip():
            raise SyntaxError("there is no expression")
        column = len(self.before(start).encode("utf-8", "replace"))
        # Within brackets white space means nothing to Python, and puts the expression where it stands in the page.
        line = self.line(start)
        lead = "\n" * (line - 1) + " " * column if line > 1 else " " * (column - 1)
        return ast.parse(f"({lead}{text})", self.path, "eval").body


class _Block:
    """Reads one block, from its tag to its end; then `position` is behind its `?>`."""

    def __init__(self, source: _Source, tag: re.Match[str]) -> None:
        self.source = source
        self.text = source.text
        self.tag = tag
        self.position = tag.end()
        self.depth = 0  # of brackets: within them a line begins no statement
        self.python: list[str] = []
        self.copied = 0  # of the text, what is in `python` already, or replaced there
        self.sugar: dict[str, Sugar] = {}
        self.margins: list[str] = []  # white space before the statements on the lines after the tag's
        self.opened = False
        self.suite: bool | None = None  # whether the statement beside the tag has its body on the lines after it
        self.comment = -1  # where the last comment began
        self.last: tuple[int, str | None, Sugar] | None = None  # the last | line: its end, its margin, what it writes

    def read(self) -> Code:
        """The block's code.

        Raises:
            PageError: the block is not closed, or something in it.
        """
        self._begin()
        while match := _IN_CODE.search(self.text, self.position):
            found = match[0]
            self.position = match.end()
            if found == "?>":
                return self._finish(match.start())
            if found[0] in "\r\n":
                self._newline(match)
            elif found == "#":
                self._skip_comment(match.start())
            elif found == "```":
                self._fence(match)
            elif match[2]:
                self.position = self.source.string(match)
            elif found in "([{":
                self.depth += 1
            elif found in ")]}":
                self.depth = max(0, self.depth - 1)
        self._unclosed()

    def _begin(self) -> None:
        """What stands beside the tag: a statement, sugar, a comment, or nothing."""
        bar = _BAR.match(self.text, self.position)
        indent = _INDENT.match(self.text, self.position)
        self.position = self.copied = indent.end() if indent else self.position
        self.opened = bar is not None or self.text[self.position : self.position + 1] not in ("\r", "\n", "#", "")
        if bar or not self.opened:
            self.suite = False
        if bar:
            self._line(bar, None)

    def _newline(self, newline: re.Match[str]) -> None:
        if self.depth:
            return
        if self.suite is None:
            comment = self.comment if self.comment >= self.source.starts[self.source.line(newline.start()) - 1] else -1
            end = comment if comment >= 0 else newline.start()
            self.suite = self.text[self.tag.end() : end].rstrip().endswith(":")
        bar = _BAR.match(self.text, self.position)
        indent = _INDENT.match(self.text, self.position)
        assert indent is not None  # it matches nothing, too
        if bar or self.text[indent.end() : indent.end() + 1] not in ("\r", "\n", "#", ""):
            if not self.text.startswith("?>", indent.end()):
                self.margins.append(indent[0])
        if bar:
            self._line(bar, indent[0])

    def _skip_comment(self, start: int) -> None:
        comment = _COMMENT.match(self.text, start)
        self.comment = start
        self.position = comment.end() if comment else start + 1

    def _unclosed(self) -> NoReturn:
        message = f"the block <?{self.tag[1]} is not closed: ?> is missing"
        if self.comment >= 0:
            comment = _COMMENT.match(self.text, self.comment)
            if comment and "?>" in comment[0]:
                line = self.source.line(self.comment)
                message += f" (that in the comment on line {line} belongs to the comment)"
        self.source.fail(self.tag.start(), message)

    def _finish(self, end: int) -> Code:
        self.python.append(self.text[self.copied : end])
        start = self.tag.end()
        return Code(
            "pya" if self.tag[1] == "pya" else "py",
            self.text[start:end],
            self.source.line(start),
            len(self.source.before(start)),
            "".join(self.python),
            self._margin(),
            self.opened,
            self.sugar,
        )

    def _margin(self) -> str:
        if not self.margins:
            return ""
        least = min(self.margins, key=len)
        if self.suite and least == self.margins[0]:
            # All further lines are the body of the statement beside the tag, if they stand deeper than the tag's line.
            before = self.source.before(self.tag.start())
            outer = before[: len(before) - len(before.lstrip(SPACE))]
            return outer if len(least) > len(outer) else least
        return least

    # ---- sugar ----

    def _line(self, bar: re.Match[str], margin: str | None) -> None:
        """`| text` up to the end of its line, which it writes too, or of the block. Beside the tag it has no margin."""
        parts, end = self._parts(bar.end(), _IN_LINE, bar.start())
        self.position = end.start()  # the line end, or ?>, means something to Python, too
        if end[0] != "?>":
            parts.append(end[0])
        elif parts and isinstance(parts[-1], str):
            parts[-1] = parts[-1].rstrip(SPACE)
        start = max(bar.start(), self.copied)
        if self.last and self.last[:2] == (bar.start(), margin) and all(isinstance(part, str) for part in parts):
            # Lines of mere text go with the line above: one call writes both, and no expression is late for it.
            sugar = self.last[2]
            sugar.parts[:] = _joined(sugar.parts + parts)
            self._replace(start, self.position, "")
        else:
            sugar = Sugar(_joined(parts), self.source.line(bar.end()))
            self._replace(start, self.position, (margin or "") + self._name(sugar))
        self.last = (end.end(), margin, sugar) if margin is not None else None

    def _fence(self, fence: re.Match[str]) -> None:
        """Text between triple backticks. Where it begins on a line of its own, lines are taken whole, and dedented."""
        start = fence.start()
        parts, end = self._parts(fence.end(), _IN_FENCE, start)
        first = parts[0] if parts else ""
        newline = re.match(r"[ \t]*(\r\n?|\n)", first) if isinstance(first, str) else None
        if newline:
            before = self.source.before(start)
            parts[0] = str(first)[newline.end(1) :]
            parts = _dedented(parts, before[: len(before) - len(before.lstrip(SPACE))])
        lines = self.source.line(end.end()) - self.source.line(start)
        name = self._name(Sugar(_joined(parts), self.source.line(start)))
        self._replace(start, end.end(), f"({chr(10) * lines}{name})")
        self.position = end.end()

    def _name(self, sugar: Sugar) -> str:
        name = f"{self.source.placeholder}{len(self.sugar)}"
        self.sugar[name] = sugar
        return name

    def _replace(self, start: int, end: int, python: str) -> None:
        self.python += (self.text[self.copied : start], python)
        self.copied = end

    def _parts(self, position: int, pattern: re.Pattern[str], opening: int) -> tuple[Parts, re.Match[str]]:
        """What sugar writes, up to a match of the pattern, which is returned with it."""
        parts: Parts = []
        while match := pattern.search(self.text, position):
            if match.start() > position:
                parts.append(self.text[position : match.start()])
            if match[0] != "#[[":
                return parts, match
            expression, position = self._expression(match.end(), pattern is _IN_LINE)
            parts.append(expression)
        if pattern is _IN_FENCE:
            self.source.fail(opening, "text in ``` is not closed: ``` is missing")
        self._unclosed()

    def _expression(self, start: int, one_line: bool) -> tuple[Expression, int]:
        """An expression and its format, and where what follows `]]` begins."""
        position = start
        depth = 0
        while match := _IN_EXPRESSION.search(self.text, position):
            found = match[0]
            position = match.end()
            if match[2]:
                position = self._string(match, start, one_line)
            elif found in "([{":
                depth += 1
            elif found in ")]}" and depth:
                depth -= 1
            elif found == "]" and self.text.startswith("]", position):
                return Expression(self._parsed(start, match.start()), None), position + 1
            elif found == ":":
                # A lambda has colons, too: the format begins at the first before which an expression is whole.
                node = None if depth else self._parsed_or_none(start, match.start())
                if node is not None:
                    return self._format(node, start, position)
            elif found[0] not in "\r\n" or one_line:
                break
        self._missing(start)

    def _string(self, opening: re.Match[str], start: int, one_line: bool) -> int:
        try:
            end = self.source.string(opening)
        except PageError:
            self._missing(start)
        if one_line and _NEWLINE.search(self.text, opening.start(), end):
            self._missing(start)
        return end

    def _format(self, node: ast.expr, start: int, position: int) -> tuple[Expression, int]:
        end = self.text.find("]]", position)
        if end < 0 or _NEWLINE.search(self.text, position, end):
            self._missing(start)
        return Expression(node, self.text[position:end]), end + 2

    def _parsed(self, start: int, end: int) -> ast.expr:
        try:
            return self.source.parse(start, end)
        except UNPARSABLE as error:
            reason = error.msg if isinstance(error, SyntaxError) else str(error) or type(error).__name__
            self.source.fail(start, f"#[[{self.text[start:end]}]] is no Python expression: {reason}")

    def _parsed_or_none(self, start: int, end: int) -> ast.expr | None:
        try:
            return self.source.parse(start, end)
        except UNPARSABLE:
            return None

    def _missing(self, start: int) -> NoReturn:
        self.source.fail(start, "#[[ is not closed: ]] is missing, or the expression before it is not complete")


def _joined(parts: Parts) -> Parts:
    """The same parts without empty text, and without text beside text."""
    joined: Parts = []
    for part in parts:
        if isinstance(part, str) and joined and isinstance(joined[-1], str):
            joined[-1] += part
        elif part:
            joined.append(part)
    return joined


def _dedented(parts: Parts, margin: str) -> Parts:
    """Lines of text without the margin of the backticks before them, and without the white space before the closing."""
    last = parts[-1]
    if isinstance(last, str):
        bare = last.rstrip(" \t")
        if bare.endswith(("\r", "\n")) or (not bare and len(parts) == 1):
            parts[-1] = bare
    if not margin:
        return parts
    if isinstance(parts[0], str):
        parts[0] = parts[0].removeprefix(margin)
    pattern = re.compile(rf"(\r\n?|\n){re.escape(margin)}")
    return [pattern.sub(r"\1", part) if isinstance(part, str) else part for part in parts]
