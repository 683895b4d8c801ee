"""Seasons that are made up, to be checked on paper. Times are hours."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from harness.board.places import board_places
from harness.board.rank import Ranking, past_of, rank
from harness.board.rule import ScoringRule

HOUR = 3_600.0
NO_PAIRS = ScoringRule(pairs=0)
PAIRS = ScoringRule()


class Season:
    """Frames, written by the hour. Submissions and evaluations are numbered from 1."""

    def __init__(self) -> None:
        self.submissions: list[dict[str, Any]] = []
        self.evaluations: list[dict[str, Any]] = []
        self.runs: list[dict[str, Any]] = []
        self.comparisons: list[dict[str, Any]] = []

    def submit(
        self, author: str, hour: float, mfu: float | Sequence[float] = (), **columns: Any
    ) -> int:
        """A submission, and an accepted evaluation at once if there is an MFU."""
        self.submissions.append(
            {
                "author": author,
                "at": hour * HOUR,
                "program": f"program {len(self.submissions)}",
                "strategy": "dp 2",
                "world_size": 2,
                "hardware": "H100",
                "isolation": "docker",
                "state": "judged",
            }
            | columns
        )
        number = len(self.submissions)
        if mfu != ():
            self.judge(number, hour, mfu)
        return number

    def judge(
        self,
        submission: int,
        hour: float,
        mfu: float | Sequence[float] = (),
        verdict: str = "accepted",
        failed: int = 0,
    ) -> None:
        self.evaluations.append(
            {"submission": submission, "at": hour * HOUR, "verdict": verdict, "failed_runs": failed}
        )
        for value in [mfu] if isinstance(mfu, float) else mfu:
            self.runs.append({"evaluation": len(self.evaluations), "mfu": value})

    def compare(self, contender: int, leader: int, hour: float, faster: bool) -> None:
        self.comparisons.append(
            {
                "at": hour * HOUR,
                "contender": contender,
                "leader": leader,
                "ratio": 1.02,
                "low": 1.01 if faster else 0.99,
                "faster": faster,
            }
        )

    def frames(self) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, pd.DataFrame]:
        def frame(rows: list[dict[str, Any]], *columns: str) -> pd.DataFrame:
            return pd.DataFrame(rows, columns=list(columns) if not rows else None)

        submissions = frame(
            self.submissions,
            *(
                "author",
                "at",
                "program",
                "strategy",
                "world_size",
                "hardware",
                "isolation",
                "state",
            ),
        )
        evaluations = frame(self.evaluations, "submission", "at", "verdict", "failed_runs")
        submissions.index = pd.RangeIndex(1, len(submissions) + 1, name="submission")
        evaluations.index = pd.RangeIndex(1, len(evaluations) + 1, name="evaluation")
        runs = frame(self.runs, "evaluation", "mfu")
        compared = frame(self.comparisons, "at", "contender", "leader", "ratio", "low", "faster")
        return submissions, evaluations, runs, compared

    def rank(
        self, rule: ScoringRule = NO_PAIRS, hour: float = 1_000.0, hardware: str | None = None
    ) -> Ranking:
        return rank_frames(*self.frames(), rule, hour * HOUR, hardware)


def rank_frames(
    submissions: pd.DataFrame,
    evaluations: pd.DataFrame,
    runs: pd.DataFrame,
    comparisons: pd.DataFrame,
    rule: ScoringRule,
    now: float,
    hardware: str | None = None,
) -> Ranking:
    past = past_of(submissions, evaluations, runs)
    return rank(submissions, past, comparisons, rule, now, hardware)


def board_of(ranking: Ranking, **wanted: Any) -> pd.DataFrame:
    """The entries of a board, in its order."""
    return board_places(ranking, **wanted).of(ranking)


def ranks(ranking: Ranking) -> dict[int, int]:
    """Rank by submission, of those that have one."""
    return {int(i): int(r) for i, r in ranking.entries["rank"].dropna().items()}


def why(ranking: Ranking, submission: int) -> str:
    reason = ranking.entries.loc[submission, "why_not"]
    assert pd.isna(ranking.entries.loc[submission, "rank"])
    return str(reason)


def leaders(ranking: Ranking) -> list[tuple[float, int]]:
    """(hour, submission) of every change of the lead."""
    return [(at / HOUR, int(s)) for at, s in ranking.records[["at", "submission"]].to_numpy()]
