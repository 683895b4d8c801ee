"""Which programs are the same, nearly the same, or too near to one that was rejected.

Untrusted source is parsed in a child process with limits (`harness.board.program`), never here. A hash
of the normal form finds copies in disguise; a sketch of fixed size finds near copies. Neither proves
anything: who rewrites a program by hand is found by nobody, and two people can have the same idea. So a
near copy is shown, and no more; what is decided by the hash alone is in docs/scoring.md.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.board import program
from harness.parsing.ask import Broken, ask
from harness.submission.read import facts_of
from harness.submission.source_facts import Facts

MAX_DIFF_CHARACTERS = 2**20


@dataclass(frozen=True)
class Program:
    """What a source file is, disguises aside.

    Attributes:
        sha256: hex, of the normal form; of the bytes themselves if they are no Python.
        valid: whether it could be parsed.
        items: how many items the normal form has: nodes of the syntax tree, names and constants.
        shingles: the sketch, 2 KiB; `similarity` compares two of them.
    """

    sha256: str
    valid: bool
    items: int
    shingles: bytes


@dataclass(frozen=True)
class Known:
    """An earlier submission, as far as copies go. `submission` is its number."""

    submission: int
    sha256: str
    shingles: bytes


@dataclass(frozen=True)
class Near:
    """The submission that a program resembles most, and how much: 1 is every piece of it."""

    submission: int
    similarity: float


@dataclass(frozen=True)
class Diff:
    """What changed between two texts.

    Attributes:
        lines: of a unified diff, without the two that name the files; each cut after 400 characters.
        cut: whether there is more than is shown, or the two differ in too many ways to be compared.
    """

    lines: tuple[str, ...]
    cut: bool


def look_at(source: bytes) -> tuple[Facts, Program]:
    """What the judge will read off a source file, and its normal form; there always is an answer.

    Args:
        source: at most 1 MiB, as `harness.submission.read` takes it.

    Raises JudgeError(INTERNAL) where the machine could not run the child.
    """
    answer: Any = ask(program.__name__, "main", source)
    broken = isinstance(answer, Broken)
    found = program.unknown(source) if broken else answer["program"]
    return facts_of(answer if broken else answer["facts"]), Program(
        sha256=str(found["sha256"]),
        valid=bool(found["valid"]),
        items=int(str(found["items"])),
        shingles=bytes.fromhex(str(found["shingles"])),
    )


def diff(before: str, after: str) -> Diff:
    """A unified diff of two sources, bounded in size and time.

    Texts are cut after 2^20 characters. Hostile ones, which a comparison would take hours for, give an
    empty diff that says it was cut.

    Raises JudgeError(INTERNAL) where the machine could not run the child.
    """
    texts = [text[:MAX_DIFF_CHARACTERS] for text in (before, after)]
    answer = ask(program.__name__, "diff_main", json.dumps(texts).encode())
    if isinstance(answer, Broken):
        return Diff((), cut=True)
    shortened = texts != [before, after]
    lines = answer["lines"]
    assert isinstance(lines, list)
    return Diff(tuple(lines), cut=bool(answer["cut"]) or shortened)


# --- nearly the same --------------------------------------------------------------------------


def similarity(one: bytes, other: bytes) -> float:
    """The estimated share of pieces that two programs have in common, of all that either has.

    Args:
        one, other: `Program.shingles`.

    Returns:
        0 to 1; its standard error is below 0.022, and below 0.014 where it is 0.9. 0 where one of them
        has no pieces, as what is no Python has none.
    """
    return float(similarities(one, [other])[0])


def similarities(one: bytes, others: Sequence[bytes]) -> npt.NDArray[np.float64]:
    """`similarity` with each of the others, float64 [others]."""
    mine = _bins(one)
    theirs = _bins(b"".join(others)).reshape(len(others), program.BINS)
    filled = (mine != program.EMPTY) | (theirs != program.EMPTY)
    agree = ((mine == theirs) & filled).sum(axis=1)
    share: npt.NDArray[np.float64] = agree / np.maximum(filled.sum(axis=1), 1)
    return share


def _bins(shingles: bytes) -> npt.NDArray[np.uint32]:
    return np.frombuffer(shingles, "<u4").astype(np.uint32, copy=False)


def closest(one: Program, others: Sequence[Known]) -> Near | None:
    """The most similar of `others`, of equally similar ones the first; None without any.

    The very same program is wholly similar, even where it is no Python.
    """
    if not others:
        return None
    near = similarities(one.shingles, [other.shingles for other in others])
    near[[other.sha256 == one.sha256 for other in others]] = 1.0
    best = int(np.argmax(near))
    return Near(others[best].submission, float(near[best]))


def waits_for(
    one: Program, rejected: Sequence[Known], accepted: Sequence[Known], near_copy: float
) -> Near | None:
    """Luck is no strategy: the rejected submission that makes this accepted one wait for the organiser.

    Args:
        one: the program that was accepted just now.
        rejected: submissions that were rejected for their numbers before, oldest first.
        accepted: submissions that were accepted before, and stand. Who is at least as near to one of
            these does not wait: else a broken copy of somebody's program, handed in by a rival, would
            stop all that follows from it.
        near_copy: `ScoringRule.near_copy`.

    Returns:
        The first that is the same program; else the most similar one, if it is so by `near_copy` or more
        and nothing in `accepted` is as similar; else None.
    """
    found = closest(one, rejected)
    if found is None or found.similarity < near_copy:
        return None
    if any(other.sha256 == one.sha256 for other in rejected):
        return found
    stands = closest(one, accepted)
    return found if stands is None or stands.similarity < found.similarity else None
