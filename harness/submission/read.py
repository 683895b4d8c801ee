"""A train file as the judge sees it: bytes, a hash, and what its syntax tree says. Never executed.

The strategy is the one thing that the judge must know before it runs anything (it decides who gets
which rows), so it is a literal. Everything else said here is help for the author: whether a train
file does what it should is decided by its run alone, and no Python construct is forbidden.
"""

import errno
import hashlib
import importlib.util
import os
import stat
import sys
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from harness.errors import Code, InputError, SubmissionError, TrainjudgeError
from harness.parsing.ask import Broken, ask
from harness.protocol.text import counted, one_line
from harness.submission import source_facts
from harness.submission.source_facts import Binding, Facts, StrategyFact
from harness.submission.strategy import Strategy, read_strategy

__all__ = ["Remark", "RemarkKind", "Strategy", "Submission", "check", "read"]

MAX_BYTES = 2**20


@dataclass(frozen=True)
class Submission:
    """A train file that can be run.

    Attributes:
        name: file name, for reports.
        path: where it was read; the judge runs `source`, not what lies there later.
        source: its bytes, at most 1 MiB.
        sha256: of `source`, hex.
        strategy: as declared; `read` with a world, or `Strategy.check_world`, fills in open axes.
    """

    name: str
    path: Path
    source: bytes
    sha256: str
    strategy: Strategy


class RemarkKind(StrEnum):
    OK = "ok"
    NOTE = "note"
    PROBLEM = "problem"


@dataclass(frozen=True)
class Remark:
    """One line of `validator check`; `code` says which rule a problem breaks, else it is OK."""

    kind: RemarkKind
    message: str
    code: Code = Code.OK


def read(path: Path, world: int | None = None) -> Submission:
    """Read a train file and all that the judge must know before it is run.

    Args:
        path: a regular file of at most 1 MiB; links, pipes and devices are not opened.
        world: ranks of the benchmark; if given, the strategy is checked against it and filled in.

    Raises:
        InputError: FILE_UNREADABLE: nothing can be read at that path.
        SubmissionError: with the code of the first problem that `check` would list.
        JudgeError: INTERNAL: the machine could not parse it.
    """
    return understood(path, read_source(path), world)


def understood(path: Path, source: bytes, world: int | None = None) -> Submission:
    """The same, of bytes that were read already: a file that is refused has a hash nevertheless."""
    strategy = strategy_of(_parse(source))
    return Submission(
        name=one_line(path.name),
        path=path,
        source=source,
        sha256=sha256_of(source),
        strategy=strategy if world is None else strategy.check_world(world),
    )


def sha256_of(source: bytes) -> str:
    """By which a train file is known, hex."""
    return hashlib.sha256(source).hexdigest()


def strategy_of(facts: Facts) -> Strategy:
    """The declared strategy of a file that can be run, as far as its facts say so.

    Raises SubmissionError with the code of the first problem.
    """
    strategy, remarks = _inspect(facts)
    for remark in remarks:
        if remark.kind is RemarkKind.PROBLEM:
            raise SubmissionError(remark.code, remark.message)
    assert strategy is not None  # else there was a problem
    return strategy


def check(path: Path, world: int, global_batch: int | None) -> list[Remark]:
    """Everything that can be said of a train file without running it, problems and good news.

    Args:
        path: as for `read`.
        world: ranks of the benchmark.
        global_batch: rows of one step over all dp ranks; None where that is not known.

    Raises InputError and JudgeError as `read` does; a SubmissionError becomes a problem.
    """
    try:
        source = read_source(path)
    except SubmissionError as error:
        return [_problem(error)]
    facts = _parse(source)
    missing = [name for name in facts.packages if not _is_here(name)]
    remarks = _remarks(facts, len(source), world, global_batch)
    if missing:
        remarks.append(
            Remark(
                RemarkKind.NOTE,
                f"not installed here: {', '.join(missing)}; it has to be where the file is judged, "
                "at level docker in the image",
            )
        )
    return remarks


def check_bytes(source: bytes, world: int, global_batch: int | None) -> list[Remark]:
    """`check` of bytes that somebody has read already, at most MAX_BYTES of them.

    It does not look for packages: a server need not have those of the machine that judges.
    """
    return _remarks(_parse(source), len(source), world, global_batch)


def _is_here(package: str) -> bool:
    """Whether it could be imported. Nothing is: only a name with a dot would import what is before it."""
    return package in sys.modules or importlib.util.find_spec(package) is not None


def _remarks(facts: Facts, size: int, world: int, global_batch: int | None) -> list[Remark]:
    strategy, remarks = _inspect(facts)
    remarks = [Remark(RemarkKind.OK, f"{size:,} bytes of at most {MAX_BYTES:,}"), *remarks]
    if strategy is None:
        return remarks
    try:
        filled = strategy.check_world(world)
        remarks.append(
            Remark(
                RemarkKind.OK,
                f"the strategy uses the {counted(world, 'rank')} that it is judged on",
            )
        )
        if global_batch is not None:
            filled.check_batch(global_batch)
            rows = global_batch // filled.dp_size
            remarks.append(
                Remark(RemarkKind.OK, f"each dp rank gets {rows} of {global_batch} rows a step")
            )
    except SubmissionError as error:
        remarks.append(_problem(error))
    return remarks


