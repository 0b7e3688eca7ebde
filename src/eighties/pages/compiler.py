"""Tokens to one Python function per page.

A page is a function, and its blocks share the function's variables, in includes too, and in functions, classes and
comprehensions that they define. An included file with code of its own becomes a function within it, as one function has
one file name in tracebacks; so does a block that is left by `return`, waits for `done()`, or runs beside others.
main.py's names are the function's globals. What the request brings is looked up in the page's context where it is used.
Keeps no state: `site.py` calls `compile_page` and keeps what it returns.
"""

from __future__ import annotations

import ast
import asyncio
import copy
import posixpath
import re
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable
from contextvars import ContextVar
from functools import partial
from types import CodeType, FunctionType
from typing import Any, NamedTuple, NoReturn, Protocol, cast

from .blocks import ESCAPE, WRITE, At, Block, at_line, attribute, call, line_of, name, seen, write
from .scanner import BOM, UNPARSABLE, Code, Expression, Include, Page, PageError, Text, scan

MAX_DEPTH = 64
"""Files deep that includes may go, as in the ancestor: what is deeper is a mistake."""
MAX_INCLUDES = 10_000
"""Includes in all: a file that includes one twice that includes one twice… would soon be longer than memory."""

CONTEXT_NAMES = frozenset(
    "session locals endpoint query headers body method request form status header write escape raw post_render to_url"
    " redirect cookies set_cookie await_".split()
)
"""What code in a page may call by name, beside `done`: attributes of its context."""

# Names in generated code begin with a dot, see blocks.py; functions are named as tracebacks show them, and numbered.
_CONTEXT, _BRANCHES, _DONE = ".context", ".branches", ".done"
_NUMBERED = re.compile(r"(<(?:block|branch|include)) \d+>")
Chain = tuple[str, ...]
"""Files from the page down to one."""
Read = Callable[[str], str]
Render = Callable[["PageContext"], "Awaitable[None] | None"]


class Done(Protocol):
    """What a block finds as `done`: calling it once finishes the block; awaiting it waits for that."""

    def __call__(self) -> object: ...

    def __await__(self) -> Generator[Any, Any, Any]: ...


class PageContext(Protocol):
    """What a page's function needs of the object it is called with, beside an attribute for each of CONTEXT_NAMES, and
    `request.query`, which reads like `query` but has no `e`.

    Attributes:
        out: the body so far, in pieces; a page appends to it. A parallel page puts another list in its place while it
            runs, so `write` must take it from here at each call, and only append.
    """

    out: list[bytes]

    def escape(self, value: Any, /) -> str:
        """The value as HTML text; of a fragment that is HTML already, the fragment."""

    def make_done(self) -> Done:
        """What one block is to find as `done`."""


class CompiledPage(NamedTuple):
    """A page, ready to be run any number of times.

    Arguments:
        path: its file.
        run: writes the page to the context's `out`; where `is_async`, what it returns has to be awaited.
        is_async: whether the page has `<?pya` blocks, or blocks that wait for `done()`.
        parallel: whether its blocks run at once.
        static: the whole body, where no code is in it.
        files: all files it is made of, itself first: those to watch.
        uses: which of CONTEXT_NAMES, and of `done`, its code mentions.
    """

    path: str
    run: Render
    is_async: bool
    parallel: bool
    static: bytes | None
    files: tuple[str, ...]
    uses: frozenset[str]

    def with_names(self, names: dict[str, Any]) -> CompiledPage:
        """The same page with other globals: main.py has been executed again."""
        run: Any = self.run
        if isinstance(run, FunctionType):
            return self._replace(run=FunctionType(run.__code__, names))
        if self.parallel:
            return self._replace(run=partial(run.func, FunctionType(run.args[0].__code__, names)))
        return self


