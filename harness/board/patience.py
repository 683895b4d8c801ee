"""A store that fails for a while, as on a full disk that is emptied then: a worker waits for it."""

import time
from collections.abc import Callable
from typing import Final, TypeVar

from harness.errors import Code, JudgeError
from harness.phases import OnProgress

#: Of failures one after the other; then it is for a person to mend.
PATIENCE_SECONDS: Final = 600.0

Found = TypeVar("Found")


class Patience:
    """Args:
    say: told when the store begins to fail.
    rest: waits a moment before the next try.
    over: whether nobody wants to wait any more.
    """

    def __init__(self, say: OnProgress, rest: Callable[[], None], over: Callable[[], bool]) -> None:
        self._say, self._rest, self._over = say, rest, over
        self._since: float | None = None

    def insist(self, step: Callable[[], Found]) -> Found:
        """Carry out a step in the store until it succeeds.

        Raises what the step raises; a failure of the store only when it has lasted too long.
        """
        while True:
            try:
                found = step()
            except JudgeError as error:
                self._bear(error)
            else:
                self._since = None
                return found

    def _bear(self, error: JudgeError) -> None:
        if error.code is not Code.STORE_FAILED or self._over():
            raise error
        now = time.monotonic()
        if self._since is None:
            self._since = now
            self._say(f"{error.message}; the worker waits for it")
        if now - self._since > PATIENCE_SECONDS:
            raise error
        self._rest()
