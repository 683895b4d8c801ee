"""Programs in disguise are found, honest changes are no copies, and hostile source harms nobody."""

import ast
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.board.copies import (
    Diff,
    Known,
    Near,
    Program,
    closest,
    diff,
    look_at,
    similarities,
    similarity,
    waits_for,
)
from harness.board.normal_form import NormalForm
from harness.board.program import sketch
from tests.project import ROOT

MIB = 2**20

ORIGINAL = """
import math
import os
from collections import defaultdict
import torch
import torch.distributed as dist
from torch import nn

from env.benchmark import hparams

SCALE = 0.5
cache = {}


class Block(nn.Module):
    width = 8

    def __init__(self, size, *, bias=True):
        super().__init__()
        self.linear = nn.Linear(size, self.width, bias=bias)

    def forward(self, x):
        return torch.relu(self.linear(x)) * SCALE


def schedule(step, warm=3):
    global cache
    if step not in cache:
        cache[step] = min(1.0, (step + 1) / warm)
    return cache[step]


def setup(model, device, num_gpus):
    counts = defaultdict(int)
    for name, tensor in model.named_parameters():
        counts[name] += tensor.numel()
    try:
        dist.init_process_group("gloo")
    except RuntimeError as error:
        raise ValueError(str(error)) from error
    return counts


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    total = 0
    losses = [math.sqrt(n) for n in range(num_steps) if n % 2]
    pick = lambda group, key="lr": group[key]
    for step in range(num_steps):
        batch = next(data_iterator).to(device)
        for group in optimizer.param_groups:
            group["lr"] = pick(group) * schedule(step, warm=5)
        with torch.autocast("cpu") as context:
            loss = model(batch).mean()
        if (count := batch.numel()) > 2:
            total += count

        def closure():
            nonlocal total
            total += 1
            return loss

        loss.backward()
        match optimizer.step(closure):
            case [first, *others]:
                losses.append(first)
            case {"loss": value, **rest}:
                losses.append(value)
    return losses, total
"""

#: The same by somebody who hides it: every name that can change, comments, docstrings, annotations, dead
#: imports, aliases, another order of imports, other quotes, parentheses and number formats.
DISGUISED = '''#!/usr/bin/env python
# entirely my own work
"""A novel method."""
from __future__ import annotations

import json, sys  # never used
import numpy as np
import torch as t
from torch.distributed import init_process_group
from env.benchmark import hparams as settings
import collections as c
import math as maths
try:
    import flash_attn
except ImportError:
    pass

FACTOR: float = 5e-1
memo: dict[int, float] = {}


class Layer(t.nn.Module):
    """My layer."""

    width = 0x8

    def __init__(this, inputs: int, *, with_bias: bool = True) -> None:
        "It begins here."
        pass
        super().__init__()
        this.linear = t.nn.Linear(inputs, this.width, bias=with_bias)

    def forward(this, activations: t.Tensor) -> t.Tensor:
        return (t.relu(this.linear(activations))) * FACTOR


def ramp(at: int, steps: int = 3) -> float:
    """How fast."""
    global memo
    if at not in memo:
        memo[at] = min(1.0, ((at + 1) / steps))
    return memo[at]


def setup(m, where, world):
    import os.path
    tally = c.defaultdict(int)
    for label, p in m.named_parameters():
        tally[label] += p.numel()
    try:
        init_process_group('gloo')
    except RuntimeError as problem:
        raise ValueError(str(problem)) from problem
    return tally


def inner_steps(net, rows, opt, count_of_steps, where, world=1):
    """Trains."""
    seen: int = 0
    history = [maths.sqrt(k) for k in range(count_of_steps) if k % 2]
    take = lambda g, what="lr": g[what]
    for i in range(count_of_steps):
        x = next(rows).to(where); ...
        for g in opt.param_groups:
            g['lr'] = take(g) * ramp(i, steps=5)
        with t.autocast("cpu") as ctx:
            objective = net(x).mean()
        if (number := x.numel()) > 2:
            seen += number
        def again():
            "Once more."
            nonlocal seen
            seen += 1
            return objective
        objective.backward()
        match opt.step(again):
            case [head, *tail]:
                history.append(head)
            case {"loss": it, **remaining}:
                history.append(it)
    return (history, seen)
'''