def compile_page(path: str, read: Read, names: dict[str, Any]) -> CompiledPage:
    """A page and what it includes as one function.

    Arguments:
        path: the page's file, as `read` and tracebacks are to name it; includes are named relative to it.
        read: gives a file's text, its line ends as they are; what is no UTF-8 may come as `surrogateescape` has it.
        names: the globals of the page's code: main.py's.
    Raises:
        PageError: names file, line and reason: there is no such file, includes go in a circle or too deep, the syntax
            of the page or of its Python is wrong.
    """
    loader = _Loader(path, read)
    parts = loader.load((path,))
    blocks = list(_blocks(parts))
    if not blocks:
        static = b"".join(part for part in parts if isinstance(part, bytes))
        return CompiledPage(path, partial(_send, static), False, False, static, loader.files, frozenset())
    maker = _Maker(path, blocks, loader.parallel)
    function = maker.page(parts)
    main = FunctionType(maker.code(function), names)
    run: Render = partial(_run_parallel, main) if loader.parallel else main
    is_async = loader.parallel or isinstance(function, ast.AsyncFunctionDef)
    return CompiledPage(path, run, is_async, loader.parallel, None, loader.files, frozenset(maker.uses))


def _send(static: bytes, context: PageContext) -> None:
    context.out.append(static)


# ---- files to parts ----


class _Included(NamedTuple):
    """An included file with code of its own, and the line of its include in the file around it."""

    path: str
    line: int
    parts: list[Any]


_Part = bytes | Block | _Included


class _Loader:
    """Reads the files of a page, each once."""

    def __init__(self, path: str, read: Read) -> None:
        self.page = path
        self.read = read
        self.scanned: dict[str, tuple[str, Page]] = {}
        self.includes = 0
        self.parallel = False

    @property
    def files(self) -> tuple[str, ...]:
        return tuple(self.scanned)

    def load(self, chain: Chain, include: tuple[Include, str] | None = None, first: bool = True) -> list[_Part]:
        """The parts of a file, and of what it includes.

        Arguments:
            chain: the files from the page to this one.
            include: what includes it, and the text that stands in.
            first: whether the file begins the page.
        """
        source, page = self._scan(chain, include)
        self.parallel = self.parallel or (first and page.parallel)
        parts: list[_Part] = []
        for token in page.tokens:
            if isinstance(token, Text):
                parts.append(_encoded(token, source, chain))
                first = first and token.text == BOM
            elif isinstance(token, Code):
                parts.append(Block(token, chain, source))
                first = False
            else:
                parts += self._include(token, source, chain, first)
                first = False
        return _merged(parts)

    def _include(self, token: Include, source: str, chain: Chain, first: bool) -> list[_Part]:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(chain[-1]), token.path))
        below = (*chain, path)
        self.includes += 1
        if path in chain:
            self._fail(token, source, chain, f"includes go in a circle: {self._told(below)}")
        if len(chain) > MAX_DEPTH:
            self._fail(token, source, chain, f"includes go more than {MAX_DEPTH} files deep: {self._told(below)}")
        if self.includes > MAX_INCLUDES:
            self._fail(token, source, chain, f"a page of more than {MAX_INCLUDES} includes")
        parts = self.load(below, (token, source), first)
        if any(isinstance(part, Block) for part in parts):
            return [_Included(path, token.line, parts)]
        # Without code of its own a file needs no function: what it includes is called from the file around it.
        return [part._replace(line=token.line) if isinstance(part, _Included) else part for part in parts]

    def _scan(self, chain: Chain, include: tuple[Include, str] | None) -> tuple[str, Page]:
        path = chain[-1]
        if path not in self.scanned:
            try:
                source = self.read(path)
            except OSError as error:
                reason = error.strerror or str(error)
                if include is None:
                    raise PageError(path, 1, f"the page cannot be read: {reason}") from error
                self._fail(*include, chain[:-1], f"cannot include {self._told(chain)}: {reason}")
            if include is not None:
                source = source.removeprefix(BOM)  # it marks a file as UTF-8, and is no text amid another
            try:
                self.scanned[path] = source, scan(source, path)
            except PageError as error:
                error.chain = seen(chain)
                raise
        return self.scanned[path]

    def _fail(self, include: Include, source: str, chain: Chain, message: str) -> NoReturn:
        raise PageError(chain[-1], include.line, message, line_of(source, include.line), seen(chain))

    def _told(self, chain: Chain) -> str:
        base = posixpath.dirname(self.page)
        return " -> ".join(posixpath.relpath(path, base) if base else path for path in chain)


