"""From the store to the ranking: read frames, ask `rank`, keep the answer until something happens."""

import threading
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

import pandas as pd
from sqlalchemy.orm import Session

from harness.board.frames import season_frames
from harness.board.history import pairs_stopped
from harness.board.memory import given_back
from harness.board.rank import Ranking, past_of, rank
from harness.board.scores import History
from harness.board.store import Store
from harness.board.tables import Season
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
        age = self._store.now() - known.at
        outdated = known.last_event != self._store.last_event() or age > FRESH_SECONDS
        # As long again as it took: rankings are not to keep a core busy.
        if outdated and age > 2 * known.seconds:
            self._renew_behind(season)
        return known.ranking

    def _newest(self, season: int) -> _Known:
        with self._computing:
            last, now = self._store.last_event(), self._store.now()
            known = self._known.get(season)
            if known is not None and known.last_event == last and now - known.at <= FRESH_SECONDS:
                return known
            ranking = rank_season(self._store, season, now)
            made = _Known(last, now, self._store.now() - now, ranking)
            self._known[season] = made
            return made

    def _renew_behind(self, season: int) -> None:
        if not self._computing.locked():
            threading.Thread(target=self._try, args=(season,), daemon=True).start()

    def _try(self, season: int) -> None:
        # Whoever needs it asks again; a store that is gone tells them so itself.
        with suppress(TrainjudgeError):
            self._newest(season)


def rank_season(store: Store, season: int, now: float | None = None) -> Ranking:
    """The ranking from scratch. Raises InputError(UNKNOWN_ID)."""
    with given_back(), store.read() as session:
        row = session.get(Season, season)
        if row is None:
            raise InputError(Code.UNKNOWN_ID, f"there is no season number {season}")
        return _rank(session, row, store.now() if now is None else now)


def _rank(session: Session, season: Season, now: float) -> Ranking:
    submissions, past, comparisons = _read(session, season.id)
    ranking = rank(
        submissions, past, comparisons, season.scoring_rule, now, season.hardware or None
    )
    if ranking.leader is not None and pairs_stopped(session, ranking.leader):
        # It would fail again, at the machine's cost: a person has to say what comes of it.
        return replace(ranking, pending=(), stopped=True)
    return ranking


def _read(session: Session, season: int) -> tuple[pd.DataFrame, History, pd.DataFrame]:
    """Submissions, their past, comparisons; evaluations and runs are let go as soon as that is made."""
    with given_back():
        frames = season_frames(session, season)
        past = past_of(frames.submissions, frames.evaluations, frames.runs)
        return frames.submissions, past, frames.comparisons
