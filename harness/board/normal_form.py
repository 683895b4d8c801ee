"""The normal form of a program: a source file without all that does not change what it does.

Left aside are comments, docstrings, formatting, annotations of plain functions, imports that nobody
uses, the order of imports and the names they are given, and the names of local variables, of arguments,
and of functions and classes of the file's own. Those are numbered by first use. What other code can see
stays: attributes, names of keyword arguments, the functions of the contract.

Standard library only: it runs in the child process of `harness.board.program`.
"""

import ast
from collections.abc import Iterable

from harness.board.names import (
    Binder,
    Binding,
    Comprehension,
    Function,
    all_arguments,
    bound_name,
    path_of,
)

#: Where one of these is used, a name may be reached by a string that spells it.
REFLECTION = frozenset({"globals", "locals", "vars", "eval", "exec", "compile"})


class NormalForm:
    """Second pass: writes the tree's normal form, item by item.

    Attributes:
        exact: every item, names as numbers; what is hashed.
        loose: items without brackets and numbers, so that an inserted variable changes nothing far away.
    """

    def __init__(self, tree: ast.Module) -> None:
        binder = Binder()
        binder.visit(tree)
        self.scopes = binder.scopes
        self.scope = binder.scope
        self.exact: list[str] = []
        self.loose: list[str] = []
        self._numbers = 0
        self._spelt = _spelt_names(tree)
        self._statements(tree.body)

    def _write(self, text: str) -> None:
        self.exact.append(text)
        self.loose.append(text)

    def _mark(self, text: str) -> None:
        self.exact.append(text)

    def _name(self, name: str, binding: Binding | None) -> None:
        if binding is None or binding.kept or name in self._spelt:
            self._write(name)
            return
        if binding.number < 0:
            binding.number = self._numbers
            self._numbers += 1
        self.exact.append(f"%{binding.number}")
        self.loose.append("%")

    def _node(self, node: ast.AST) -> None:
        """Any node; those that need more than their fields have a method named after them."""
        special = getattr(self, f"_on_{type(node).__name__}", None)
        if special is not None:
            special(node)
            return
        self._write(type(node).__name__)
        self._fields(node, node._fields)

    def _fields(self, node: ast.AST, names: Iterable[str]) -> None:
        for name in names:
            if name not in ("ctx", "type_comment", "kind"):
                self._value(getattr(node, name, None))

    def _value(self, value: object) -> None:
        if isinstance(value, ast.AST):
            self._node(value)
        elif isinstance(value, list):
            if value and isinstance(value[0], ast.stmt):
                self._statements(value)
                return
            self._mark("[")
            for item in value:
                self._value(item)
            self._mark("]")
        elif value is None:
            self._mark("-")
        else:
            self._write(str(value))

    def _statements(self, body: list[ast.stmt]) -> None:
        self._mark("{")
        for statement in body:
            if not self._says_nothing(statement):
                self._node(statement)
        self._mark("}")

    def _says_nothing(self, node: ast.stmt) -> bool:
        if isinstance(node, ast.Expr):
            return isinstance(node.value, ast.Constant)  # docstrings, and notes like them
        if isinstance(node, ast.Import | ast.ImportFrom):
            return not self._kept_aliases(node)
        if isinstance(node, ast.AnnAssign):
            return node.value is None and self.scope.kind != "class"
        if isinstance(node, ast.Try):
            # What only tried imports that are written where they are used, or not at all.
            rest = [*node.body, *node.orelse, *node.finalbody]
            return all(self._says_nothing(inner) for inner in rest)
        return isinstance(node, ast.Pass | ast.Global | ast.Nonlocal)

    def _kept_aliases(self, node: ast.Import | ast.ImportFrom) -> list[ast.alias]:
        """Those whose name has other meanings too; the rest is written where it is used."""
        if isinstance(node, ast.ImportFrom) and node.module == "__future__":
            return []
        return [
            alias
            for alias in node.names
            if alias.name == "*" or not self.scope.bind(bound_name(node, alias)).path
        ]

    def _on_Import(self, node: ast.Import | ast.ImportFrom) -> None:  # noqa: N802
        for alias in self._kept_aliases(node):
            self._write("Import")
            self._write(path_of(node, alias))
            if alias.name != "*":
                name = bound_name(node, alias)
                self._name(name, self.scope.bind(name))

    _on_ImportFrom = _on_Import  # noqa: N815

    def _on_Name(self, node: ast.Name) -> None:  # noqa: N802
        binding = self.scope.find(node.id)
        if binding is None or not binding.path:
            self._write("Name")
            self._name(node.id, binding)
            return
        # As if it had been written in full, so that it does not matter how it was imported.
        start = len(binding.path) - len(binding.path.lstrip("."))
        first, *rest = binding.path[start:].split(".")
        for _ in rest:
            self._write("Attribute")
        self._write("Name")
        self._write("import " + "." * start + first)
        for part in rest:
            self._write(part)

    def _on_Constant(self, node: ast.Constant) -> None:  # noqa: N802
        value = node.value
        # hex(), as Python refuses to write very large integers in decimal.
        large = isinstance(value, int) and not isinstance(value, bool)
        text = hex(value) if large else repr(value)  # type: ignore[arg-type]
        self._write(f"{type(value).__name__} {text}")

    def _on_AnnAssign(self, node: ast.AnnAssign) -> None:  # noqa: N802
        if self.scope.kind == "class":
            self._write("AnnAssign")
            self._fields(node, ("target", "annotation", "value"))
            return
        self._write("Assign")
        self._value([node.target])
        self._value(node.value)

    def _on_arg(self, node: ast.arg) -> None:
        self._name(node.arg, self.scope.find(node.arg))

    def _function(self, node: Function) -> None:
        self._write(type(node).__name__)
        if not isinstance(node, ast.Lambda):
            self._value(node.decorator_list)
            self._name(node.name, self.scope.find(node.name))
            if node.decorator_list:  # a decorator may read them, as a compiler of kernels does
                self._value([arg.annotation for arg in all_arguments(node.args)])
                self._value(node.returns)
        self._value(node.args.defaults)
        self._value(node.args.kw_defaults)
        outer, self.scope = self.scope, self.scopes[node]
        self._fields(node.args, ("posonlyargs", "args", "vararg", "kwonlyargs", "kwarg"))
        self._value(node.body)
        self.scope = outer

    _on_FunctionDef = _on_AsyncFunctionDef = _on_Lambda = _function  # noqa: N815

    def _on_ClassDef(self, node: ast.ClassDef) -> None:  # noqa: N802
        self._write("ClassDef")
        self._name(node.name, self.scope.find(node.name))
        self._fields(node, ("bases", "keywords", "decorator_list"))
        outer, self.scope = self.scope, self.scopes[node]
        self._statements(node.body)
        self.scope = outer

    def _comprehension(self, node: Comprehension) -> None:
        self._write(type(node).__name__)
        self._node(node.generators[0].iter)
        outer, self.scope = self.scope, self.scopes[node]
        for number, generator in enumerate(node.generators):
            self._fields(generator, ("target", "ifs", "is_async"))
            if number:
                self._node(generator.iter)
        self._fields(node, ("key", "value") if isinstance(node, ast.DictComp) else ("elt",))
        self.scope = outer

    _on_ListComp = _on_SetComp = _on_DictComp = _on_GeneratorExp = _comprehension  # noqa: N815

    def _on_ExceptHandler(self, node: ast.ExceptHandler) -> None:  # noqa: N802
        self._write("ExceptHandler")
        self._value(node.type)
        self._optional_name(node.name)
        self._statements(node.body)

    def _on_MatchAs(self, node: ast.MatchAs) -> None:  # noqa: N802
        self._write("MatchAs")
        self._value(node.pattern)
        self._optional_name(node.name)

    def _on_MatchStar(self, node: ast.MatchStar) -> None:  # noqa: N802
        self._write("MatchStar")
        self._optional_name(node.name)

    def _on_MatchMapping(self, node: ast.MatchMapping) -> None:  # noqa: N802
        self._write("MatchMapping")
        self._fields(node, ("keys", "patterns"))
        self._optional_name(node.rest)

    def _optional_name(self, name: str | None) -> None:
        if name is None:
            self._mark("-")
        else:
            self._name(name, self.scope.find(name))

    def _on_Call(self, node: ast.Call) -> None:  # noqa: N802
        self._write("Call")
        self._fields(node, ("func", "args"))
        arguments = self._own_arguments(node.func)
        for keyword in node.keywords:
            self._mark("=")
            # An argument of a function of this file is called what that function calls it.
            self._name(keyword.arg or "**", arguments.get(keyword.arg or ""))
            self._node(keyword.value)

    def _own_arguments(self, called: ast.expr) -> dict[str, Binding]:
        binding = self.scope.find(called.id) if isinstance(called, ast.Name) else None
        if binding is None or binding.otherwise != 1 or len(binding.functions) != 1:
            return {}
        function = binding.functions[0]
        assert isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        names = self.scopes[function].names
        named = (*function.args.args, *function.args.kwonlyargs)
        return {arg.arg: names[arg.arg] for arg in named}


def _spelt_names(tree: ast.Module) -> frozenset[str]:
    """Names that a string of the program spells, if the program can look names up by a string."""
    reflects = any(
        (isinstance(node, ast.Name) and node.id in REFLECTION)
        or (isinstance(node, ast.Attribute) and node.attr in ("__dict__", "modules"))
        for node in ast.walk(tree)
    )
    if not reflects:
        return frozenset()
    strings = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
    return frozenset(text for text in strings if isinstance(text, str) and text.isidentifier())
