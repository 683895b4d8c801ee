"""Edits that people make and that cosmic-ray's own operators miss, through its public operator API.

Each operator names positions in a parso tree and rewrites one of them as text: the tree is only ever
written out again, so a leaf may hold any code.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import parso
from cosmic_ray.operators import exception_replacer  # type: ignore[import-untyped]
from cosmic_ray.operators.operator import Example, Operator  # type: ignore[import-untyped]
from parso.python.tree import Name, Number, String

Span = tuple[tuple[int, int], tuple[int, int]]
Node = Any  # parso's nodes share no useful type

SWAPPED_CALLS = {
    "min": ["max"],
    "max": ["min"],
    "any": ["all"],
    "all": ["any"],
    "median": ["max"],
    "mean": ["max"],
    "minimum": ["maximum"],
    "maximum": ["minimum"],
    "argmin": ["argmax"],
    "argmax": ["argmin"],
    "floor": ["ceil"],
    "ceil": ["floor"],
    "startswith": ["endswith"],
    "endswith": ["startswith"],
}
DROPPED_CALLS = {"abs", "sqrt", "square", "round", "sorted", "reversed"}
LARGE = 100
EMPTY_OF_TYPE = {
    "list": "[]",
    "dict": "{}",
    "Mapping": "{}",
    "Sequence": "()",
    "tuple": "()",
    "set": "set()",
    "frozenset": "frozenset()",
    "str": '""',
    "bytes": 'b""',
    "int": "0",
    "float": "0.0",
}


def leaf(node: Node, code: str) -> Name:
    """`code` in the place of a node, with the white space before it."""
    return Name(code, node.start_pos, prefix=node.get_first_leaf().prefix)


def text(node: Node) -> str:
    return str(node.get_code(include_prefix=False))


def span(node: Node) -> Span:
    return node.start_pos, node.end_pos


def is_op(node: Node, value: str) -> bool:
    return bool(node.type == "operator" and node.value == value)


def owner(node: Node, *kinds: str) -> Node:
    """The nearest function or class around a node, None at module level."""
    return parso.tree.search_ancestor(node, *kinds)


def called_name(node: Node) -> Node:
    """The name leaf that a call's trailer calls: `f` of `f(...)` and of `a.f(...)`, else None."""
    if node.type != "trailer" or not is_op(node.children[0], "("):
        return None
    previous = node.get_previous_sibling()
    if previous is None:
        return None
    if previous.type == "name":
        return previous
    if previous.type == "trailer" and is_op(previous.children[0], "."):
        return previous.children[1]
    return None


def arguments(trailer: Node) -> list[Node]:
    """The arguments of a call's trailer."""
    inner = trailer.children[1:-1]
    if len(inner) == 1 and inner[0].type == "arglist":
        inner = inner[0].children
    return [node for node in inner if not is_op(node, ",")]


class Rewrite(Operator):
    """An operator that puts other code in the place of one node: subclasses say which."""

    examples_of: Sequence[tuple[str, str]] = ()

    def rewrites(self, node: Node) -> Iterator[tuple[Node, str]]:
        """For every edit at this node: what to replace (the node or something in it), and by what."""
        raise NotImplementedError

    def mutation_positions(self, node: Node) -> Iterator[Span]:
        for place, _ in self.rewrites(node):
            yield span(place)

    def mutate(self, node: Node, index: int) -> Node:
        place, code = list(self.rewrites(node))[index]
        new = leaf(place, code)
        if place is node:
            return new
        siblings = place.parent.children
        siblings[next(i for i, child in enumerate(siblings) if child is place)] = new
        return node

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        return tuple(Example(before, after) for before, after in cls.examples_of)


