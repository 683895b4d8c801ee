"""A board as it is shown: rows of the one ranking, filtered, sorted and cut into pages."""

import math
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from harness.board.leaderboard import Leaderboard
from harness.board.places import Places, board_places
from harness.board.rank import Ranking
from harness.board.rows import BoardRow, rows_of
from harness.board.scores import Floats, ascending
from harness.board.store import Store
from harness.board.views import submission_lines
from harness.records import Record

PAGE: Final = 100
#: Orders of a season that are kept; one of a million entries takes 8 MB.
KEPT: Final = 8
#: More dots than that are a cloud; of the others the best of each stretch of time is shown.
MAX_DOTS: Final = 150

Show = Literal["best", "every", "unranked"]
Sort = Literal["rank", "score", "runs", "at", "author"]
#: Which way a column is sorted first, and of whom nobody asks twice.
DESCENDING: Final[frozenset[Sort]] = frozenset({"score", "runs", "at"})


class Query(Record):
    """Which board, and how it is sorted. `best`: one entry an author; `unranked`: with the reasons."""

    strategy: str | None = None
    hardware: str | None = None
    show: Show = "best"
    sort: Sort = "rank"
    reverse: bool = False
    page: int = 1


class BoardPage(Record):
    """One page of a board. `strategies` and `hardware` are what it can be filtered by; `stopped`: nothing
    is compared with the leader until the organiser has looked at it.
    """

    query: Query
    rows: tuple[BoardRow, ...]
    total: int
    pages: int
    leader: int | None
    threshold: float
    stopped: bool
    strategies: tuple[str, ...]
    hardware: tuple[str, ...]


class RecordRow(Record):
    """A change of the lead: what it was worth then, and what it was ahead, as shares."""

    at: float
    submission: int
    author: str
    score: float
    threshold: float
    jump: float


class Dot(Record):
    """An accepted submission in the chart."""

    at: float
    submission: int
    author: str
    score: float


class Boards:
    """Boards of all seasons; what took long is kept while the ranking is the same."""

    def __init__(self, store: Store, leaderboard: Leaderboard) -> None:
        self._store = store
        self._leaderboard = leaderboard
        self._lock = threading.Lock()
        # Its ranking is held by whoever made it: a large one that is outdated is not to stay for this.
        self._kept: dict[int, tuple[weakref.ref[Ranking], OrderedDict[object, _Once]]] = {}

    def page(self, season: int, query: Query) -> BoardPage:
        """One page of a board. Raises InputError(UNKNOWN_ID)."""
        ranking = self._leaderboard.ranking(season)
        key = query.model_copy(update={"page": 1})
        places: Places = self._keep(season, key, ranking, lambda: _order(ranking, query))
        strategies, hardware = self._keep(season, "choices", ranking, lambda: _choices(ranking))
        total = len(places.entry)
        pages = max(1, math.ceil(total / PAGE))
        first = (min(max(query.page, 1), pages) - 1) * PAGE
        cut = places.take(slice(first, first + PAGE)).of(ranking)
        with self._store.read() as session:
            lines = submission_lines(session, [int(number) for number in cut.index])
        return BoardPage(
            query=query,
            rows=rows_of(cut, ranking.leader, lines),
            total=total,
            pages=pages,
            leader=ranking.leader,
            threshold=ranking.threshold,
            stopped=ranking.stopped,
            strategies=strategies,
            hardware=hardware,
        )

    def records(self, season: int) -> tuple[RecordRow, ...]:
        """The record's history, oldest first. Raises InputError(UNKNOWN_ID)."""
        ranking = self._leaderboard.ranking(season)
        authors = ranking.of(ranking.records["submission"].to_numpy(np.int64))["author"]
        return tuple(
            RecordRow(
                at=row.at,
                submission=row.submission,
                author=str(author),
                score=row.score,
                threshold=row.threshold,
                jump=row.jump,
            )
            for row, author in zip(ranking.records.itertuples(), authors, strict=True)
        )

    def dots(self, season: int) -> tuple[Dot, ...]:
        """Accepted submissions for the chart. Raises InputError(UNKNOWN_ID)."""
        ranking = self._leaderboard.ranking(season)
        dots: tuple[Dot, ...] = self._keep(season, "dots", ranking, lambda: _dots(ranking))
        return dots

    def places(self, season: int, numbers: list[int]) -> dict[int, BoardRow]:
        """How submissions stand, by number; without the names of their files."""
        ranking = self._leaderboard.ranking(season)
        return {row.submission: row for row in rows_of(ranking.of(numbers), ranking.leader, {})}

    def _keep(self, season: int, key: object, ranking: Ranking, make: Callable[[], Any]) -> Any:
        """What `make` gives, once for a ranking; what is of an older one goes with it."""
        with self._lock:
            of, kept = self._kept.get(season, (None, OrderedDict[object, _Once]()))
            if of is None or of() is not ranking:
                kept = OrderedDict()
                self._kept[season] = (weakref.ref(ranking), kept)
            once = kept.setdefault(key, _Once(make))
            kept.move_to_end(key)
            while len(kept) > KEPT:
                kept.popitem(last=False)
        return once.made()


