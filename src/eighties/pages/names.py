"""The names of a block: which it binds, and which it takes from elsewhere.

Python's own rules of scope (reference §4.2), applied to code that is no function yet: a block becomes part of one with
other blocks, and shares its variables with them. Pure; `compiler.py` calls `analyse` for each block.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable
from typing import Literal

Kind = Literal["block", "function", "comprehension", "class"]

PLAIN_QUERY = frozenset(("get", "getall", "items", "keys", "pairs", "values"))
"""Methods that `urls.Query` and the request's own query share."""


class Names:
    """What `analyse` found.

    Attributes:
        loads: the nodes that read a name which no function, class or comprehension within the block binds.
        binds: names bound in the block itself: its variables.
        reads_first: names of `loads` that are read before the block binds them, if it does.
        globals: names that the block itself declares global.
        rebound: names that functions within the block declare nonlocal.
        returns: whether a `return` ends the block.
        awaits, yields, nonlocals: the first such node in the block itself.
    """

    __slots__ = ("awaits", "binds", "globals", "loads", "nonlocals", "reads_first", "rebound", "returns", "yields")

    def __init__(self) -> None:
        self.loads: dict[str, list[ast.Name]] = {}
        self.binds: set[str] = set()
        self.reads_first: set[str] = set()
        self.globals: set[str] = set()
        self.rebound: set[str] = set()
        self.returns = False
        self.awaits: ast.AST | None = None
        self.yields: ast.AST | None = None
        self.nonlocals: ast.AST | None = None


def analyse(body: list[ast.stmt]) -> Names:
    """The names of a block, given its statements. `global` declarations in the block itself are emptied: the compiler
    makes them for the whole page.

    Raises:
        RecursionError: the code is nested too deeply.
    """
    reader = _Reader()
    reader.visit_all(body)
    names = reader.names
    names.binds = reader.scope.binds - names.globals
    return names


class _Scope:
    __slots__ = ("binds", "globals", "kind", "loads", "nonlocals", "outer", "passed")

    def __init__(self, kind: Kind, outer: _Scope | None) -> None:
        self.kind = kind
        self.outer = outer
        self.binds: set[str] = set()
        self.globals: set[str] = set()
        self.nonlocals: set[str] = set()
        self.loads: list[ast.Name] = []
        self.passed: list[ast.Name] = []  # what functions within a class read: they do not see the class's names