def _encoded(token: Text, source: str, chain: Chain) -> bytes:
    try:
        return token.text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        line = token.line + token.text.count("\n", 0, error.start)
        text = line_of(source, line)
        raise PageError(chain[-1], line, "half a surrogate pair is no text", text, seen(chain)) from None


def _merged(parts: list[_Part]) -> list[_Part]:
    """Texts that stand side by side as one: each costs a call."""
    merged: list[_Part] = []
    for part in parts:
        if isinstance(part, bytes) and merged and isinstance(merged[-1], bytes):
            merged[-1] += part
        else:
            merged.append(part)
    return merged


def _blocks(parts: Iterable[_Part]) -> Generator[Block, None, None]:
    for part in parts:
        if isinstance(part, Block):
            yield part
        elif isinstance(part, _Included):
            yield from _blocks(part.parts)


# ---- parts to a function ----


class _Maker:
    """Makes a page's function, given all its blocks in order."""

    def __init__(self, path: str, blocks: list[Block], parallel: bool) -> None:
        self.path = path
        self.blocks = blocks
        self.parallel = parallel
        self.uses: set[str] = set()
        self.paths: dict[str, str] = {}  # of the functions within the page's, by name
        self.globals = {one for block in blocks for one in block.names.globals}
        self.bound = {one for block in blocks for one in block.names.binds} - self.globals
        self.rebound = {one for block in blocks for one in block.names.rebound} & CONTEXT_NAMES
        self.shared: set[str] = set()  # names that functions within the page's bind
        for block in blocks:
            self._use_context(block)

    def _use_context(self, block: Block) -> None:
        loads = block.names.loads
        if "done" in loads and "done" not in self.bound | self.globals:
            self.uses.add("done")
            block.waits = block.separate = True
        if self.parallel and block.code.kind == "pya":
            block.separate = True
        for one in CONTEXT_NAMES.intersection(loads) - self.globals:
            self.uses.add(one)
            if one not in self.bound | self.rebound:
                for node in loads[one]:
                    _become_attribute(node)

    def page(self, parts: list[_Part]) -> ast.FunctionDef | ast.AsyncFunctionDef:
        """The function. It takes the context; of a parallel page, also its Branches."""
        body, is_async = self._statements(parts)
        arguments = [_CONTEXT, _BRANCHES] if self.parallel else [_CONTEXT]
        return _function("<page>", arguments, self._head() + body, is_async)

    def code(self, function: ast.FunctionDef | ast.AsyncFunctionDef) -> CodeType:
        """The function's code, each function in it with its file's name."""
        try:
            return self._named(_compiled(function, self.path), self.path)
        except UNPARSABLE as error:
            self._blame(error)

    def _blame(self, error: BaseException) -> NoReturn:
        """PageError for the block that cannot be compiled: what Python's parser lets pass, as a `break` in no loop."""
        at = at_line(1)
        for block in self.blocks:
            try:
                body = [_declared(self.bound | self.rebound, at), *block.body]
                _compiled(_function("<page>", [_CONTEXT], body, is_async=True), block.path)
            except UNPARSABLE as own:
                block.refuse(own)
        raise PageError(self.path, getattr(error, "lineno", None) or 1, getattr(error, "msg", str(error))) from error

    def _named(self, code: CodeType, path: str) -> CodeType:
        path = self.paths.get(code.co_name, path)
        consts = tuple(self._named(one, path) if isinstance(one, CodeType) else one for one in code.co_consts)
        shown, qualified = _NUMBERED.sub(r"\1>", code.co_name), _NUMBERED.sub(r"\1>", code.co_qualname)
        return code.replace(co_consts=consts, co_filename=path, co_name=shown, co_qualname=qualified)

    def _head(self) -> list[ast.stmt]:
        """What the page's function begins with: its globals, its variables, and what it uses often."""
        at = at_line(1)
        out: ast.expr = name(_BRANCHES, at) if self.parallel else attribute(name(_CONTEXT, at), "out", at)
        head: list[ast.stmt] = [ast.Global(sorted(self.globals), **at)] if self.globals else []
        if self.shared:
            head.append(_declared(self.shared, at))
        head.append(_assign(WRITE, attribute(out, "append", at), at))
        parts = [part for block in self.blocks for sugar in block.code.sugar.values() for part in sugar.parts]
        if any(isinstance(part, Expression) for part in parts):
            head.append(_assign(ESCAPE, attribute(name(_CONTEXT, at), "escape", at), at))
        for one, line in self._variables_from_context().items():
            at = at_line(line)
            head.append(_assign(one, attribute(name(_CONTEXT, at), one, at), at))
        return head

    def _variables_from_context(self) -> dict[str, int]:
        """Names of the context that the page binds itself, but reads first: `body = body.decode()`. And the lines."""
        found: dict[str, int] = dict.fromkeys(sorted(self.rebound - self.bound), 1)
        bound: set[str] = set()
        for block in self.blocks:
            names = block.names
            for one in (CONTEXT_NAMES & self.bound).intersection(names.loads) - bound:
                if one in names.reads_first:
                    found[one] = names.loads[one][0].lineno if block.path == self.path else 1
            bound |= names.binds
        return found

    def _statements(self, parts: list[_Part]) -> tuple[list[ast.stmt], bool]:
        """A file's statements, and whether they await."""
        body: list[ast.stmt] = []
        is_async = False
        for part in parts:
            if isinstance(part, bytes):
                at = at_line(1)
                body.append(ast.Expr(write(ast.Constant(part, **at), at), **at))
                continue
            if isinstance(part, _Included):
                statements, awaits = self._included(part)
            elif part.separate:
                statements, awaits = self._separate(part)
            else:
                statements, awaits = part.body, part.is_async
            body += statements
            is_async = is_async or awaits
        return body, is_async

    def _included(self, part: _Included) -> tuple[list[ast.stmt], bool]:
        body, is_async = self._statements(part.parts)
        binds = {one for block in part.parts if isinstance(block, Block) for one in block.names.binds}
        function = self._inner("<include", part.path, [], body, binds, is_async)
        return [function, _run(function.name, [], is_async, at_line(part.line))], is_async

    def _separate(self, block: Block) -> tuple[list[ast.stmt], bool]:
        """A block that is a function of its own."""
        coroutine = block.code.kind == "pya"
        at = at_line(block.code.line)
        arguments = ["done"] if block.waits else []
        function = self._inner("<block", block.path, arguments, block.body, block.names.binds, coroutine)
        if self.parallel and coroutine and not block.waits:
            return [function, _start(function.name, at)], False
        if not block.waits:
            return [function, _run(function.name, [], coroutine, at)], coroutine
        done = name(_DONE, at)
        body: list[ast.stmt] = [
            function,
            _assign(_DONE, call(attribute(name(_CONTEXT, at), "make_done", at), [], at), at),
            _run(function.name, [done], coroutine, at),
            ast.Expr(ast.Await(done, **at), **at),
        ]
        if not self.parallel:
            return body, True
        branch = self._inner("<branch", block.path, [], body, set(), is_async=True)
        return [branch, _start(branch.name, at)], False

    def _inner(
        self, kind: str, path: str, arguments: list[str], body: list[ast.stmt], binds: set[str], is_async: bool
    ) -> ast.FunctionDef | ast.AsyncFunctionDef:
        """A function within the page's, which shares the page's variables; `binds`: those that it changes."""
        number = len(self.paths)
        self.paths[f"{kind} {number}>"] = path
        at = at_line(1)
        head: list[ast.stmt] = []
        if binds & self.globals:
            head.append(ast.Global(sorted(binds & self.globals), **at))
        if binds - self.globals:
            head.append(ast.Nonlocal(sorted(binds - self.globals), **at))
            self.shared |= binds - self.globals
        return _function(f"{kind} {number}>", arguments, head + body, is_async)


