"""A file is judged somewhere: what is asked, what is heard meanwhile, and what came of it.

A worker judges on its own machine (`here`); a fleet has it done on a node. Whoever asks does not know.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from socket import socket
from typing import Protocol

from harness.board import stopping
from harness.board.child import last_line
from harness.board.judge_process import Judged, JudgeProcess, Order
from harness.board.queue import HEARTBEAT_SECONDS
from harness.board.stopping import rest


@dataclass(frozen=True)
class Asked:
    """What is to be judged.

    Attributes:
        file_name: as the author calls it.
        source: the train file.
        world_size: ranks.
        options: of `validator run`, besides those of the place where it is judged.
    """

    file_name: str
    source: bytes
    world_size: int
    options: tuple[str, ...] = ()


class Held(Protocol):
    """The right to time on a machine, and the way to use it."""

    def judge(self, asked: Asked, tell: Callable[[str], None], due: Callable[[], bool]) -> Judged:
        """Have a file judged to its end, or until that is `due`.

        Args:
            asked: the file.
            tell: called with what the judge says, whenever that changes and at every heartbeat.
            due: whether it has to end now.

        Raises what `tell` raises, after the judge has ended; OSError where none can be run there.
        """

    def use_idle_time(self, worlds: Callable[[], list[int]], needed: Callable[[], bool]) -> bool:
        """Do what a machine does that nobody needs; whether there was anything."""


class Place(Protocol):
    """Where files are judged, one at a time."""

    def hold(self) -> AbstractContextManager[Held] | None:
        """The right to time there; None where somebody else has it."""


class Talks(Protocol):
    """A child process that says how far it is."""

    @property
    def status(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""

    def said(self) -> str:
        """The end of what it has printed."""


@contextmanager
def judge_started(order: Order, held: socket) -> Iterator[JudgeProcess]:
    """A judge in a folder of its own, ended afterwards. Raises OSError where none can be run."""
    with (
        tempfile.TemporaryDirectory(prefix="trainjudge-worker-") as folder,
        JudgeProcess(order, Path(folder), [held]) as judge,
    ):
        yield judge


def words_of(judge: Talks, due: Callable[[], bool]) -> Iterator[str]:
    """What it has said, whenever that changes and at every heartbeat, until it has ended or that is due."""
    told, shown = 0.0, ""
    while judge.status is None and not due():
        said = judge.said()
        if said != shown or time.monotonic() - told > HEARTBEAT_SECONDS:
            yield said
            told, shown = time.monotonic(), said
        rest(stopping.LOOK_SECONDS, lambda: due() or judge.status is not None)


def outcome_of(judge: JudgeProcess, stopped: bool) -> Judged:
    """What came of a judge that has ended."""
    return Judged(judge.result(), judge.status, last_line(judge.said()), stopped)
