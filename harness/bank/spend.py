"""Where an evaluation's challenges come from: the bank, as long as it has some; else they are drawn."""

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Self

from harness.bank.store import Bank, Taken
from harness.benchmark import challenge as challenges
from harness.benchmark.challenge import Challenge
from harness.benchmark.hparams import Hparams
from harness.benchmark.snapshot import Snapshot
from harness.protocol.text import one_line
from harness.reference.outcome import Ahead


def tokens_sha256(challenge: Challenge) -> str:
    return sha256(challenge.tokens.tobytes()).hexdigest()


class Spending:
    """The challenges of one evaluation; what was taken from the bank is gone at the end.

    Attributes:
        trouble: why the bank could not be used, for the result's warnings.
    """

    def __init__(self, bank: Bank | None, kind: str, hparams: Hparams, snapshot: Snapshot) -> None:
        self._bank, self._kind = bank, kind
        self._hparams, self._corpus = hparams, snapshot.tokens()
        self._taken: dict[int, Taken] = {}
        self.trouble: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for taken in self._taken.values():
            taken.remove()

    def draw(self, run: int) -> Challenge:
        """The challenge of a run, drawn when all ranks are ready; no fault of the bank makes it fail."""
        taken = self._take()
        if taken is None:
            return challenges.draw(self._corpus, self._hparams)
        found = challenges.draw(self._corpus, self._hparams, taken.entry.seed)
        if tokens_sha256(found) != taken.entry.tokens_sha256:
            taken.remove()
            self.trouble.append("an entry of the bank was of another challenge, and is gone")
            return challenges.draw(self._corpus, self._hparams)
        self._taken[run] = taken
        return found

    def _take(self) -> Taken | None:
        try:
            return None if self._bank is None else self._bank.take(self._kind)
        except OSError as error:
            self.trouble.append(f"the bank could not be used: {one_line(str(error))}")
            self._bank = None
            return None

    def ahead(self, kept: Callable[[int], Path] | None) -> Ahead:
        """The references of what was taken, looked through. Called once the sandbox is gone.

        Args:
            kept: where a kept evaluation has that of a run: it lies there from now on.

        Raises JudgeError: one is damaged; OSError: there is no room for it.
        """
        folders = {}
        for run, taken in self._taken.items():
            taken.check()
            folders[run] = taken.reference if kept is None else taken.moved(kept(run))
        seconds = max((taken.entry.seconds for taken in self._taken.values()), default=0.0)
        return Ahead(folders, seconds)
