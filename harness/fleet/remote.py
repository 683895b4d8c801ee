"""A node as the place where files are judged: what `board.here` is for this machine."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Final, Protocol

from pydantic import ValidationError

from harness.board.judge_process import Judged
from harness.board.judging import Asked, Held
from harness.board.queue import HEARTBEAT_SECONDS
from harness.fleet.reports import Ended, Lost, Order, Report, Said, Unable
from harness.result import EvaluationResult

#: Of waiting for a report, before it is asked whether everything has to end.
LOOK_SECONDS: Final = 0.25
#: So long Ray may say that a machine is taken that was our own task's.
OWN_SECONDS: Final = 5.0
#: Nothing was heard for so long: the node stands still, or its machine is used by others.
SILENCE_SECONDS: Final = 180.0


class Task(Protocol):
    """A file that is judged on a node; `cluster.Task` by Ray."""

    def next(self, seconds: float) -> Report | None:
        """The next report; None where none came in time."""

    def end(self) -> None:
        """End the judge if it has not, and wait for that."""


class NodePlace:
    """Args:
    start: begins to judge a file on the node.
    benchmark: hash of the hparams file.
    lost: told that the node, or Ray's process on it, is gone: nothing more may be taken for it.
    taken: whether the machine is somebody's, as far as Ray knew a moment ago.
    """

    def __init__(
        self,
        start: Callable[[Order], Task],
        benchmark: str,
        lost: Callable[[], None],
        taken: Callable[[], bool] = lambda: False,
    ) -> None:
        self._start, self._benchmark, self._lost = start, benchmark, lost
        self._taken = taken
        self._ended = -OWN_SECONDS

    def hold(self) -> AbstractContextManager[Held] | None:
        """Whoever is judged there has the machine from Ray, and its lock, from begin to end of its task.

        So nothing is held here. It is only not asked for while somebody else has it.
        """
        if self._taken() and time.monotonic() - self._ended > OWN_SECONDS:
            return None
        return nullcontext(self)

    def judge(self, asked: Asked, tell: Callable[[str], None], due: Callable[[], bool]) -> Judged:
        """As `judging.Held`; OSError where the node says that it can run no judge."""
        task = self._start(Order(self._benchmark, asked))
        try:
            judged = _watch(task, tell, due)
        finally:
            task.end()
            self._ended = time.monotonic()
        if judged.lost:
            self._lost()
        return judged

    def use_idle_time(self, worlds: Callable[[], list[int]], needed: Callable[[], bool]) -> bool:
        return False


def _watch(task: Task, tell: Callable[[str], None], due: Callable[[], bool]) -> Judged:
    """Pass on what is said, and at every heartbeat that somebody watches, until there is an outcome."""
    said, last = "", ""
    began = False
    heard = time.monotonic()
    told = 0.0
    while not due():
        report = task.next(LOOK_SECONDS)
        now = time.monotonic()
        heard = heard if report is None else now
        match report:
            case Said():
                said, began = report.text, True
            case Ended():
                return _judged(report)
            case Unable():
                raise OSError(0, report.cause)
            case Lost():
                return _lost(report.cause, began)
        if now - heard > SILENCE_SECONDS:
            return _lost(f"nothing was heard of its node for {SILENCE_SECONDS:.0f} s", began)
        if said != last or now - told > HEARTBEAT_SECONDS:
            tell(said)
            told, last = now, said
    return Judged(None, None, "", stopped=True)


def _judged(ended: Ended) -> Judged:
    """A document that is none of ours, as of a node with another version, is no result."""
    try:
        document = ended.document
        result = None if document is None else EvaluationResult.model_validate_json(document)
    except ValidationError:
        return _lost("its node sent what is no result document")
    return Judged(result, ended.status, ended.last_line, stopped=False)


def _lost(cause: str, began: bool = True) -> Judged:
    """What never began is no try: the file cannot have had a part in it."""
    return Judged(None, None, "", stopped=not began, lost=cause)
