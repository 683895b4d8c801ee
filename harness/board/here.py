"""This machine as the place where files are judged: under its lock, by a child process."""

import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from harness.board.filling import Filler
from harness.board.judge_process import Judged, Order
from harness.board.judging import Asked, Held, judge_started, outcome_of, words_of
from harness.host.timing import hold_machine


class ThisMachine:
    """Args:
    command: judges a file: `validator run` and where it is.
    hparams: the benchmark's file.
    options: of the command, for every file.
    lock: what whoever times on this machine holds.
    filler: has the idle time.
    """

    def __init__(
        self,
        command: tuple[str, ...],
        hparams: Path,
        options: tuple[str, ...],
        lock: str,
        filler: Filler,
    ) -> None:
        self._command, self._hparams, self._options = command, hparams, options
        self._lock, self._filler = lock, filler

    def hold(self) -> AbstractContextManager[Held] | None:
        """The right to time here; None where somebody has it."""
        held = hold_machine(self._lock)
        return None if held is None else self._holding(held)

    @contextmanager
    def _holding(self, held: socket.socket) -> Iterator[Held]:
        with held:
            yield _HeldHere(self._order, held, self._filler)

    def _order(self, asked: Asked) -> Order:
        common = ("--hparams", str(self._hparams), "--world", str(asked.world_size))
        options = (*common, *self._options, *asked.options)
        return Order(self._command, asked.file_name, asked.source, options)


class _HeldHere:
    def __init__(
        self, order: Callable[[Asked], Order], held: socket.socket, filler: Filler
    ) -> None:
        self._order, self._held, self._filler = order, held, filler

    def judge(self, asked: Asked, tell: Callable[[str], None], due: Callable[[], bool]) -> Judged:
        with judge_started(self._order(asked), self._held) as judge:
            for said in words_of(judge, due):
                tell(said)
            judge.end()
            return outcome_of(judge, stopped=due())

    def use_idle_time(self, worlds: Callable[[], list[int]], needed: Callable[[], bool]) -> bool:
        return self._filler.fill(worlds, self._held, needed)