class _Reader:
    """Visits nodes in the order Python evaluates them, as far as it matters here."""

    def __init__(self) -> None:
        self.names = Names()
        self.scope = _Scope("block", None)

    def visit(self, node: ast.AST) -> None:
        handler = _HANDLERS.get(type(node))
        if handler is not None:
            handler(self, node)
        else:
            self.visit_children(node)

    def visit_children(self, node: ast.AST) -> None:
        for field in node._fields:
            value = getattr(node, field, None)
            if isinstance(value, list):
                self.visit_all(value)
            elif isinstance(value, ast.AST):
                self.visit(value)

    def visit_all(self, nodes: Iterable[ast.AST | None]) -> None:
        for node in nodes:
            if isinstance(node, ast.AST):
                self.visit(node)

    # ---- scopes ----

    def _bind(self, name: str | None) -> None:
        scope = self.scope
        if name is not None and name not in scope.globals and name not in scope.nonlocals:
            scope.binds.add(name)

    def _enter(self, kind: Kind) -> None:
        self.scope = _Scope(kind, self.scope)

    def _leave(self) -> None:
        scope, outer = self.scope, self.scope.outer
        assert outer is not None
        self.scope = outer
        free = [node for node in scope.loads if node.id not in scope.binds and node.id not in scope.globals]
        for node in scope.passed + free:
            if outer.kind == "class":
                outer.passed.append(node)
            else:
                self._load(node)

    def _load(self, node: ast.Name) -> None:
        """A name is read in the scope at hand."""
        scope, name = self.scope, node.id
        if scope.kind != "block":
            scope.loads.append(node)
        else:
            self.names.loads.setdefault(name, []).append(node)
            if name not in scope.binds:
                self.names.reads_first.add(name)

    def _own(self) -> bool:
        """Whether the code at hand runs as part of the block, and not when a function is called."""
        scope = self.scope
        while scope.kind == "comprehension" and scope.outer is not None:
            scope = scope.outer
        return scope.kind == "block"

    # ---- expressions ----

    def _nothing(self, node: ast.AST) -> None:
        pass

    def _attribute(self, node: ast.Attribute) -> None:
        """`query.get` and the like need nothing that a plain query has not: the compiler asks for `plain`."""
        if isinstance(node.value, ast.Name) and node.attr in PLAIN_QUERY:
            vars(node.value)["plain"] = True
        self.visit(node.value)

    def _subscript(self, node: ast.Subscript) -> None:
        if isinstance(node.value, ast.Name):
            vars(node.value)["plain"] = True
        self.visit(node.value)
        self.visit(node.slice)

    def _name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load):
            self._load(node)
        else:
            self._bind(node.id)

    def _bin_op(self, node: ast.BinOp) -> None:
        """Without recursion to the left: `"a" + "b" + …` over many lines is as deep as it is long."""
        left: ast.expr = node
        rights = []
        while isinstance(left, ast.BinOp):
            rights.append(left.right)
            left = left.left
        self.visit(left)
        self.visit_all(reversed(rights))

    def _named_expr(self, node: ast.NamedExpr) -> None:
        """`:=` in a comprehension binds where the comprehension stands (PEP 572)."""
        self.visit(node.value)
        inner = self.scope
        while self.scope.kind == "comprehension" and self.scope.outer is not None:
            self.scope = self.scope.outer
        self._bind(node.target.id)
        self.scope = inner

    def _await(self, node: ast.Await) -> None:
        self._awaits(node)
        self.visit(node.value)

    def _awaits(self, node: ast.AST) -> None:
        if self.names.awaits is None and self._own():
            self.names.awaits = node

    def _yield(self, node: ast.Yield | ast.YieldFrom) -> None:
        if self.names.yields is None and self._own():
            self.names.yields = node
        self.visit_children(node)

    def _lambda(self, node: ast.Lambda) -> None:
        self._defaults(node.args)
        self._enter("function")
        self._arguments(node.args)
        self.visit(node.body)
        self._leave()

    def _comprehension(self, node: ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp) -> None:
        self.visit(node.generators[0].iter)
        if not isinstance(node, ast.GeneratorExp) and any(part.is_async for part in node.generators):
            self._awaits(node)
        self._enter("comprehension")
        for index, part in enumerate(node.generators):
            if index:
                self.visit(part.iter)
            self.visit(part.target)
            self.visit_all(part.ifs)
        values = (node.key, node.value) if isinstance(node, ast.DictComp) else (node.elt,)
        self.visit_all(values)
        self._leave()

    # ---- statements ----

    def _assign(self, node: ast.Assign) -> None:
        self.visit(node.value)
        self.visit_all(node.targets)

    def _aug_assign(self, node: ast.AugAssign) -> None:
        if isinstance(node.target, ast.Name):
            self._load(node.target)
        self.visit(node.value)
        self.visit(node.target)

    def _ann_assign(self, node: ast.AnnAssign) -> None:
        """A function evaluates no annotations of its variables, and those it shares with others can have none."""
        if node.value is not None:
            self.visit(node.value)
            self.visit(node.target)
        if self.scope.kind == "class":
            self.visit(node.annotation)
        elif self.scope.kind == "block":
            node.simple = 0

    def _for(self, node: ast.For | ast.AsyncFor) -> None:
        if isinstance(node, ast.AsyncFor):
            self._awaits(node)
        self.visit(node.iter)
        self.visit(node.target)
        self.visit_all(node.body)
        self.visit_all(node.orelse)

    def _async_with(self, node: ast.AsyncWith) -> None:
        self._awaits(node)
        self.visit_children(node)

    def _return(self, node: ast.Return) -> None:
        if self.scope.kind == "block":
            self.names.returns = True
        self.visit_children(node)

    def _global(self, node: ast.Global) -> None:
        if self.scope.kind == "block":
            self.names.globals.update(node.names)
            node.names = [".none"]  # a name no code can have
        else:
            self.scope.globals.update(node.names)

    def _nonlocal(self, node: ast.Nonlocal) -> None:
        if self.scope.kind == "block":
            self.names.nonlocals = self.names.nonlocals or node
        else:
            self.names.rebound.update(node.names)
        self.scope.nonlocals.update(node.names)

    def _import(self, node: ast.Import | ast.ImportFrom) -> None:
        for alias in node.names:
            self._bind(alias.asname or alias.name.partition(".")[0])

    def _except(self, node: ast.ExceptHandler) -> None:
        if node.type is not None:
            self.visit(node.type)
        self._bind(node.name)
        self.visit_all(node.body)

    def _match(self, node: ast.MatchAs | ast.MatchStar) -> None:
        self.visit_children(node)
        self._bind(node.name)

    def _match_mapping(self, node: ast.MatchMapping) -> None:
        self.visit_children(node)
        self._bind(node.rest)

    def _type_parameter(self, node: ast.AST) -> None:
        self.visit_children(node)
        self._bind(getattr(node, "name", None))

    def _defaults(self, arguments: ast.arguments) -> None:
        self.visit_all(arguments.defaults)
        self.visit_all(arguments.kw_defaults)

    def _arguments(self, arguments: ast.arguments) -> None:
        for argument in _all_arguments(arguments):
            self._bind(argument.arg)

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self.visit_all(node.decorator_list)
        self._defaults(node.args)
        for argument in _all_arguments(node.args):
            self.visit_all([argument.annotation])
        self.visit_all([node.returns])
        self._bind(node.name)
        self._enter("function")
        self.visit_all(getattr(node, "type_params", ()))
        self._arguments(node.args)
        self.visit_all(node.body)
        self._leave()

    def _class(self, node: ast.ClassDef) -> None:
        self.visit_all(node.decorator_list)
        self.visit_all(node.bases)
        self.visit_all(node.keywords)
        self._bind(node.name)
        self._enter("class")
        self.visit_all(getattr(node, "type_params", ()))
        self.visit_all(node.body)
        self._leave()