class SwapCall(Rewrite):
    """min for max, any for all, max for median: the call of another function of the same form."""

    examples_of = (("min(a, b)", "max(a, b)"), ("np.median(x)", "np.max(x)"))

    def rewrites(self, node: Node) -> Iterator[tuple[Node, str]]:
        name = called_name(node)
        if name is not None:
            for other in SWAPPED_CALLS.get(name.value, ()):
                yield name, other

    def mutate(self, node: Node, index: int) -> Node:
        name, other = list(self.rewrites(node))[index]
        name.value = other
        return node


class DropCall(Rewrite):
    """`abs(x)` becomes `(x)`: a call with one argument of which only the argument is left."""

    examples_of = (
        ("a - abs(b)", "a - (b)"),
        ("np.sqrt(x)", "(x)"),
        ("sorted(x, key=f)", "list(x)"),
    )

    def rewrites(self, node: Node) -> Iterator[tuple[Node, str]]:
        if node.type not in ("power", "atom_expr"):
            return
        trailer = node.children[-1]
        name = called_name(trailer)
        if name is None or name.value not in DROPPED_CALLS:
            return
        given = arguments(trailer)
        alone = len(node.children) == 2 or (
            len(node.children) == 3 and text(node.children[0]) in ("np", "math", "torch")
        )
        if not alone or not given or given[0].type == "argument":
            return
        if name.value in ("sorted", "reversed"):
            yield node, f"list({text(given[0])})"
        elif len(given) == 1:
            yield node, f"({text(given[0])})"


class ReverseSort(Rewrite):
    """Sorted the other way round."""

    examples_of = (("sorted(x, key=f)", "sorted(x, key=f, reverse=True)"),)

    def rewrites(self, node: Node) -> Iterator[tuple[Node, str]]:
        name = called_name(node)
        if name is None or name.value not in ("sorted", "sort"):
            return
        if (
            isinstance(name.get_previous_leaf(), parso.python.tree.Operator)
            and text(name.get_previous_leaf()) == "."
        ):
            return  # numpy's and lists' own sort: other arguments
        given = ", ".join(text(argument) for argument in arguments(node))
        yield node, f"({given}, reverse=True)"


class DeleteStatement(Rewrite):
    """A statement that is done for its effect is left out: a call, a raise, `+=`, `x[i] = …`."""

    examples_of = (("f(x)\n", "pass\n"), ("a += 1\n", "pass\n"), ("a[0] = 1\n", "pass\n"))

    def rewrites(self, node: Node) -> Iterator[tuple[Node, str]]:
        if node.type != "simple_stmt" or node.parent.type == "lambdef":
            return
        statement = node.children[0]
        if self._effect(statement) and not _body_of_guard(node):
            yield statement, "pass"

    @staticmethod
    def _effect(statement: Node) -> bool:
        if statement.type in ("raise_stmt", "del_stmt") or text(statement) == "continue":
            return True
        if statement.type in ("power", "atom_expr"):
            return statement.children[-1].type == "trailer" and is_op(
                statement.children[-1].children[0], "("
            )
        if statement.type != "expr_stmt":
            return False
        target, operator = statement.children[:2]
        if operator.type == "augassign" or (
            operator.type == "operator" and operator.value.endswith("=") and operator.value != "="
        ):
            return True
        return is_op(operator, "=") and target.type in ("power", "atom_expr")


def _guard(node: Node) -> bool:
    """`if …:` without `else` whose body is one statement that leaves: raise, return, continue."""
    if node.type != "if_stmt" or len(node.children) != 4:
        return False
    suite = node.children[3]
    body = [child for child in getattr(suite, "children", [suite]) if child.type != "newline"]
    last = body[-1].children[0] if body[-1].type == "simple_stmt" else body[-1]
    return last.type in ("raise_stmt", "return_stmt") or text(last) in (
        "continue",
        "break",
        "return",
        "raise",
    )


def _body_of_guard(statement: Node) -> bool:
    """Whether a statement is all that a guard does: then switching the guard off is the same."""
    suite = statement.parent
    if suite.type != "suite" or suite.parent.type != "if_stmt":
        return False
    return len(suite.parent.children) == 4 and len(suite.children) == 2