def _problem(error: TrainjudgeError) -> Remark:
    return Remark(RemarkKind.PROBLEM, error.message, error.code)


# --- bytes ------------------------------------------------------------------------------------


def read_source(path: Path) -> bytes:
    """At most MAX_BYTES of a regular file; whatever else lies there is refused, not waited for."""
    try:
        # Without O_NONBLOCK the open itself would wait for somebody to write into a FIFO.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno == errno.ELOOP:
            raise SubmissionError(
                Code.FILE_UNREADABLE, f"{path} is a symbolic link; give the file that it points to"
            ) from None
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(Code.FILE_UNREADABLE, f"cannot read {path}: {reason}") from None
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise InputError(Code.FILE_UNREADABLE, f"{path} is a folder; give a train file")
        if not stat.S_ISREG(mode):
            raise SubmissionError(Code.FILE_UNREADABLE, f"{path} is not a regular file")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            source = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(Code.FILE_UNREADABLE, f"cannot read {path}: {error.strerror}") from None
    finally:
        os.close(descriptor)
    if len(source) > MAX_BYTES:
        raise SubmissionError(
            Code.FILE_TOO_LARGE, f"{path} is larger than the {MAX_BYTES:,} bytes allowed"
        )
    return source


def _parse(source: bytes) -> Facts:
    """Let a child with limits parse it; see `harness.submission.source_facts`."""
    return facts_of(ask(source_facts.__name__, "main", source))


def facts_of(answer: Any) -> Facts:
    """What a child has answered, as `asdict` wrote it; or that it broke down."""
    if isinstance(answer, Broken):
        return source_facts.refused(f"Python's parser broke down over it ({answer.how})")
    return Facts(
        syntax_error=answer["syntax_error"],
        strategy=StrategyFact(**answer["strategy"]),
        inner_steps=[Binding(**binding) for binding in answer["inner_steps"]],
        setup=[Binding(**binding) for binding in answer["setup"]],
        star_import=answer["star_import"],
        packages=answer["packages"],
    )


# --- what the facts mean ----------------------------------------------------------------------


def _inspect(facts: Facts) -> tuple[Strategy | None, list[Remark]]:
    """The strategy, None if it cannot be had, and a remark for everything that was looked at."""
    if facts.syntax_error:
        return None, [
            Remark(
                RemarkKind.PROBLEM,
                f"this is not Python {sys.version_info.major}.{sys.version_info.minor}: "
                f"{facts.syntax_error}",
                Code.SYNTAX_ERROR,
            )
        ]
    remarks = [Remark(RemarkKind.OK, "it parses"), _inner_steps_remark(facts)]
    if facts.setup:
        remarks.append(_call_remark("setup", "setup(model, device, num_gpus)", facts.setup))
    try:
        strategy = read_strategy(facts.strategy)
    except SubmissionError as error:
        return None, [*remarks, _problem(error)]
    if not strategy.declared:
        text = "no get_strategy(): that means one rank"
    elif facts.strategy.status == "text":
        text = f'get_strategy() is "{facts.strategy.text}"'
    else:
        text = "get_strategy() is one literal with known keys"
    remarks.append(Remark(RemarkKind.OK if strategy.declared else RemarkKind.NOTE, text))
    return strategy, remarks


def _inner_steps_remark(facts: Facts) -> Remark:
    call = "inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=N)"
    if facts.inner_steps:
        return _call_remark("inner_steps", call, facts.inner_steps)
    if facts.star_import:
        return Remark(
            RemarkKind.NOTE, "inner_steps may come from an `import *`; only a run can tell"
        )
    return Remark(
        RemarkKind.PROBLEM,
        f"there is no inner_steps at the top level of the file; the worker calls {call}",
        Code.NO_INNER_STEPS,
    )


def _call_remark(name: str, call: str, bindings: list[Binding]) -> Remark:
    """Whether a call would be accepted. Of several definitions one that fits is enough."""
    if any(binding.kind == "def" and not binding.refusal for binding in bindings):
        return Remark(RemarkKind.OK, f"{name} accepts the call {call}")
    opaque = [binding for binding in bindings if binding.kind == "opaque"]
    if opaque:
        return Remark(
            RemarkKind.NOTE,
            f"{name} (line {opaque[0].line}) is imported, assigned or decorated; only a run can "
            f"tell whether it accepts {call}",
        )
    last = bindings[-1]
    return Remark(
        RemarkKind.PROBLEM,
        f"{name} (line {last.line}) cannot be called as {call}: {last.refusal}",
        Code.BAD_SIGNATURE,
    )
