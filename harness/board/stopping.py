"""Asked to end: how whoever works learns of it, and how it waits without missing it."""

import time
from collections.abc import Callable
from typing import Final, Protocol

LOOK_SECONDS: Final = 0.25


class Ending(Protocol):
    """Whether somebody has to end."""

    @property
    def requested(self) -> bool:
        """Nothing more is begun."""

    @property
    def due(self) -> bool:
        """What is at hand has to be given back now."""


class Stop:
    """Asked to end: first in good time, then at once.

    Args:
        grace_seconds: how long the evaluation at hand may go on after the first request.
    """

    def __init__(self, grace_seconds: float) -> None:
        self._grace = grace_seconds
        self._deadline: float | None = None

    @property
    def requested(self) -> bool:
        return self._deadline is not None

    @property
    def due(self) -> bool:
        """Whether the evaluation at hand has to be given back now."""
        return self._deadline is not None and time.monotonic() >= self._deadline

    def request(self) -> None:
        """The second request is due at once."""
        now = time.monotonic()
        self._deadline = now + self._grace if self._deadline is None else now


def rest(seconds: float, until: Callable[[], bool]) -> None:
    """A handler of signals only asks, and the loop has to see it soon."""
    end = time.monotonic() + seconds
    while not until() and (left := end - time.monotonic()) > 0:
        time.sleep(min(left, LOOK_SECONDS))