class GuardOff(Rewrite):
    """`if …: raise` that never does."""

    examples_of = (("if a:\n    raise b\n", "if False:\n    raise b\n"),)

    def rewrites(self, node: Node) -> Iterator[tuple[Node, str]]:
        if _guard(node) and text(node.children[1]) != "TYPE_CHECKING":
            yield node.children[1], "False"


class NegateCondition(Rewrite):
    """A condition turned round, where turning a comparison or dropping a `not` does not do it."""

    examples_of = (
        ("if a:\n    b\n", "if not (a):\n    b\n"),
        ("a if b else c", "a if not (b) else c"),
    )

    def rewrites(self, node: Node) -> Iterator[tuple[Node, str]]:
        conditions = []
        if node.type in ("if_stmt", "while_stmt"):
            keywords = itertools.pairwise(node.children)
            conditions = [c for k, c in keywords if k.type == "keyword" and k.value != "else"]
        elif node.type in ("ternary", "test") and len(node.children) == 5:
            conditions = [node.children[2]]
        for condition in conditions:
            if condition.type in ("comparison", "not_test", "keyword"):
                continue
            yield condition, f"not ({text(condition)})"


class DropFilter(Rewrite):
    """A comprehension that takes everything."""

    examples_of = (("[a for a in b if a.c]", "[a for a in b if True]"),)

    def rewrites(self, node: Node) -> Iterator[tuple[Node, str]]:
        if node.type == "comp_if":
            yield node.children[1], "True"


class NegateMembership(Rewrite):
    """`in` for `not in`, and the other way round."""

    examples_of = (("a in b", "a not in b"), ("a not in b", "a in b"))

    def rewrites(self, node: Node) -> Iterator[tuple[Node, str]]:
        if node.type != "comparison":
            return
        for operator in node.children[1::2]:
            if text(operator) == "in":
                yield operator, "not in"
            elif text(operator) == "not in":
                yield operator, "in"


class MoveSlice(Rewrite):
    """A bound of a slice that is one further."""

    examples_of = (("a[:n]", "a[:(n) + 1]"), ("a[b:c]", "a[(b) + 1:c]"))

    def rewrites(self, node: Node) -> Iterator[tuple[Node, str]]:
        if node.type != "subscript":
            return
        bounds = node.children
        for bound in bounds:
            # A literal is the business of the numbers' operator.
            if bound.type in ("operator", "sliceop") or isinstance(bound, Number):
                continue
            yield bound, f"({text(bound)}) + 1"


class ReturnNothing(Rewrite):
    """A function that returns something empty of its type."""

    examples_of = (
        ("def f() -> list[int]:\n    return x\n", "def f() -> list[int]:\n    return []\n"),
    )

    def rewrites(self, node: Node) -> Iterator[tuple[Node, str]]:
        if node.type != "return_stmt" or len(node.children) < 2:
            return
        value = node.children[1]
        for empty in self._empties(node):
            if text(value) != empty and text(value) not in ("self", "True", "False"):
                yield value, empty

    @staticmethod
    def _empties(node: Node) -> tuple[str, ...]:
        function = owner(node, "funcdef")
        if function is None or function.annotation is None:
            return ()
        kind = text(function.annotation)
        if kind == "bool":
            return ("True", "False")
        if kind.endswith("| None"):
            return ("None",)
        empty = EMPTY_OF_TYPE.get(kind.split("[")[0])
        return (empty,) if empty else ()


class SwapArguments(Rewrite):
    """Two neighbours among the arguments of a call change places, where both are plain names."""

    examples_of = (("f(a, b, 1)", "f(b, a, 1)"),)

    def rewrites(self, node: Node) -> Iterator[tuple[Node, str]]:
        if node.type != "trailer" or not is_op(node.children[0], "("):
            return
        name = called_name(node)
        if name is not None and name.value in ("min", "max", "isinstance", "gcd"):
            return
        given = arguments(node)
        for first, (one, other) in enumerate(itertools.pairwise(given)):
            if one.type == other.type == "name" and one.value != other.value:
                codes = [text(argument) for argument in given]
                codes[first : first + 2] = reversed(codes[first : first + 2])
                yield node, f"({', '.join(codes)})"


