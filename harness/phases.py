"""Where the wall time of an evaluation goes, and who is told about it while it goes."""

import time
from collections import Counter
from collections.abc import Callable
from enum import StrEnum

#: Told what is going on, a line at a time.
OnProgress = Callable[[str], None]


def silent(line: str) -> None:
    """The `OnProgress` of whoever does not want to know."""


class PhaseName(StrEnum):
    """The parts of an evaluation, in order. Only `timed` is on the judge's clock."""

    PREPARE = "prepare"
    WAIT = "wait"
    LAUNCH = "launch"
    LOAD = "load"
    SETUP = "setup"
    WARMUP = "warm-up"
    TIMED = "timed"
    OPEN = "open"
    STOP = "stop"
    REFERENCE = "reference"
    VERIFY = "verify"
    SCORE = "score"


class Phases:
    """A stopwatch with one hand: entering a phase ends the one before; times of a name add up.

    Args:
        on_enter: told the name of every phase as it begins, and a detail such as "run 2 of 3".

    Attributes:
        entered: how often each was.
    """

    def __init__(self, on_enter: Callable[[PhaseName, str], None]) -> None:
        self._on_enter = on_enter
        self.entered: Counter[PhaseName] = Counter()
        self._seconds: dict[PhaseName, float] = {}
        self._current: PhaseName | None = None
        self._since = time.perf_counter()

    def enter(self, name: PhaseName, detail: str = "") -> None:
        self.finish()
        self._current = name
        self.entered[name] += 1
        self._on_enter(name, detail)

    def finish(self) -> None:
        """End the current phase."""
        now = time.perf_counter()
        if self._current is not None:
            before = self._seconds.get(self._current, 0.0)
            self._seconds[self._current] = before + now - self._since
        self._current = None
        self._since = now

    @property
    def seconds(self) -> dict[PhaseName, float]:
        """Wall seconds of every phase entered so far, in the order of PhaseName."""
        return {name: self._seconds[name] for name in PhaseName if name in self._seconds}
