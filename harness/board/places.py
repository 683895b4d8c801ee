"""The one ranking as it is listed: the board of everybody, of a kind of hardware, of a strategy.

Places are positions in `Ranking.entries`: a list of entries themselves would be a copy.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from harness.board.rank import Ranking, by_score, one_an_author
from harness.board.scores import Ints, Smalls, positions


@dataclass(frozen=True)
class Places:
    """Entries of a ranking in some order.

    Attributes:
        entry: int32 [n], positions in `Ranking.entries`.
        rank: int32 [n], counted from 1 on this board; None: they have none here.
    """

    entry: Smalls
    rank: Smalls | None

    def take(self, order: Ints | slice) -> "Places":
        """Some of them, or all in another order."""
        return Places(self.entry[order], None if self.rank is None else self.rank[order])

    def of(self, ranking: Ranking) -> pd.DataFrame:
        """The entries themselves, with these ranks (int32)."""
        entries = ranking.entries.iloc[self.entry]
        return entries if self.rank is None else entries.assign(rank=self.rank)


def board_places(
    ranking: Ranking,
    *,
    hardware: str | None = None,
    strategy: str | None = None,
    world_size: int | None = None,
    every: bool = False,
) -> Places:
    """The places of one board, best first.

    Args:
        hardware: None is that of the main board. On another there is no lead to defend: its order is that
            of the scores.
        strategy, world_size: only such entries; the main board's leader is first where it is one of them.
        every: all entries of every author, instead of the best that is on this board.
    """
    entries = ranking.entries
    if not every and all(wanted is None for wanted in (hardware, strategy, world_size)):
        best = np.flatnonzero(entries["best"].to_numpy(bool))
        rank = entries["rank"].iloc[best].to_numpy(np.int32)
        order = np.argsort(rank)
        return Places(best[order].astype(np.int32), rank[order])
    on = entries["main" if hardware is None else "eligible"].to_numpy(bool)
    for column, wanted in (
        ("hardware", hardware), ("strategy", strategy), ("world_size", world_size)
    ):  # fmt: skip
        if wanted is not None:
            on = on & (entries[column] == wanted).to_numpy(bool)
    there = np.flatnonzero(on).astype(np.int32)
    by_time = there[np.argsort(entries["at"].to_numpy(np.float64)[there], kind="stable")]
    leader = -1
    if ranking.leader is not None:
        leader = int(positions(entries.index, [ranking.leader])[0])
    place = by_score(
        entries["score"].to_numpy(np.float64), by_time, leader if leader >= 0 and on[leader] else -1
    )
    place = place if every else one_an_author(entries["author"], place)
    return Places(place, np.arange(1, len(place) + 1, dtype=np.int32))


def in_order(ranking: Ranking, *, every: bool) -> pd.DataFrame:
    """The entries of the main board by rank; with `every` those without a rank too, behind it by score."""
    entries = ranking.entries
    shown = entries if every else entries[entries["rank"].notna()]
    return shown.sort_values(["rank", "score"], ascending=[True, False], na_position="last")
