"""A block of a page: its code as Python's syntax tree, with the sugar in it made calls.

Pure; `compiler.py` makes a Block of each `Code` token, and puts their statements together. Every node has the line and
the column where it stands in its file, for tracebacks.
"""

from __future__ import annotations

import ast
import re
from typing import Any, NoReturn, TypedDict

from .names import Names, analyse
from .scanner import SPACE, UNPARSABLE, Code, Expression, PageError, Sugar

# Names in generated code begin with a dot: no name in a program can.
WRITE, ESCAPE = ".write", ".escape"

_SPANS = "; a block must be complete Python by itself: text within an if or a loop is written by | or ``` in the block"
_INNER_PART = re.compile(r"\s*(else|elif|except|finally)\b")
_STATEMENT_LISTS = ("body", "orelse", "finalbody", "handlers", "cases")


_LOAD = ast.Load()


class At(TypedDict):
    """Where a node stands; columns in bytes, from 0."""

    lineno: int
    col_offset: int
    end_lineno: int
    end_col_offset: int


class Block:
    """A block, parsed.

    Arguments:
        code: its token.
        chain: the files from the page to the one it stands in.
        source: that file's text.
    Raises:
        PageError: its Python is wrong, or cannot stand in a page.
    """

    __slots__ = ("body", "chain", "code", "names", "path", "separate", "source", "waits")

    def __init__(self, code: Code, chain: tuple[str, ...], source: str) -> None:
        self.code = code
        self.chain = chain
        self.path = chain[-1]
        self.source = source
        self.body = self._parse()
        self._lower()
        try:
            self.names: Names = analyse(self.body)
        except RecursionError:
            self.fail(code.line, "the code is nested too deeply")
        self.separate = self.names.returns  # whether it is a function of its own
        self.waits = False  # whether it is finished only when done() is called
        self._check()

    @property
    def is_async(self) -> bool:
        return self.code.kind == "pya" or self.waits

    def fail(self, line: int, message: str) -> NoReturn:
        raise PageError(self.path, line, message, line_of(self.source, line), seen(self.chain))

    def refuse(self, error: BaseException, moved: int = 0) -> NoReturn:
        """PageError for what Python says about the code; `moved`: lines that were put before it."""
        code = self.code
        if not isinstance(error, SyntaxError):
            deep = isinstance(error, (RecursionError, MemoryError))
            self.fail(code.line, "the code is nested too deeply" if deep else str(error))
        last = code.line + code.python.count("\n")
        message = error.msg
        unfinished = message.startswith("expected an indented block") and code.python.rstrip().endswith(":")
        if unfinished or _INNER_PART.match(code.python):
            message += _SPANS
        self.fail(min(max((error.lineno or 0) - moved, code.line), last), message)

    def _parse(self) -> list[ast.stmt]:
        """The statements. Empty lines put the code on its line, and an `if` around code that is indented as the page
        is spares dedenting it, which would change strings and columns."""
        code = self.code
        blank = "\n" * (code.line - 1)
        moved = 0
        if not code.margin:
            text = blank + code.python
        elif not code.opened:
            text = f"{blank}if 1:{code.python}"
        else:
            moved = 1 if code.line == 1 else 0  # then there is no line for the `if`
            text = f"{blank[1:]}if 1:\n{code.margin}{code.python}"
        try:
            body = ast.parse(text, self.path).body
        except UNPARSABLE as error:
            self.refuse(error, moved)
        if code.margin and isinstance(body[0], ast.If):
            body = body[0].body
        if code.opened:
            self._move(body, moved)
        return body

    def _move(self, body: list[ast.stmt], lines: int) -> None:
        """Put right the columns of what stands beside the tag, and the lines where one was put before."""
        code = self.code
        white = len(code.code) - len(code.code.lstrip(SPACE))
        before = line_of(self.source, code.line)[: code.column].encode("utf-8", "replace")  # Python counts bytes
        columns = len(before) + white - len(code.margin)
        for statement in body:
            if statement.lineno > code.line and not lines:
                return
            for node in ast.walk(statement):
                if "lineno" in node._attributes:
                    place: Any = node
                    place.lineno -= lines
                    place.end_lineno -= lines
                    place.col_offset += columns if place.lineno == code.line else 0
                    place.end_col_offset += columns if place.end_lineno == code.line else 0

    def _lower(self) -> None:
        """Make calls of the sugar, where the names stand that stand in for it."""
        sugar = dict(self.code.sugar)
        bodies: list[list[Any]] = [self.body] if sugar else []
        while bodies:
            for statement in bodies.pop():
                if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Name):
                    found = sugar.pop(statement.value.id, None)
                    statement.value = self._written(found) if found else statement.value
                else:
                    bodies += [getattr(statement, name, None) or [] for name in _STATEMENT_LISTS]
        for left in sugar.values():
            self.fail(left.line, "text in ``` must be a statement of its own: it is written, and has no value")

    def _written(self, sugar: Sugar) -> ast.expr:
        try:
            return written(sugar)
        except UnicodeEncodeError:
            self.fail(sugar.line, "text in a block must be UTF-8")

    def _check(self) -> None:
        names = self.names
        if names.awaits is not None and self.code.kind == "py":
            self._fail_at(names.awaits, "a <?py block cannot await: write <?pya")
        if names.yields is not None:
            self._fail_at(names.yields, "a block cannot yield: it is no function")
        if names.nonlocals is not None:
            self._fail_at(names.nonlocals, "nonlocal belongs in a function: all blocks of a page share their names")

    def _fail_at(self, node: ast.AST, message: str) -> NoReturn:
        self.fail(getattr(node, "lineno", self.code.line), message)


