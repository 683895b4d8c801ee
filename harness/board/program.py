"""The child process that looks at untrusted source: bytes in, a little JSON out.

Run by `harness.board.copies` as `harness.parsing` says, with the standard library only. Nothing of the
source is executed. `main` finds the normal form of one program: a hash of it, for "the same program", and
a sketch of its short pieces, for "nearly the same". `diff_main` compares two texts by line.
"""

import ast
import difflib
import hashlib
import json
import sys
from array import array
from dataclasses import asdict
from itertools import islice

from harness.board.normal_form import NormalForm
from harness.parsing import child
from harness.submission.source_facts import collect

BINS = 512
EMPTY = 2**32 - 1  # of a bin that no piece fell into
PIECE = 10  # items of the normal form: about one short statement
#: Python functions that call each other need no C stack, so this is limited by memory alone.
DEEP = 1_000_000

DIFF_SECONDS = 5
DIFF_LINES = 20_000
DIFF_OUTPUT_LINES = 2_000
DIFF_LINE_CHARACTERS = 400
DIFF_CONTEXT = 3


def look(source: bytes) -> dict[str, object]:
    """What `harness.board.copies.Program` holds, as JSON has it. Never raises for what `source` holds."""
    try:
        tree = ast.parse(source)
        sys.setrecursionlimit(DEEP)  # only now: the parser itself does use the C stack
        form = NormalForm(tree)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return unknown(source)
    exact = "\n".join(form.exact).encode("utf-8", "backslashreplace")
    return {
        "sha256": hashlib.sha256(exact).hexdigest(),
        "valid": True,
        "items": len(form.loose),
        "shingles": sketch(form.loose).hex(),
    }


def unknown(source: bytes) -> dict[str, object]:
    """Of what is no Python: its own bytes are all that it can be known by."""
    return {
        "sha256": hashlib.sha256(source).hexdigest(),
        "valid": False,
        "items": 0,
        "shingles": sketch([]).hex(),
    }


def sketch(items: list[str]) -> bytes:
    """BINS little-endian uint32: of all pieces of PIECE items that fall into a bin the smallest hash.

    The share of bins in which two sketches agree estimates the share of pieces that two programs have in
    common (one permutation hashing). EMPTY where there is no piece.
    """
    bins = array("I", [EMPTY]) * BINS
    pieces = {
        tuple(piece) for piece in zip(*(islice(items, n, None) for n in range(PIECE)), strict=False)
    }
    for piece in pieces:
        text = "\n".join(piece).encode("utf-8", "backslashreplace")
        number = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")
        place, value = number % BINS, min((number // BINS) % 2**32, EMPTY - 1)
        bins[place] = min(bins[place], value)
    if sys.byteorder == "big":
        bins.byteswap()
    return bins.tobytes()


def compare(before: str, after: str) -> dict[str, object]:
    """A unified diff as JSON has it: lines without their ends, and whether anything was cut off."""
    old, new = before.splitlines(), after.splitlines()
    cut = max(len(old), len(new)) > DIFF_LINES
    lines = difflib.unified_diff(old[:DIFF_LINES], new[:DIFF_LINES], n=DIFF_CONTEXT, lineterm="")
    shown = list(islice(lines, 2, DIFF_OUTPUT_LINES + 3))  # two lines name the files
    if len(shown) > DIFF_OUTPUT_LINES:
        cut = True
    return {
        "lines": [line[:DIFF_LINE_CHARACTERS] for line in shown[:DIFF_OUTPUT_LINES]],
        "cut": cut,
    }


def main() -> None:
    """The source from stdin, what it is to stdout, and with it what the judge will read off it."""
    source = child.begin()
    child.answer({"program": look(source), "facts": asdict(collect(source))})


def diff_main() -> None:
    """A JSON list of two texts from stdin, their difference to stdout."""
    before, after = json.loads(child.begin(DIFF_SECONDS))
    child.answer(compare(before, after))
