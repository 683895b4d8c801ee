"""What waits in the store, asked once a second for all nodes of a dispatcher.

A thousand that are idle would ask it at every look, and each be told the same.
"""

import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from sqlalchemy import select

from harness.board import comparing
from harness.board.queue import WorkerId, waits
from harness.board.store import Store
from harness.board.tables import Season
from harness.board.worker import Shared

FRESH_SECONDS: Final = 1.0
Found = TypeVar("Found")


@dataclass(frozen=True)
class SeasonNeeds:
    """Of a season: what its evaluations need of a node."""

    id: int
    world_size: int
    hardware: str
    levels: tuple[str, ...]


@dataclass
class OpenWork:
    """Args:
    store, shared, hparams_sha256: what is judged for.
    worker: who asks, for all.
    """

    store: Store
    shared: Shared
    hparams_sha256: str
    worker: WorkerId
    _asking: threading.Lock = field(default_factory=threading.Lock)
    _known: dict[Hashable, tuple[float, Any]] = field(default_factory=dict)

    def seasons(self) -> tuple[SeasonNeeds, ...]:
        """Of the benchmark; also closed ones, of which something may wait still."""
        return self._fresh("seasons", self._seasons)

    def stirs(self, seasons: frozenset[int] | None) -> bool:
        """Whether anything waits in these, or a comparison is owed."""
        return self._fresh(
            seasons,
            lambda: (
                waits(self.store, self.worker, self.hparams_sha256, seasons)
                or comparing.owed(self.store, self.shared.leaderboard, self.hparams_sha256)
            ),
        )

    def _fresh(self, what: Hashable, ask: Callable[[], Found]) -> Found:
        with self._asking:
            at, found = self._known.get(what, (-FRESH_SECONDS, None))
            if time.monotonic() - at >= FRESH_SECONDS:
                found = ask()
                self._known[what] = time.monotonic(), found
            known: Found = found
            return known

    def _seasons(self) -> tuple[SeasonNeeds, ...]:
        of_benchmark = select(Season).where(Season.hparams_sha256 == self.hparams_sha256)
        with self.store.read() as session:
            return tuple(
                SeasonNeeds(
                    season.id, season.world_size, season.hardware, season.scoring_rule.isolation
                )
                for season in session.scalars(of_benchmark)
            )