def seen(chain: tuple[str, ...]) -> tuple[str, ...]:
    """A chain of files as PageError shows it: only where there is an include."""
    return chain if len(chain) > 1 else ()


def line_of(source: str, line: int) -> str:
    """A line of a file, from 1; empty where there is none."""
    lines = source.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return lines[line - 1] if line <= len(lines) else ""


# ---- nodes ----


def at_line(line: int) -> At:
    """The place of generated code: a line, without columns."""
    return At(lineno=line, col_offset=-1, end_lineno=line, end_col_offset=-1)


def name(identifier: str, at: At) -> ast.Name:
    """The value of a variable."""
    return ast.Name(identifier, _LOAD, **at)


def attribute(value: ast.expr, identifier: str, at: At) -> ast.Attribute:
    """The value of an attribute."""
    return ast.Attribute(value, identifier, _LOAD, **at)


def call(function: ast.expr, arguments: list[ast.expr], at: At) -> ast.Call:
    """A call."""
    return ast.Call(function, arguments, [], **at)


def write(piece: ast.expr, at: At) -> ast.Call:
    """Append a piece, of bytes, to the page."""
    return call(name(WRITE, at), [piece], at)


def written(sugar: Sugar) -> ast.expr:
    """What sugar stands for: one piece, made as an f-string, and encoded at once.

    Raises:
        UnicodeEncodeError: there is half a surrogate pair in its text, as of a file that is no UTF-8.
    """
    at = at_line(sugar.line)
    parts = sugar.parts
    if not parts:
        return ast.Constant(None, **at)
    if isinstance(parts[0], str) and len(parts) == 1:
        return write(ast.Constant(parts[0].encode(), **at), at)
    if isinstance(parts[0], Expression) and len(parts) == 1:
        text: ast.expr = _escaped(parts[0])
    else:
        text = ast.JoinedStr([_value(part, at) for part in parts], **at)
    # Half a surrogate pair, which JSON can bring, must not make a page fail for good.
    how: list[ast.expr] = [ast.Constant("utf-8", **at), ast.Constant("replace", **at)]
    return write(call(attribute(text, "encode", at), how, at), at)


def _value(part: str | Expression, at: At) -> ast.expr:
    if isinstance(part, str):
        part.encode()
        return ast.Constant(part, **at)
    return ast.FormattedValue(_escaped(part), -1, None, **at)


def _escaped(part: Expression) -> ast.Call:
    at = _place(part.node)
    value = part.node
    if part.format is not None:
        form = ast.JoinedStr([ast.Constant(part.format, **at)], **at)
        value = ast.JoinedStr([ast.FormattedValue(value, -1, form, **at)], **at)
    return call(name(ESCAPE, at), [value], at)


def _place(node: ast.expr) -> At:
    end_line = node.lineno if node.end_lineno is None else node.end_lineno
    end_column = node.col_offset if node.end_col_offset is None else node.end_col_offset
    return At(lineno=node.lineno, col_offset=node.col_offset, end_lineno=end_line, end_col_offset=end_column)
