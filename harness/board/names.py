"""Which name of a source file means what: scopes and bindings, as Python's own rules have them.

Standard library only: it runs in the child process of `harness.board.program`.
"""

import ast
from collections.abc import Iterable
from dataclasses import dataclass, field

#: What the worker calls by name.
CONTRACT = frozenset({"inner_steps", "setup", "get_strategy"})


@dataclass
class Binding:
    """A name of one scope. `paths` are what imports bind it to; `otherwise` counts all other ways."""

    paths: set[str] = field(default_factory=set)
    otherwise: int = 0
    functions: list[ast.AST] = field(default_factory=list)
    kept: bool = False
    number: int = -1

    @property
    def path(self) -> str:
        """What it stands for, if it is an import and nothing else; else empty."""
        only = len(self.paths) == 1 and not self.otherwise and not self.kept
        return next(iter(self.paths)) if only else ""


@dataclass
class Scope:
    """`kind`: module, function, class or comprehension."""

    kind: str
    parent: "Scope | None"
    names: dict[str, Binding] = field(default_factory=dict)
    elsewhere: dict[str, str] = field(default_factory=dict)  # name to "global" or "nonlocal"

    def module(self) -> "Scope":
        scope = self
        while scope.parent is not None:
            scope = scope.parent
        return scope

    def bind(self, name: str) -> Binding:
        """The binding that an assignment in this scope makes or changes."""
        if self.elsewhere.get(name) == "global":
            return self.module().bind(name)
        if self.elsewhere.get(name) == "nonlocal":
            found = self.parent.find(name) if self.parent is not None else None
            return found or Binding()
        if name not in self.names:
            kept = self.kind == "class" or (name.startswith("__") and name.endswith("__"))
            contract = self.kind == "module" and name in CONTRACT
            self.names[name] = Binding(kept=kept or contract)
        return self.names[name]

    def find(self, name: str) -> Binding | None:
        """What the name means here; None for a builtin, or a name that nobody binds."""
        if self.elsewhere.get(name) == "global":
            return self.module().names.get(name)
        scope: Scope | None = self
        while scope is not None:
            seen = scope is self or scope.kind != "class"
            if seen and name in scope.names and name not in scope.elsewhere:
                return scope.names[name]
            scope = scope.parent
        return None


Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
Comprehension = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp


class Binder(ast.NodeVisitor):
    """First pass: which scope binds which name. `scopes` holds the inner scope of a node."""

    def __init__(self) -> None:
        self.scope = Scope("module", None)
        self.scopes: dict[ast.AST, Scope] = {}

    def _bind(self, name: str) -> Binding:
        binding = self.scope.bind(name)
        binding.otherwise += 1
        return binding

    def _inside(self, node: ast.AST, kind: str, parts: Iterable[ast.AST]) -> None:
        outer, self.scope = self.scope, Scope(kind, self.scope)
        self.scopes[node] = self.scope
        for part in parts:
            self.visit(part)
        self.scope = outer

    def _function(self, node: Function) -> None:
        body: list[ast.AST] = [node.body] if isinstance(node, ast.Lambda) else [*node.body]
        annotations = [arg.annotation for arg in all_arguments(node.args)]
        for outside in (*node.args.defaults, *node.args.kw_defaults, *annotations):
            if outside is not None:
                self.visit(outside)
        if not isinstance(node, ast.Lambda):
            self._bind(node.name).functions.append(node)
            for part in (*node.decorator_list, node.returns):
                if part is not None:
                    self.visit(part)
        self._inside(node, "function", [*all_arguments(node.args), *body])

    visit_FunctionDef = visit_AsyncFunctionDef = visit_Lambda = _function  # noqa: N815

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._bind(node.name)
        for part in (*node.bases, *node.keywords, *node.decorator_list):
            self.visit(part)
        self._inside(node, "class", node.body)

    def _comprehension(self, node: Comprehension) -> None:
        parts: list[ast.AST] = []
        for number, generator in enumerate(node.generators):
            # The first is evaluated outside, before there is a scope.
            parts += [generator.target, *([generator.iter] if number else []), *generator.ifs]
        self.visit(node.generators[0].iter)
        parts += [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
        self._inside(node, "comprehension", parts)

    visit_ListComp = visit_SetComp = _comprehension  # noqa: N815
    visit_DictComp = visit_GeneratorExp = _comprehension  # noqa: N815

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        scope = self.scope
        while scope.kind == "comprehension" and scope.parent is not None:
            scope = scope.parent
        scope.bind(node.target.id).otherwise += 1
        self.visit(node.value)

    def visit_Name(self, node: ast.Name) -> None:
        if not isinstance(node.ctx, ast.Load):
            self._bind(node.id)

    def visit_arg(self, node: ast.arg) -> None:
        self._bind(node.arg)

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        if node.name:
            self._bind(node.name)
        self.generic_visit(node)

    def _pattern(self, node: ast.MatchAs | ast.MatchStar | ast.MatchMapping) -> None:
        name = node.rest if isinstance(node, ast.MatchMapping) else node.name
        if name:
            self._bind(name)
        self.generic_visit(node)

    visit_MatchAs = visit_MatchStar = visit_MatchMapping = _pattern  # noqa: N815

    def visit_Global(self, node: ast.Global) -> None:
        self.scope.elsewhere.update(dict.fromkeys(node.names, "global"))

    def visit_Nonlocal(self, node: ast.Nonlocal) -> None:
        self.scope.elsewhere.update(dict.fromkeys(node.names, "nonlocal"))

    def _import(self, node: ast.Import | ast.ImportFrom) -> None:
        for alias in node.names:
            if alias.name != "*":
                self.scope.bind(bound_name(node, alias)).paths.add(path_of(node, alias))

    visit_Import = visit_ImportFrom = _import  # noqa: N815


def all_arguments(args: ast.arguments) -> list[ast.arg]:
    ends = [arg for arg in (args.vararg, args.kwarg) if arg is not None]
    return [*args.posonlyargs, *args.args, *args.kwonlyargs, *ends]


def bound_name(node: ast.Import | ast.ImportFrom, alias: ast.alias) -> str:
    name = alias.name.partition(".")[0] if isinstance(node, ast.Import) else alias.name
    return alias.asname or name


def path_of(node: ast.Import | ast.ImportFrom, alias: ast.alias) -> str:
    """What the bound name stands for: `import a.b` binds `a`, `import a.b as c` binds `a.b`."""
    if isinstance(node, ast.ImportFrom):
        start = "." * node.level + (node.module or "")
        return f"{start}.{alias.name}" if node.module else start + alias.name
    return alias.name if alias.asname else alias.name.partition(".")[0]