def _all_arguments(arguments: ast.arguments) -> list[ast.arg]:
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    return every + [one for one in (arguments.vararg, arguments.kwarg) if one is not None]


_HANDLERS: dict[type[ast.AST], Callable[..., None]] = {
    ast.Constant: _Reader._nothing,
    ast.Load: _Reader._nothing,
    ast.Store: _Reader._nothing,
    ast.Name: _Reader._name,
    ast.Attribute: _Reader._attribute,
    ast.Subscript: _Reader._subscript,
    ast.BinOp: _Reader._bin_op,
    ast.Assign: _Reader._assign,
    ast.AugAssign: _Reader._aug_assign,
    ast.AnnAssign: _Reader._ann_assign,
    ast.NamedExpr: _Reader._named_expr,
    ast.For: _Reader._for,
    ast.AsyncFor: _Reader._for,
    ast.AsyncWith: _Reader._async_with,
    ast.Await: _Reader._await,
    ast.Yield: _Reader._yield,
    ast.YieldFrom: _Reader._yield,
    ast.Return: _Reader._return,
    ast.Global: _Reader._global,
    ast.Nonlocal: _Reader._nonlocal,
    ast.Import: _Reader._import,
    ast.ImportFrom: _Reader._import,
    ast.ExceptHandler: _Reader._except,
    ast.MatchAs: _Reader._match,
    ast.MatchStar: _Reader._match,
    ast.MatchMapping: _Reader._match_mapping,
    ast.FunctionDef: _Reader._function,
    ast.AsyncFunctionDef: _Reader._function,
    ast.Lambda: _Reader._lambda,
    ast.ClassDef: _Reader._class,
    ast.ListComp: _Reader._comprehension,
    ast.SetComp: _Reader._comprehension,
    ast.DictComp: _Reader._comprehension,
    ast.GeneratorExp: _Reader._comprehension,
}
for _name in ("TypeVar", "ParamSpec", "TypeVarTuple"):  # of Python 3.12
    if hasattr(ast, _name):
        _HANDLERS[getattr(ast, _name)] = _Reader._type_parameter
