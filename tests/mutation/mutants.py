"""The edits of one source file: where, by which operator, and what the file becomes."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import parso
from cosmic_ray.operators import (  # type: ignore[import-untyped]
    binary_operator_replacement as binary,
)
from cosmic_ray.operators import (
    boolean_replacer,
    break_continue,
    number_replacer,
    remove_decorator,
    unary_operator_replacement,
    zero_iteration_for_loop,
)
from cosmic_ray.operators import comparison_operator_replacement as comparison
from cosmic_ray.operators.operator import Operator  # type: ignore[import-untyped]
from parso.python.tree import Number

from .edits import OWN, Node, is_scaled, owner, text

# Its neighbour and its contrary: more replacements of one comparison fall to the same tests.
COMPARISONS = (
    "Lt_LtE",
    "Lt_GtE",
    "LtE_Lt",
    "LtE_Gt",
    "Gt_GtE",
    "Gt_LtE",
    "GtE_Gt",
    "GtE_Lt",
    "Eq_NotEq",
    "NotEq_Eq",
    "Is_IsNot",
    "IsNot_Is",
)
BINARIES = (
    "Add_Sub",
    "Sub_Add",
    "Mul_Div",
    "Div_Mul",
    "FloorDiv_Mul",
    "Mod_FloorDiv",
    "Pow_Mul",
    "RShift_LShift",
    "LShift_RShift",
    "BitOr_BitAnd",
    "BitAnd_BitOr",
    "BitXor_BitAnd",
)
UNARIES = ("Delete_USub", "Delete_Not", "Delete_Invert")


def operators() -> list[Operator]:
    """All that are used, in the order in which they are tried at a place."""
    chosen = [
        *(getattr(comparison, f"ReplaceComparisonOperator_{name}") for name in COMPARISONS),
        *(getattr(binary, f"ReplaceBinaryOperator_{name}") for name in BINARIES),
        *(getattr(unary_operator_replacement, f"ReplaceUnaryOperator_{name}") for name in UNARIES),
        number_replacer.NumberReplacer,
        boolean_replacer.ReplaceTrueWithFalse,
        boolean_replacer.ReplaceFalseWithTrue,
        boolean_replacer.ReplaceAndWithOr,
        boolean_replacer.ReplaceOrWithAnd,
        break_continue.ReplaceBreakWithContinue,
        break_continue.ReplaceContinueWithBreak,
        zero_iteration_for_loop.ZeroIterationForLoop,
        remove_decorator.RemoveDecorator,
        *OWN,
    ]
    return [operator() for operator in chosen]


@dataclass(frozen=True)
class Mutant:
    """One edit of one file.

    Attributes:
        source: path of the file from the root.
        function: dotted name of what it is in, empty at module level.
        line: where the edit begins, from 1.
        statement: first and last line of the statement that the edit is in.
        operator: name of the operator.
        original: the lines of the file that change, stripped.
        mutated: what they become.
        code: the whole file as it becomes.
        at_import: whether the edited code runs when the module is imported, not when a function is.
    """

    source: str
    function: str
    line: int
    statement: tuple[int, int]
    operator: str
    original: str
    mutated: str
    code: str
    at_import: bool

    @property
    def name(self) -> str:
        return f"{self.source}:{self.line} {self.operator}"


def mutants(source: str, code: str) -> list[Mutant]:
    """All edits of a file in the order of their places; no two have the same outcome."""
    root = parso.parse(code)
    plain = compile(code, source, "exec", dont_inherit=True)
    seen = {code}
    found = []
    for node in list(_nodes(root)):
        for operator in _OPERATORS:
            positions = list(operator.mutation_positions(node))
            for index, ((line, _), _) in enumerate(positions):
                if not _wanted(operator, node, index):
                    continue
                edited = _edited(root, node, operator, index)
                if edited in seen:
                    continue
                seen.add(edited)
                if not _differs(edited, plain, source):
                    continue
                original, mutated = _lines(code, edited)
                place = node if not _spans_suite(node) else _leaf_at(root, positions[index][0])
                found.append(
                    Mutant(
                        source=source,
                        function=_function(place),
                        line=line,
                        statement=_statement(place),
                        operator=type(operator).__name__.removeprefix("Replace"),
                        original=original,
                        mutated=mutated,
                        code=edited,
                        at_import=_at_import(place),
                    )
                )
    if root.get_code() != code:
        raise AssertionError(f"an operator left its edit in {source}")
    return sorted(found, key=lambda mutant: mutant.line)


def _nodes(node: Node) -> Iterator[Node]:
    yield node
    for child in getattr(node, "children", ()):
        yield from _nodes(child)


def _edited(root: Node, node: Node, operator: Operator, index: int) -> str:
    """The whole code with one edit; the tree is as before afterwards."""
    # An edit may touch the siblings too: the name before the parentheses of a call.
    around = node if node.parent is None else node.parent
    saved: list[tuple[Node, str, Any]] = [
        (n, "children", list(n.children)) if hasattr(n, "children") else (n, "value", n.value)
        for n in _nodes(around)
    ]
    new = operator.mutate(node, index)
    if new is not node and node.parent is not None:
        siblings = node.parent.children
        place = next(i for i, child in enumerate(siblings) if child is node)
        siblings[place : place + 1] = [] if new is None else [new]
    edited: str = root.get_code()
    for changed, attribute, value in saved:
        setattr(changed, attribute, value)
    return edited


def _differs(edited: str, plain: Any, source: str) -> bool:
    """Whether an edit compiles, and to something else: a constant that folds away does not count."""
    try:
        return bool(compile(edited, source, "exec", dont_inherit=True) != plain)
    except SyntaxError:
        return False


def _lines(code: str, edited: str) -> tuple[str, str]:
    """The lines that differ, joined and without indentation: before and after."""
    before, after = code.splitlines(), edited.splitlines()
    first = 0
    while first < min(len(before), len(after)) and before[first] == after[first]:
        first += 1
    last = 0
    while last < min(len(before), len(after)) - first and before[-1 - last] == after[-1 - last]:
        last += 1

    def joined(lines: list[str]) -> str:
        return " ".join(line.strip() for line in lines[first : len(lines) - last])

    return joined(before), joined(after)


# --- what is left alone -----------------------------------------------------------------------


def _wanted(operator: Operator, node: Node, index: int) -> bool:
    kind = type(operator).__name__
    if kind == "NumberReplacer" and is_scaled(node):
        return False
    if kind == "NumberReplacer" and index == 1 and _is_zero(node):
        return False  # −1 in place of 0: as an index it is the other end, and 1 is tried already
    if kind == "RemoveDecorator" and "validator" not in text(node):
        return False  # without most others the module does not even work
    if kind.startswith("ReplaceBinaryOperator") and not _calculates(node):
        return False
    return not _left_alone(node)


def _is_zero(node: Number) -> bool:
    return text(node).strip("0._") == ""


def _calculates(operator: Node) -> bool:
    """Not `*args`, the `/` and `*` of parameters, the `|` of types, a path's `/`, joined strings."""
    parent = operator.parent
    if parent.type not in (
        "arith_expr",
        "term",
        "shift_expr",
        "expr",
        "and_expr",
        "xor_expr",
        "power",
    ):
        return False
    sides = (operator.get_previous_sibling(), operator.get_next_sibling())
    if any(side.type in ("string", "fstring", "strings") for side in sides):
        return False
    return operator.value != "|" or not any(_is_type(side) for side in sides)