def of(text: str) -> Program:
    return look_at(text.encode())[1]


def form(text: str) -> list[str]:
    """What `of` hashes, without the child: these sources are ours."""
    return NormalForm(ast.parse(text)).exact


def known(submission: int, program: Program) -> Known:
    return Known(submission, program.sha256, program.shingles)


def test_a_program_in_the_best_disguise_is_the_same_program() -> None:
    original, disguised = of(ORIGINAL), of(DISGUISED)
    assert original.valid and original.sha256 == disguised.sha256
    assert similarity(original.shingles, disguised.shingles) == 1.0


@pytest.mark.parametrize("name", ["train_ep.py", "train_compiled.py", "train_fsdp_tp.py"])
def test_a_real_train_file_without_comments_and_in_another_layout_is_the_same(name: str) -> None:
    text = (ROOT / "submissions" / name).read_text(encoding="utf-8")
    plain = ast.unparse(ast.parse(text))
    assert plain != text
    assert of(plain).sha256 == of("import this_is_dead\n" + text).sha256 == of(text).sha256


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("SCALE = 0.5", "SCALE = 0.25"),
        ("warm=3", "warm=4"),
        ("n % 2", "n % 3"),
        ("self.linear", "self.linear2"),  # an attribute can be seen from outside
        ('group["lr"]', 'group["rate"]'),
        ("torch.relu", "torch.sigmoid"),
        ("min(1.0, (step + 1) / warm)", "min((step + 1) / warm, 1.0)"),
        ("loss.backward()", "loss.sum().backward()"),
        ("total += count", "total += total"),  # another local
        ("            nonlocal total\n            total += 1", "            total = 1"),
        ("def inner_steps(", "def inner_step("),
        ("bias=bias)", "dtype=bias)"),
        ("from collections import defaultdict", "from env.mine import defaultdict"),
        ("return losses, total", "return losses, step"),
        ("except RuntimeError", "except ValueError"),
        ("case [first, *others]", "case [*others, first]"),
        ("return loss\n", "return total\n"),
        ("schedule(step, warm=5)", "schedule(warm=5, step=step)"),
    ],
)
def test_an_honest_change_is_another_program_and_a_near_one(before: str, after: str) -> None:
    changed = ORIGINAL.replace(before, after)
    assert changed != ORIGINAL
    one, other = (NormalForm(ast.parse(text)) for text in (ORIGINAL, changed))
    assert one.exact != other.exact
    assert 0.85 < similarity(sketch(one.loose), sketch(other.loose)) <= 1.0