class _Once:
    """Something that is made when it is first asked for; whoever else asks meanwhile waits for it."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make: Callable[[], Any] | None = make
        self._lock = threading.Lock()
        self._made: Any = None

    def made(self) -> Any:
        with self._lock:
            if self._make is not None:
                self._made = self._make()
                self._make = None  # it holds the ranking
            return self._made


def _order(ranking: Ranking, query: Query) -> Places:
    if query.show == "unranked":
        return _sorted(ranking, _unranked(ranking, query.strategy), query)
    places = board_places(
        ranking,
        strategy=query.strategy,
        hardware=query.hardware,
        every=query.show == "every",
    )
    return _sorted(ranking, places, query)


def _unranked(ranking: Ranking, strategy: str | None) -> Places:
    """Those that are on no board, newest first."""
    entries = ranking.entries
    out = (entries["why_not"].notna() & ~entries["main"]).to_numpy(bool)
    if strategy is not None:
        out &= (entries["strategy"] == strategy).to_numpy(bool)
    there = np.flatnonzero(out)
    newest = np.argsort(-entries["at"].to_numpy(np.float64)[there], kind="stable")
    return Places(there[newest].astype(np.int32), None)


def _sorted(ranking: Ranking, places: Places, query: Query) -> Places:
    """By the wanted column; what is equal stays in the order of ranks."""
    if query.sort != "rank":
        key = _key(ranking.entries[query.sort])[places.entry]
        places = places.take(np.argsort(-key if query.sort in DESCENDING else key, kind="stable"))
    return places.take(slice(None, None, -1)) if query.reverse else places


def _key(column: "pd.Series[Any]") -> Floats:
    """What a column is sorted by: names whatever their case, each looked at once."""
    if column.name != "author":
        numbers: Floats = column.to_numpy(np.float64)
        return numbers
    names = column.astype("category").cat
    lowered = np.array([str(name).lower() for name in names.categories], object)
    alphabetical = pd.factorize(lowered, sort=True)[0]
    codes: Floats = alphabetical[names.codes.to_numpy()].astype(np.float64)
    return codes


def _choices(ranking: Ranking) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return _words(ranking, "strategy"), _words(ranking, "hardware")


def _words(ranking: Ranking, column: str) -> tuple[str, ...]:
    """Those that entries of boards have, in order. By columns: a frame of a million rows is large."""
    values = ranking.entries[column].astype("category").cat
    # Several times as fast as an index of booleans.
    codes = np.compress(ranking.entries["eligible"].to_numpy(bool), values.codes.to_numpy())
    there = np.bincount(codes, minlength=len(values.categories)) > 0
    return tuple(sorted(str(each) for each in values.categories[there]))


def _dots(ranking: Ranking) -> tuple[Dot, ...]:
    entries = ranking.entries
    score, at = (entries[name].to_numpy(np.float64) for name in ("score", "at"))
    shown = np.flatnonzero(entries["main"].to_numpy(bool) & ~np.isnan(score))
    if len(shown) > MAX_DOTS:
        shown = shown[_best_of_each_stretch(at[shown], score[shown])]
    return tuple(
        Dot(at=row.at, submission=int(row.Index), author=str(row.author), score=row.score)
        for row in entries.iloc[shown].itertuples()
    )


def _best_of_each_stretch(
    at: npt.NDArray[np.float64], score: npt.NDArray[np.float64]
) -> npt.NDArray[np.int64]:
    """Positions of the best of each of MAX_DOTS equal stretches of time, oldest first."""
    order = ascending(at)
    if order is not None:  # numbers are given in the order of time, unless a clock was set back
        at, score = at[order], score[order]
    edges = np.searchsorted(at, np.linspace(at[0], at[-1], MAX_DOTS + 1)[1:-1], side="right")
    segments = zip((0, *edges), (*edges, len(at)), strict=True)
    best = np.array([low + score[low:high].argmax() for low, high in segments if low < high])
    return best if order is None else order[best]