def _become_attribute(node: ast.Name) -> None:
    """Have a name read the context's attribute, so that it costs where it is used.

    In place: a NodeTransformer, which would have to find each node's parent, takes longer than all the rest together.
    """
    at = At(lineno=node.lineno, col_offset=node.col_offset, end_lineno=node.lineno, end_col_offset=node.col_offset)
    found: Any = node
    found.__class__ = ast.Attribute
    found.value = name(_CONTEXT, at)
    if found.id == "query" and getattr(found, "plain", False):  # straight to the request's, which is half a page faster
        found.value = attribute(found.value, "request", at)
    found.attr = found.id


def _compiled(function: ast.FunctionDef | ast.AsyncFunctionDef, path: str) -> CodeType:
    module = compile(ast.Module([function], []), path, "exec", dont_inherit=True)
    return next(one for one in module.co_consts if isinstance(one, CodeType))


_TEMPLATES = [cast(ast.FunctionDef, ast.parse(f"{kind}def f(): pass").body[0]) for kind in ("", "async ")]
"""Parsed, as each version of Python has other fields, and once: a site has thousands of functions."""


def _function(
    identifier: str, arguments: list[str], body: list[ast.stmt], is_async: bool
) -> ast.FunctionDef | ast.AsyncFunctionDef:
    function = copy.copy(_TEMPLATES[is_async])
    function.args = copy.copy(function.args)
    function.name = identifier
    function.args.args = [ast.arg(one, None, **at_line(1)) for one in arguments]
    function.body = body or function.body
    return function