@pytest.mark.parametrize(
    ("one", "other"),
    [
        # The same names, bound in other scopes.
        (
            "x = 1\ndef f():\n    x = 2\n    return x\n",
            "x = 1\ndef f():\n    y = 2\n    return x\n",
        ),
        ("def f(a, b):\n    return a - b\n", "def f(a, b):\n    return b - a\n"),
        ("y = [x for x in z]\n", "y = [x for z in x]\n"),
        ("def f():\n    global x\n    x = 1\nx = 0\n", "def f():\n    x = 1\nx = 0\n"),
        # Not bound by anybody: builtins keep their names.
        ("def f(a):\n    return max(a)\n", "def f(a):\n    return min(a)\n"),
        # In a class a name is an attribute.
        ("class A:\n    x = 1\n", "class A:\n    y = 1\n"),
        # A name that a string looks up.
        ("a = 1\nprint(globals()['a'])\n", "b = 1\nprint(globals()['a'])\n"),
        # An import that is not dead, or whose name means two things.
        ("import a\na.f()\n", "import b\nb.f()\n"),
        ("try:\n    import a\nexcept E:\n    a = None\nprint(a)\n", "a = None\nprint(a)\n"),
        ("from a import *\n", "from b import *\n"),
        # What a decorator may read.
        ("@d\ndef f(x: int): return x\n", "@d\ndef f(x: str): return x\n"),
        ("class A:\n    x: int\n", "class A:\n    x: str\n"),
        ("x = 1\n", "x = True\n"),
        ("x = 1\n", "x = 1.0\n"),
        ("x = 'a'\n", "x = b'a'\n"),
        ("if a:\n    b()\nc()\n", "if a:\n    b()\n    c()\n"),
        ("f(x=1)\n", "f(y=1)\n"),
        ("def f(x): pass\nf(1)\n", "def f(*x): pass\nf(1)\n"),
        ("def f(*, x): pass\n", "def f(x): pass\n"),
    ],
)
def test_what_differs_is_not_taken_for_the_same(one: str, other: str) -> None:
    assert form(one) != form(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("import torch\ntorch.nn.f()\n", "from torch import nn\nnn.f()\n"),
        ("import a.b\na.b.f()\n", "import a.b as c\nc.f()\n"),
        ("from . import m\nm.f()\n", "from . import m as k\nk.f()\n"),
        ("def f():\n    import a\n    a.g()\n", "import a\ndef f():\n    a.g()\n"),
        ("def f(p):\n    return p\nf(p=1)\n", "def g(q):\n    return q\ng(q=1)\n"),
        (
            "def f():\n    x: int = 1\n    return x\n",
            "def f():\n    y: float\n    y = 1\n    return y\n",
        ),
        ("def f(x: int) -> int: return x\n", "def f(x): return x\n"),
        ("x = 1000\n", "x = 1_000\n"),
        ("x = 'a' 'b'\n", 'x = """ab"""\n'),
        ("y = [x for x in z]\n", "y = [t for t in z]\n"),
        ("", "# nothing\n'''or a docstring'''\n"),
    ],
)
def test_what_does_the_same_is_the_same(one: str, other: str) -> None:
    assert form(one) == form(other)


# --- hostile source ---------------------------------------------------------------------------

