"""Reads facts off a train file's syntax tree, in a child process: bytes in, a little JSON out.

`harness.parsing` says why and how; standard library only. Nothing of the source is executed. Every string
and list that goes out is bounded.
"""

import ast
import inspect
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Literal

from harness.parsing import child
from harness.protocol.text import one_line

MAX_ENTRIES = 32  # of the strategy; there are six known keys
MAX_PACKAGES = 64
MAX_PACKAGE_NAME = 64

Kind = Literal["def", "opaque"]
Value = int | bool | str


@dataclass(frozen=True)
class Binding:
    """A module-level statement that gives `name` a meaning.

    Attributes:
        line: where, from 1.
        kind: "def" is a plain function whose parameters can be read; "opaque" is anything whose
            parameters only a run can tell: an import, an assignment, a class, a decorated function.
        refusal: for "def", why a call with the contract's arguments would fail; empty if it works.
    """

    line: int
    kind: Kind
    refusal: str = ""


@dataclass(frozen=True)
class StrategyFact:
    """What `get_strategy` returns.

    Attributes:
        status: "absent": there is none; "computed": not one literal, and `problem` says why;
            "text": the string `text`; "entries": a dict with these; "other": a literal of the type
            that `problem` names.
        entries: key and value, where a value that is neither int nor bool is its description.
    """

    status: Literal["absent", "computed", "text", "entries", "other"]
    problem: str = ""
    text: str = ""
    entries: list[tuple[str, Value]] = field(default_factory=list)


@dataclass(frozen=True)
class Facts:
    """All that the judge wants to know of a source file.

    Attributes:
        syntax_error: empty: it parses.
        packages: without which it cannot be imported: top-level names, in ASCII, sorted.
    """

    syntax_error: str
    strategy: StrategyFact
    inner_steps: list[Binding]
    setup: list[Binding]
    star_import: bool
    packages: list[str]


# How `env/worker.py` calls them: (positional arguments, keywords).
CALLS = {
    "inner_steps": (("model", "data_iterator", "optimizer", "num_steps", "device"), ("num_gpus",)),
    "setup": (("model", "device", "num_gpus"), ()),
}
ABSENT = StrategyFact("absent")


def collect(source: bytes) -> Facts:
    """Parse and look. Never raises for anything that `source` holds, short of a crash."""
    try:
        tree = ast.parse(source)
        statements = list(_module_level(tree))
        bindings = {name: _bindings(statements, name)[:MAX_ENTRIES] for name in CALLS}
        return Facts(
            syntax_error="",
            strategy=_strategy(tree, statements),
            inner_steps=bindings["inner_steps"],
            setup=bindings["setup"],
            star_import=any(
                isinstance(node, ast.ImportFrom) and node.names[0].name == "*"
                for node in statements
            ),
            packages=_packages(tree),
        )
    except SyntaxError as error:
        where = f"line {error.lineno}: " if error.lineno else ""
        return refused(where + one_line(error.msg))
    except ValueError as error:  # null bytes, before Python 3.11.4
        return refused(one_line(str(error)))
    except (RecursionError, MemoryError):
        return refused("nested too deeply, or too large, for Python's parser")


def refused(why: str) -> Facts:
    """The facts of a source that does not parse."""
    return Facts(why, ABSENT, [], [], False, [])


def _packages(tree: ast.Module) -> list[str]:
    """Of imports that run whatever happens: those in `if` and `try` may be meant to fail."""
    found: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    names = (name for name in found if name.isascii() and len(name) <= MAX_PACKAGE_NAME)
    return sorted(names)[:MAX_PACKAGES]


def _module_level(tree: ast.Module) -> Iterator[ast.stmt]:
    """Every statement that runs at import outside functions and classes, also inside if, try, with.

    A work list instead of recursion: a chain of thousands of `elif` is a deep tree.
    """
    pending: list[ast.stmt] = list(reversed(tree.body))
    while pending:
        node = pending.pop()
        yield node
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        inner: list[ast.stmt] = []
        for part in ("body", "handlers", "cases", "orelse", "finalbody"):
            for below in getattr(node, part, []):
                # Handlers and match cases are no statements themselves; their bodies are.
                inner += [below] if isinstance(below, ast.stmt) else below.body
        pending += reversed(inner)


