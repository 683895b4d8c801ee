"""A node's canary, when it is due: before anything else is judged there."""

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from harness.board.judging import Asked, Held
from harness.board.leases import Leases
from harness.board.queue import WorkerId
from harness.board.store import Store
from harness.errors import JudgeError
from harness.fleet.canaries import Canary, known, record
from harness.phases import OnProgress

#: After one that could not be judged: that is seldom mended sooner.
AGAIN_SECONDS: Final = 600.0


class CanaryDuty:
    """Of one node.

    Args:
        store, hparams_sha256: what is judged for.
        leases: of all workers of this process; told that this one lives.
        canary: the file.
        host: the node's.
        worker: as the store knows it.
        due: whether everything has to end.
        say: told what came of it.
    """

    def __init__(
        self,
        store: Store,
        leases: Leases,
        hparams_sha256: str,
        canary: Canary,
        host: str,
        worker: WorkerId,
        due: Callable[[], bool],
        say: OnProgress,
    ) -> None:
        self._store, self._leases = store, leases
        self._benchmark, self._canary = hparams_sha256, canary
        self._host, self._worker = host, worker
        self._due, self._say = due, say
        self._not_before = 0.0

    def __call__(self, held: Held) -> bool:
        """Whether there was one to be judged. Raises OSError where none can be run there."""
        if time.monotonic() < self._not_before or not self._is_time():
            return False
        self._not_before = time.monotonic() + AGAIN_SECONDS
        canary = self._canary
        self._say("canary")
        judged = held.judge(
            Asked(canary.file_name, canary.source, canary.world_size, ("--runs", str(canary.runs))),
            self._lives,
            self._due,
        )
        if judged.result is None:
            self._say(f"canary: {judged.cause}")
            return True
        self._not_before = 0.0
        excluded = record(self._store, canary, self._benchmark, self._host, judged.result)
        self._say(f"canary: {judged.result.verdict} ({judged.result.code})")
        for host, why in excluded.items():
            self._say(f"canary: {host} is excluded: {why}")
        return True

    def _lives(self, said: str) -> None:
        # A store that fails for a moment is no reason to end a canary: it is told again.
        with suppress(JudgeError):
            self._leases.seen(self._worker, "canary")

    def _is_time(self) -> bool:
        with self._store.read() as session:
            at, _ = known(session, self._benchmark).last.get(self._host, (0.0, ""))
        now = self._store.now()
        left = at + self._canary.every_seconds - now
        if left > 0:
            # Nobody else judges this host's canaries: until then the store need not be asked.
            self._not_before = time.monotonic() + left
        return left <= 0