class ChangeString(Rewrite):
    """Another string, where one is compared, looked up, a key, or an enum's value."""

    examples_of = (('a == "b"', 'a == "XXb"'), ('a["b"]', 'a["XXb"]'))

    def rewrites(self, node: Node) -> Iterator[tuple[Node, str]]:
        if not isinstance(node, String) or not self._tells(node):
            return
        body = node.value.lstrip("rbRB")
        start = len(node.value) - len(body)
        quotes = body[:3] if body[:3] in ('"""', "'''") else body[:1]
        at = start + len(quotes)
        yield node, f"{node.value[:at]}XX{node.value[at:]}"

    @staticmethod
    def _tells(node: Node) -> bool:
        parent = node.parent
        if parent.type in ("comparison", "subscript"):
            return True
        if parent.type == "trailer":
            name = called_name(parent)
            looked_up = name is not None and name.value in ("get", "pop", "getattr", "startswith")
            return is_op(parent.children[0], "[") or looked_up
        if parent.type == "arglist":
            name = called_name(parent.parent)
            return name is not None and name.value in ("get", "pop", "getattr", "hasattr")
        if parent.type == "dictorsetmaker":
            following = node.get_next_sibling()
            is_dict = any(is_op(child, ":") for child in parent.children)
            return not is_dict or (following is not None and is_op(following, ":"))
        if parent.type == "expr_stmt":
            inside = owner(node, "classdef", "funcdef")
            if inside is None or inside.type != "classdef":
                return False
            bases = inside.get_super_arglist()
            return bases is not None and "Enum" in text(bases)
        return False


class ScaleNumber(Rewrite):
    """A threshold twice as large and half as large: floats, and integers too large for one more."""

    examples_of = (("a = 1e-3", "a = (1e-3 * 2)"), ("a = 4096", "a = (4096 * 2)"))

    def rewrites(self, node: Node) -> Iterator[tuple[Node, str]]:
        if isinstance(node, Number) and is_scaled(node) and _value(node) != 0:
            yield node, f"({node.value} * 2)"
            yield node, f"({node.value} {'//' if isinstance(_value(node), int) else '/'} 2)"


def _value(node: Number) -> complex:
    value: complex = parse_number(node.value)
    return value


def parse_number(code: str) -> complex:
    """The value of a number literal."""
    plain = code.replace("_", "")
    try:
        return int(plain, 0)
    except ValueError:
        return complex(plain) if plain[-1] in "jJ" else float(plain)


def is_scaled(node: Number) -> bool:
    """Whether ScaleNumber is the one for this number, not cosmic-ray's +1 and −1."""
    value = _value(node)
    return not isinstance(value, int) or abs(value) >= LARGE


class ExceptionReplacer(exception_replacer.ExceptionReplacer):
    """cosmic-ray's own, which knows no dotted names: of those the last part is replaced."""

    @staticmethod
    def _name_nodes(node: Node) -> list[Node]:
        caught = node.children[1]
        if caught.type == "atom":  # in parentheses
            caught = caught.children[1]
        each = caught.children[::2] if caught.type == "testlist_comp" else [caught]
        return [exception.get_last_leaf() for exception in each]


OWN: tuple[type[Operator], ...] = (
    ExceptionReplacer,
    SwapCall,
    DropCall,
    ReverseSort,
    DeleteStatement,
    GuardOff,
    NegateCondition,
    DropFilter,
    NegateMembership,
    MoveSlice,
    ReturnNothing,
    SwapArguments,
    ChangeString,
    ScaleNumber,
)