def _bindings(statements: list[ast.stmt], name: str) -> list[Binding]:
    bindings = []
    for node in statements:
        if not _binds(node, name):
            continue
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            bindings.append(_function(node, name))
        else:
            bindings.append(Binding(node.lineno, "opaque"))
    return bindings


def _binds(node: ast.stmt, name: str) -> bool:
    """Whether this statement, not those inside it, assigns, imports or defines `name`."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return node.name == name
    if isinstance(node, ast.Import | ast.ImportFrom):
        return any((alias.asname or alias.name) == name for alias in node.names)
    if isinstance(node, ast.AnnAssign):
        targets: list[ast.expr] = [] if node.value is None else [node.target]
    else:
        targets = node.targets if isinstance(node, ast.Assign) else []
    flat = [e for t in targets for e in (t.elts if isinstance(t, ast.Tuple | ast.List) else [t])]
    return any(isinstance(target, ast.Name) and target.id == name for target in flat)


def _function(node: ast.FunctionDef | ast.AsyncFunctionDef, name: str) -> Binding:
    if node.decorator_list:
        return Binding(node.lineno, "opaque")
    if isinstance(node, ast.AsyncFunctionDef):
        return Binding(node.lineno, "def", "it is async, and the worker does not await it")
    positional, keywords = CALLS[name]
    try:
        _signature(node.args).bind(*positional, **dict.fromkeys(keywords))
    except (TypeError, ValueError) as error:
        return Binding(node.lineno, "def", one_line(str(error)))
    return Binding(node.lineno, "def")


def _signature(args: ast.arguments) -> inspect.Signature:
    """The signature that Python would give the function; the defaults' values do not matter."""
    kinds = inspect.Parameter
    empty = inspect.Parameter.empty
    positional = args.posonlyargs + args.args
    without_default = len(positional) - len(args.defaults)
    parameters = []
    for index, arg in enumerate(positional):
        positional_only = index < len(args.posonlyargs)
        kind = kinds.POSITIONAL_ONLY if positional_only else kinds.POSITIONAL_OR_KEYWORD
        default = empty if index < without_default else None
        parameters.append(inspect.Parameter(arg.arg, kind, default=default))
    if args.vararg is not None:
        parameters.append(inspect.Parameter(args.vararg.arg, kinds.VAR_POSITIONAL))
    for arg, given in zip(args.kwonlyargs, args.kw_defaults, strict=True):
        default = empty if given is None else None
        parameters.append(inspect.Parameter(arg.arg, kinds.KEYWORD_ONLY, default=default))
    if args.kwarg is not None:
        parameters.append(inspect.Parameter(args.kwarg.arg, kinds.VAR_KEYWORD))
    return inspect.Signature(parameters)


def _strategy(tree: ast.Module, statements: list[ast.stmt]) -> StrategyFact:
    """What `get_strategy` returns, if it is one top-level function that only returns a literal."""
    found = [node for node in statements if _binds(node, "get_strategy")]
    if not found:
        return ABSENT
    if len(found) > 1:
        return _computed(f"it is defined {len(found)} times")
    function = found[0]
    if not isinstance(function, ast.FunctionDef):
        return _computed("it is not a plain function")
    if not any(function is node for node in tree.body):
        return _computed("it is defined inside another statement")
    body = function.body
    if isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
        body = body[1:]  # the docstring
    if len(body) != 1 or not isinstance(body[0], ast.Return) or body[0].value is None:
        return _computed("its body is more, or other, than one `return`")
    try:
        literal = ast.literal_eval(body[0].value)
    except (ValueError, TypeError):
        return _computed("what it returns is computed")
    return _describe(literal)


def _computed(problem: str) -> StrategyFact:
    return StrategyFact("computed", problem)


def _describe(literal: object) -> StrategyFact:
    if isinstance(literal, str):
        return StrategyFact("text", text=one_line(literal))
    if not isinstance(literal, dict):
        return StrategyFact("other", problem=type(literal).__name__)
    if not all(isinstance(key, str) for key in literal):
        return StrategyFact("other", problem="dict with keys that are not strings")
    entries: list[tuple[str, Value]] = []
    for key, value in list(literal.items())[:MAX_ENTRIES]:
        plain = isinstance(value, int) and abs(value) < 2**31
        entries.append((one_line(key), value if plain else f"a {type(value).__name__}"))
    return StrategyFact("entries", entries=entries)


def main() -> None:
    """The source from stdin, its facts to stdout."""
    child.answer(asdict(collect(child.begin())))
