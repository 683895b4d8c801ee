"""Entries of the one ranking as records: what pages, API and terminal print of them."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from sqlalchemy.orm import Session

from harness.board.places import in_order
from harness.board.rank import Ranking
from harness.board.views import SubmissionLine, submission_lines
from harness.records import Record


class BoardRow(Record):
    """An entry. `low` and `high` are its slowest and fastest run; `score` is a share of the peak."""

    rank: int | None
    leader: bool
    submission: int
    author: str
    file_name: str
    score: float | None
    low: float | None
    high: float | None
    runs: int
    success_rate: float | None
    strategy: str
    world_size: int
    hardware: str
    at: float
    alarm: bool
    copy_of: int | None
    why_not: str | None


class Listing(Record):
    """A season's entries, best first, then those without a rank.

    Attributes:
        season: its name.
        leader: the submission that leads the main board.
        threshold: what a contender has to be ahead now, as a share.
        stopped: nothing is compared with the leader until the organiser has looked at it.
        total: how many entries there are; `entries` may be cut.
    """

    season: str
    leader: int | None
    threshold: float
    stopped: bool
    total: int
    entries: tuple[BoardRow, ...]


def listing(
    session: Session, season: str, ranking: Ranking, *, limit: int, all_entries: bool = False
) -> Listing:
    """What `validator leaderboard` shows, for programs."""
    entries = in_order(ranking, every=all_entries)
    shown = entries.head(limit)
    lines = submission_lines(session, [int(number) for number in shown.index])
    return Listing(
        season=season,
        leader=ranking.leader,
        threshold=ranking.threshold,
        stopped=ranking.stopped,
        total=len(entries),
        entries=rows_of(shown, ranking.leader, lines),
    )


def rows_of(
    entries: pd.DataFrame, leader: int | None, lines: Mapping[int, SubmissionLine]
) -> tuple[BoardRow, ...]:
    """Entries of a ranking, in their order; `lines` know what their files are called."""
    numbers = [int(number) for number in entries.index]
    return tuple(
        BoardRow(
            rank=_int(row.rank),
            leader=number == leader,
            submission=number,
            author=str(row.author),
            file_name=lines[number].file_name if number in lines else "",
            score=_float(row.score),
            low=_float(row.low),
            high=_float(row.high),
            runs=int(row.runs),
            success_rate=_float(row.success_rate),
            strategy=str(row.strategy),
            world_size=int(row.world_size),
            hardware=str(row.hardware),
            at=row.at,
            alarm=bool(row.alarm),
            copy_of=_int(row.copy_of),
            why_not=None if pd.isna(row.why_not) else str(row.why_not),
        )
        for number, row in zip(numbers, entries.itertuples(), strict=True)
    )


def _int(value: Any) -> int | None:
    return None if pd.isna(value) else int(value)


def _float(value: Any) -> float | None:
    return None if pd.isna(value) else float(value)