def _assign(identifier: str, value: ast.expr, at: At) -> ast.stmt:
    return ast.Assign([ast.Name(identifier, ast.Store(), **at)], value, None, **at)


def _declared(names: Iterable[str], at: At) -> ast.stmt:
    """Code that never runs, and makes names variables of the function it stands in."""
    targets: list[ast.expr] = [ast.Name(one, ast.Store(), **at) for one in sorted(names)]
    never = ast.Assign(targets or [ast.Name(_DONE, ast.Store(), **at)], ast.Constant(None, **at), None, **at)
    return ast.If(ast.Constant(False, **at), [never], [], **at)


def _run(identifier: str, arguments: list[ast.expr], is_async: bool, at: At) -> ast.stmt:
    value: ast.expr = call(name(identifier, at), arguments, at)
    return ast.Expr(ast.Await(value, **at) if is_async else value, **at)


def _start(identifier: str, at: At) -> ast.stmt:
    return ast.Expr(call(attribute(name(_BRANCHES, at), "start", at), [name(identifier, at)], at), **at)


# ---- parallel pages ----

_Asynchronous = Callable[[], Coroutine[Any, Any, object]]


class _Branch(list[bytes]):
    """What one block of a parallel page has written."""

    __slots__ = ("page",)

    def __init__(self, page: Branches) -> None:
        self.page = page


_branch: ContextVar[_Branch | None] = ContextVar("branch", default=None)
"""The block at hand: tasks and callbacks that it starts write where it does."""


class Branches(list[bytes]):
    """The body of a parallel page while it runs: what a block writes goes to its place in the page."""

    def __init__(self, context: PageContext) -> None:
        self.main = context.out  # where what stands between the blocks goes
        self.pieces: list[list[bytes]] = [self.main]
        self.blocks: list[tuple[_Branch, _Asynchronous]] = []
        context.out = self

    def append(self, piece: bytes, /) -> None:
        branch = _branch.get()
        (self.main if branch is None or branch.page is not self else branch).append(piece)

    def start(self, block: _Asynchronous) -> None:
        """Have a block run when the page's synchronous code has; it writes where the page is now."""
        branch = _Branch(self)
        self.main = []
        self.pieces += (branch, self.main)
        self.blocks.append((branch, block))

    async def run(self) -> None:
        """Run the blocks at once.

        Raises:
            BaseException: the first that a block raised; the others are cancelled. Further ones are logged by the loop.
        """
        tasks = []
        errors: tuple[BaseException, ...] = ()
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(_run_branch(branch, block)) for branch, block in self.blocks]
        except BaseExceptionGroup as several:
            errors = several.exceptions
        for error in errors[1:]:
            message = "a parallel page: a further block has failed"
            asyncio.get_running_loop().call_exception_handler({"message": message, "exception": error})
        if errors:
            raise errors[0]
        if any(task.cancelled() for task in tasks):  # a block that waited for what was cancelled: a group says nothing
            raise asyncio.CancelledError


async def _run_branch(branch: _Branch, block: _Asynchronous) -> None:
    _branch.set(branch)
    await block()


async def _run_parallel(main: Callable[[PageContext, Branches], object], context: PageContext) -> None:
    branches = Branches(context)
    try:
        main(context, branches)
        await branches.run()
    finally:
        context.out = [piece for pieces in branches.pieces for piece in pieces]