def _is_type(node: Node) -> bool:
    code = text(node)
    last = code.split("[")[0].split(".")[-1]
    builtin = last in ("None", "int", "str", "float", "bool", "bytes", "list", "dict", "tuple")
    return builtin or (last[:1].isupper() and not last.isupper())


def _left_alone(node: Node) -> bool:
    """Type annotations, message texts, type-checking blocks, `__all__`, what dataclass is told."""
    child = node
    parent = node.parent
    while parent is not None:
        if parent.type == "annassign" and child is parent.children[1]:
            return True
        if parent.type == "param" and child is parent.annotation:
            return True
        if parent.type == "tfpdef" or (parent.type == "funcdef" and child is parent.annotation):
            return True
        if parent.type in ("fstring", "import_name", "import_from"):
            return True
        if parent.type == "decorator" and "dataclass" in text(parent):
            return True
        if parent.type == "expr_stmt" and text(parent.children[0]) in ("__all__", "__slots__"):
            return True
        if parent.type == "if_stmt" and text(parent.children[1]).startswith(
            ("TYPE_CHECKING", "__name__")
        ):
            return True
        if parent.type in ("ternary", "test") and child is parent.children[2] and _words(parent):
            return True
        child, parent = parent, parent.parent
    if node.type in ("ternary", "test") and _words(node):
        return True
    if node.type in ("if_stmt", "simple_stmt"):
        return node.type == "if_stmt" and text(node.children[1]).startswith(
            ("TYPE_CHECKING", "__name__")
        )
    return False


def _words(ternary: Node) -> bool:
    """Whether a conditional expression chooses between texts."""
    return len(ternary.children) == 5 and any(
        branch.type in ("fstring", "strings") or (branch.type == "string" and " " in branch.value)
        for branch in (ternary.children[0], ternary.children[4])
    )


# --- where it is ------------------------------------------------------------------------------


def _spans_suite(node: Node) -> bool:
    return any(child.type == "suite" for child in getattr(node, "children", ()))


def _leaf_at(root: Node, position: tuple[int, int]) -> Node:
    return root.get_leaf_for_position(position, include_prefixes=True)


def _function(node: Node) -> str:
    names: list[str] = []
    around = owner(node, "funcdef", "classdef")
    while around is not None:
        names.insert(0, around.name.value)
        around = owner(around, "funcdef", "classdef")
    return ".".join(names)


def _statement(node: Node) -> tuple[int, int]:
    """Lines of the simple statement, or of the head of the compound one, that a node is in."""
    child, parent = node, node.parent
    while (
        parent is not None
        and not _spans_suite(parent)
        and parent.type
        not in (
            "file_input",
            "suite",
        )
    ):
        child, parent = parent, parent.parent
    if parent is not None and _spans_suite(parent):
        before = [
            c for c in parent.children if c.start_pos <= child.start_pos and c.type == "keyword"
        ]
        start = before[-1].start_pos[0] if before else parent.start_pos[0]
        return start, child.end_pos[0]
    return child.start_pos[0], child.get_last_leaf().start_pos[0]


def _at_import(node: Node) -> bool:
    """At module level, in a class body, a decorator, a default, or in what `lru_cache` keeps."""
    child, parent = node, node.parent
    while parent is not None:
        if parent.type == "funcdef" and child.type == "suite":
            decorated = parent.parent.type == "decorated" and "cache" in text(
                parent.parent.children[0]
            )
            return decorated
        if parent.type == "lambdef" and child is parent.children[-1]:
            return False
        child, parent = parent, parent.parent
    return True


_OPERATORS = operators()
