"""Where an evaluation's challenges come from: the bank, as long as it has some; else they are drawn."""

import shutil
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from harness.bank.kind import kind_of
from harness.bank.store import Bank, Entry
from harness.benchmark import challenge as challenges
from harness.benchmark.challenge import Challenge
from harness.benchmark.hparams import Hparams
from harness.benchmark.snapshot import Snapshot
from harness.machine import Device
from harness.reference.outcome import Ahead, RunFolders


class Spending:
    """The challenges of one evaluation; what was taken from the bank is gone at the end.

    Attributes:
        taken: the entries by the number of the run, and where they lie.
    """

    def __init__(
        self,
        bank: Bank | None,
        hparams: Hparams,
        snapshot: Snapshot,
        world_size: int,
        device: Device,
    ) -> None:
        self._bank, self._hparams, self._corpus = bank, hparams, snapshot.tokens()
        self._kind = kind_of(hparams, snapshot, world_size, device)
        self.taken: dict[int, tuple[Entry, Path]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for _, folder in self.taken.values():
            shutil.rmtree(folder, ignore_errors=True)

    def draw(self, run: int) -> Challenge:
        """The challenge of a run; called when all ranks are ready for it."""
        found = None if self._bank is None else self._bank.take(self._kind)
        if found is None:
            return challenges.draw(self._corpus, self._hparams)
        self.taken[run] = found
        return challenges.draw(self._corpus, self._hparams, found[0].seed)

    @property
    def ahead(self) -> Ahead:
        """The references of what was taken."""
        return Ahead(
            {run: RunFolders.of_entry(folder) for run, (_, folder) in self.taken.items()},
            max((entry.seconds for entry, _ in self.taken.values()), default=0.0),
        )

    def keep(self, place: Callable[[int], Path]) -> None:
        """Move what was taken to where a kept evaluation has it, so that it can be judged again."""
        for run, (_, folder) in self.taken.items():
            kept = place(run)
            kept.parent.mkdir(exist_ok=True)
            shutil.move(folder, kept)
