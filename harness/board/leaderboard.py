"""From the store to the ranking: read frames, ask `rank`, keep the answer until something happens."""

import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from harness.board.rank import Ranking, rank
from harness.board.rule import ScoringRule
from harness.board.states import EvaluationState
from harness.board.store import Store
from harness.board.tables import Author, Comparison, Evaluation, EventRow, Season, Submission
from harness.errors import Code, InputError, TrainjudgeError

#: A threshold decays by itself, so what is pending changes with time even if nothing happens.
FRESH_SECONDS: Final = 60.0
#: Submissions from which a page does not wait for the ranking.
LARGE: Final = 50_000


@dataclass(frozen=True)
class _Known:
    """A ranking: of which event, made when by the store's clock, in how many seconds."""

    last_event: int
    at: float
    seconds: float
    ranking: Ranking


class Leaderboard:
    """Rankings of a store's seasons. Safe to share between threads; one of them computes at a time."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._computing = threading.Lock()
        self._known: dict[int, _Known] = {}

    def ranking(self, season: int, *, fresh: bool = False) -> Ranking:
        """Who stands where now. Raises InputError(UNKNOWN_ID).

        A large season's takes seconds: pages get the one before while the next is made behind them. Any
        other is always that of the last event.

        Args:
            season: its number.
            fresh: wait for the last event's, however long it takes.
        """
        known = self._known.get(season)
        if known is None or fresh or len(known.ranking.entries) < LARGE:
            return self._newest(season).ranking
        outdated = known.last_event != self._store.last_event() or self._aged(known)
        # As long again as it took: rankings are not to keep a core busy.
        if outdated and self._store.now() - known.at > 2 * known.seconds:
            self._renew_behind(season)
        return known.ranking

    def _newest(self, season: int) -> _Known:
        with self._computing:
            last, now = self._store.last_event(), self._store.now()
            known = self._known.get(season)
            if known is not None and known.last_event == last and not self._aged(known):
                return known
            ranking = rank_season(self._store, season, now)
            made = _Known(last, now, self._store.now() - now, ranking)
            self._known[season] = made
            return made

    def _aged(self, known: _Known) -> bool:
        return self._store.now() - known.at > FRESH_SECONDS

    def _renew_behind(self, season: int) -> None:
        if not self._computing.locked():
            threading.Thread(target=self._try, args=(season,), daemon=True).start()

    def _try(self, season: int) -> None:
        # Whoever needs it asks again; a store that is gone tells them so itself.
        with suppress(TrainjudgeError):
            self._newest(season)


def rank_season(store: Store, season: int, now: float | None = None) -> Ranking:
    """The ranking from scratch. Raises InputError(UNKNOWN_ID)."""
    with store.read() as session:
        row = session.get(Season, season)
        if row is None:
            raise InputError(Code.UNKNOWN_ID, f"there is no season number {season}")
        evaluations, runs, judged_as = _evaluations(session, season)
        submissions = _submissions(session, season).join(judged_as.astype("object"))
        submissions = submissions.fillna({"hardware": "", "isolation": ""})
        return rank(
            submissions,
            evaluations,
            runs,
            _comparisons(session, season),
            ScoringRule.model_validate_json(row.rule),
            store.now() if now is None else now,
            row.hardware or None,
        )


def last_event_of(session: Session) -> int:
    """The number of the newest event."""
    return session.scalar(select(func.max(EventRow.id))) or 0


def _submissions(session: Session, season: int) -> pd.DataFrame:
    """As `rank` wants them, without hardware and isolation: a file does not say where it is judged."""
    frame = _frame(
        session,
        select(
            Submission.id.label("submission"),
            Author.name.label("author"),
            Submission.at,
            Submission.program,
            Submission.strategy,
            Submission.world_size,
            Submission.state,
        )
        .join(Author, Author.id == Submission.author_id)
        .where(Submission.season_id == season)
        .order_by(Submission.id),
    )
    frame = frame.astype({"submission": "int64", "at": "float64", "world_size": "int64"})
    for column in ("author", "strategy", "state"):
        frame[column] = frame[column].astype("category")
    return frame.set_index("submission")


def _evaluations(session: Session, season: int) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Finished evaluations and their runs, and by submission where the last accepted one was judged."""
    frame = _frame(
        session,
        select(
            Evaluation.id.label("evaluation"),
            Evaluation.submission_id.label("submission"),
            Evaluation.finished_at.label("at"),
            Evaluation.verdict,
            Evaluation.failed_runs,
            Evaluation.run_mfus,
            Evaluation.hardware,
            Evaluation.isolation,
        )
        .join(Submission, Submission.id == Evaluation.submission_id)
        .where(Submission.season_id == season, Evaluation.state == EvaluationState.FINISHED)
        .order_by(Evaluation.finished_at, Evaluation.id),
    )
    frame = frame.astype({"evaluation": "int64", "submission": "int64", "at": "float64"})
    blobs = [blob or b"" for blob in frame.pop("run_mfus")]
    counts = np.fromiter((len(blob) // 8 for blob in blobs), np.int64, len(blobs))
    runs = pd.DataFrame(
        {
            "evaluation": np.repeat(frame["evaluation"].to_numpy(), counts),
            "mfu": np.frombuffer(b"".join(blobs), "<f8"),
        }
    )
    judged_as = (
        frame.loc[frame["verdict"] == "accepted", ["submission", "hardware", "isolation"]]
        .drop_duplicates("submission", keep="last")
        .set_index("submission")
    )
    evaluations = frame.drop(columns=["hardware", "isolation"]).set_index("evaluation")
    return evaluations.astype({"failed_runs": "int64"}), runs, judged_as


def _comparisons(session: Session, season: int) -> pd.DataFrame:
    return _frame(
        session,
        select(
            Comparison.at,
            Comparison.contender_id.label("contender"),
            Comparison.leader_id.label("leader"),
            Comparison.ratio,
            Comparison.low,
            Comparison.faster,
        )
        .where(Comparison.season_id == season)
        .order_by(Comparison.id),
    )


def _frame(session: Session, query: Select[*tuple[Any, ...]]) -> pd.DataFrame:
    """Column by column: a row object for each of a million rows would cost more than the ranking."""
    names = [column.name for column in query.selected_columns]
    rows = session.connection().execute(query).fetchall()
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(names)
    return pd.DataFrame(dict(zip(names, columns, strict=True)), columns=names)
