"""While nothing waits, a worker has references trained ahead: `validator bank fill` as its child process.

The child works under the right to time that the worker holds, as a judge does, so never beside anything
that is timed. It is ended as soon as something waits; what it had half made is lost.
"""

import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlalchemy import select

from harness.bank.store import Bank
from harness.board.child import Child, last_line
from harness.board.store import Store
from harness.board.tables import Season
from harness.errors import TrainjudgeError
from harness.phases import OnProgress
from harness.protocol.text import one_line

FILL: Final = (sys.executable, "-m", "harness.cli", "bank", "fill", "--idle")
END_SECONDS: Final = 30.0
LOOK_SECONDS: Final = 1.0
#: After a child that added nothing, or failed: what is wrong with this machine is seldom mended sooner.
AGAIN_SECONDS: Final = 600.0


@dataclass(frozen=True)
class Wanted:
    """What a worker keeps ready.

    Attributes:
        bank: where entries lie.
        kind_of: of the entries for so many ranks, as `bank.kind.kind_of`.
        count: unused ones for each number of ranks that an open season has.
        options: of `validator bank fill`, without count and world.
        command: `validator bank fill`.
    """

    bank: Bank
    kind_of: Callable[[int], str]
    count: int
    options: tuple[str, ...]
    command: tuple[str, ...] = FILL

    def unused(self, world_size: int) -> int:
        return len(self.bank.entries(self.kind_of(world_size)))


def open_worlds(store: Store, hparams_sha256: str) -> list[int]:
    """For how many ranks the open seasons of a benchmark are."""
    now = store.now()
    with store.read() as session:
        seasons = session.scalars(select(Season).where(Season.hparams_sha256 == hparams_sha256))
        return sorted({season.world_size for season in seasons if not season.over(now)})


class Filler:
    """Fills the bank for one worker."""

    def __init__(self, wanted: Wanted | None, progress: OnProgress) -> None:
        self._wanted, self._progress = wanted, progress
        self._starts_from = 0.0

    def fill(
        self, worlds: Callable[[], list[int]], held: socket.socket, needed: Callable[[], bool]
    ) -> bool:
        """Add entries where some are missing, until the machine is needed; whether any were added.

        A bank is a help and no worker's task: what goes wrong is told, and tried again later.

        Args:
            worlds: numbers of ranks that entries are wanted for; asked only if any are wanted.
            held: the right to time on this machine, which the child inherits.
            needed: whether it has to end.
        """
        if self._wanted is None or time.monotonic() < self._starts_from:
            return False
        try:
            return any(self._fill(each, held, needed) for each in self._short(worlds()))
        except (OSError, subprocess.SubprocessError, TrainjudgeError) as error:
            self._failed(one_line(str(error)))
            return False

    def _short(self, worlds: list[int]) -> Iterator[int]:
        assert self._wanted is not None
        for world_size in worlds:
            if self._wanted.unused(world_size) < self._wanted.count:
                yield world_size

    def _fill(self, world_size: int, held: socket.socket, needed: Callable[[], bool]) -> bool:
        wanted = self._wanted
        assert wanted is not None
        before = wanted.unused(world_size)
        arguments = ("--count", str(wanted.count), "--world", str(world_size), *wanted.options)
        with tempfile.TemporaryDirectory(prefix="trainjudge-worker-") as folder:
            child = Child([*wanted.command, *arguments], Path(folder, "log"), [held])
            try:
                while child.status is None and not needed():
                    time.sleep(LOOK_SECONDS)
                ended = child.status is None
            finally:
                child.end(END_SECONDS)
            added = wanted.unused(world_size) > before
            if not ended and not added:
                self._failed(last_line(child.said()))
        return added

    def _failed(self, why: str) -> None:
        self._starts_from = time.monotonic() + AGAIN_SECONDS
        self._progress(f"the bank cannot be filled: {why}")