HOSTILE: dict[str, Callable[[], bytes]] = {
    "no Python": lambda: b"def inner_steps(\n",
    "zero byte": lambda: b"a = 1\0",
    "not text": lambda: b"\xff\xfe\x00",
    "unknown encoding": lambda: b"# coding: nothing\n",
    "parentheses": lambda: b"(" * MIB,
    "minus": lambda: b"-" * (MIB - 1) + b"1",
    "calls": lambda: b"a" + b"()" * (MIB // 2 - 1),
    "digits": lambda: b"x=" + b"9" * (MIB - 2),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_breaks_the_parser_is_known_by_its_bytes(name: str) -> None:
    source = HOSTILE[name]()
    start = time.monotonic()
    found, other = (look_at(each)[1] for each in (source, source + b" #"))
    assert not found.valid and found.sha256 != other.sha256
    assert len(found.shingles) == len(of("").shingles) == 2_048
    assert similarity(found.shingles, other.shingles) == 0.0
    assert time.monotonic() - start < 120


def test_what_the_parser_takes_may_be_nested_deeply() -> None:
    """Else a copy with one very long sum in it would be no copy."""
    long = "x = " + "+".join(["1"] * 900) + "\n"
    assert of(long).valid
    assert of(long).sha256 == of(long.replace("x", "y")).sha256
    chain = "if a: pass\n" + "elif b: c()\n" * 300
    assert of(chain).valid


def test_nothing_of_the_source_runs(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    of(f"open({str(marker)!r}, 'w')\ndef f(x=open({str(marker)!r}, 'w')): pass\n")
    assert not marker.exists()


# --- near copies ------------------------------------------------------------------------------

NEAR = ORIGINAL.replace("SCALE = 0.5", "SCALE = 0.25")
OTHER = (ROOT / "submissions" / "train_pp.py").read_text(encoding="utf-8")


def test_similarity_is_the_share_of_pieces_in_common() -> None:
    """Two programs that share one function of two, of about equal length: a third of all pieces."""
    shared = "def f(a):\n" + "".join(f"    a.m{n}(a, {n})\n" for n in range(400))
    one = shared + "def g(a):\n" + "".join(f"    a.p{n}(a, {n})\n" for n in range(400))
    other = shared + "def g(a):\n" + "".join(f"    a.q{n}(a, {n})\n" for n in range(400))
    assert similarity(of(one).shingles, of(other).shingles) == pytest.approx(1 / 3, abs=0.08)


def test_similarity_is_the_same_both_ways_and_for_many_at_once() -> None:
    programs = [of(text) for text in (ORIGINAL, NEAR, OTHER, "")]
    for one in programs:
        many = similarities(one.shingles, [other.shingles for other in programs])
        assert many.tolist() == [similarity(other.shingles, one.shingles) for other in programs]


def test_the_closest_is_the_most_similar_and_of_equal_ones_the_first() -> None:
    original = of(ORIGINAL)
    others = [known(4, of(OTHER)), known(5, of(NEAR)), known(6, of(NEAR))]
    found = closest(original, others)
    assert found is not None and found.submission == 5 and 0.9 < found.similarity < 1
    assert closest(original, [*others, known(9, original)]) == Near(9, 1.0)
    assert closest(original, []) is None


def test_the_very_same_file_is_the_same_even_if_it_is_no_python() -> None:
    broken = of("def f(")
    assert closest(broken, [known(1, of(ORIGINAL)), known(2, broken)]) == Near(2, 1.0)


def test_a_program_that_was_rejected_for_its_numbers_waits_when_it_is_accepted() -> None:
    accepted = of(DISGUISED)
    rejected = [known(1, of(OTHER)), known(2, of(NEAR)), known(3, of(ORIGINAL))]
    assert waits_for(accepted, rejected, [], 0.9) == Near(3, 1.0)
    assert waits_for(accepted, rejected[:1], [], 0.9) is None
    near = waits_for(accepted, rejected[:2], [], 0.9)
    assert near is not None and near.submission == 2
    assert waits_for(accepted, rejected[:2], [], 0.999) is None
    assert waits_for(accepted, [], [], 0.9) is None


def test_a_rivals_broken_copy_does_not_stop_what_follows_from_the_original() -> None:
    original = known(1, of(ORIGINAL))
    broken = known(2, of(ORIGINAL.replace("n % 2", "n % 3").replace("loss.backward()", "loss")))
    better = of(ORIGINAL.replace("SCALE = 0.5", "SCALE = 0.25"))
    assert waits_for(better, [broken], [], 0.5) is not None
    assert waits_for(better, [broken], [original], 0.5) is None
    # But the very program that was rejected waits, whatever else there is.
    same = of(ORIGINAL.replace("n % 2", "n % 3").replace("loss.backward()", "loss"))
    assert waits_for(same, [broken], [original], 0.5) == Near(2, 1.0)
    assert waits_for(same, [broken], [known(3, same)], 0.5) == Near(2, 1.0)
    # And as near to what was accepted is near enough.
    assert waits_for(better, [broken], [known(3, same)], 0.5) is None


# --- differences ------------------------------------------------------------------------------


def test_a_difference_is_unified_and_without_names() -> None:
    assert diff("a\nb\nc\n", "a\nB\nc\n") == Diff(
        ("@@ -1,3 +1,3 @@", " a", "-b", "+B", " c"), cut=False
    )
    assert diff("a\n", "a\n") == Diff((), cut=False)


def test_long_lines_and_long_differences_are_cut_and_say_so() -> None:
    assert [len(line) for line in diff("", "x" * 9_999).lines] == [13, 400]
    long = diff("", "x\n" * 5_000)
    assert long.cut and len(long.lines) == 2_000
    assert diff("", "x\n" * 100).cut is False
    assert diff("x\n" * 20_001, "x\n" * 20_001) == Diff((), cut=True)


def test_text_that_no_terminal_shows_survives_the_way_to_the_child() -> None:
    assert diff("", "\ud800\x1b[0m\u202e\n").lines[-1] == "+\ud800\x1b[0m\u202e"


def test_a_difference_that_would_take_for_ever_ends_in_seconds() -> None:
    """Lines that recur less often than difflib cares about, in another order in each text."""
    lines = [f"{n % 190}\n" for n in range(20_000)]
    before = "".join(lines)
    after = "".join(f"{n * 7919 % 190} \n" if n % 3 else lines[-n] for n in range(20_000))
    start = time.monotonic()
    found = diff(before, after)
    assert found.cut
    assert time.monotonic() - start < 60
