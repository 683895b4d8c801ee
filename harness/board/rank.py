"""The one ranking: pure functions from frames to frames. The rule in words is docs/scoring.md.

No clock, no files, no database: the same frames give the same ranking on any machine, whatever the order of
their rows. A million evaluations take seconds from scratch, so nothing of it has to be kept up to date.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from harness.board.lead import Comparisons, Lead, replay, threshold
from harness.board.rule import ScoringRule
from harness.board.scores import (
    Bools,
    Floats,
    History,
    Ints,
    Scores,
    Smalls,
    history,
    positions,
    scores,
)

#: States in which an entry takes no part, whatever it has reached, and what its page says. One that is
#: being judged again keeps what it has meanwhile.
OUT = {
    "held": "waits for the organiser",
    "cancelled": "cancelled",
    "invalidated": "invalidated",
}
BETTER = "its author has a better one"
HARDWARE = "not judged on the season's hardware"
ISOLATION = "judged at an isolation level that may not be ranked"
COPY = "the same program as an earlier submission"
NOTHING = "it trained nothing"
FAILS = "too many of its runs failed"
TOO_FEW = "too few runs"
REJECTED = "rejected"
ALARM = "its MFU is no share of the peak: the organiser has to look"
NOT_YET = "not judged yet"
GAVE_UP = "we could not judge it"

#: The first of them changes who leads, and with it what the others have to beat.
MAX_PENDING = 100

GIVEN = ("author", "at", "strategy", "world_size", "hardware")


@dataclass(frozen=True)
class Ranking:
    """Who stands where, and why.

    Attributes:
        entries: one row for each submission, by id. Columns: author, at, strategy, world_size, hardware as
            given; score (float64, a share of the peak, NaN without one); low and high (float64, slowest
            and fastest run); runs (int32); success_rate (float64); alarm (bool, a run outside of 0 to
            1); copy_of (Int32, the first submission of the same program); eligible (bool, may be on a
            board); main (bool, on the main one); best (bool, stands for its author there); rank (Int32,
            on the main board); why_not (category, the reason of a missing rank, NaN with one).
        records: changes of the lead, oldest first: at (float64, seconds since 1970), submission
            (int64), score (float64, as it was then), threshold and jump (float64, shares).
        pending: (contender, leader) that have to be compared now, best first; at most MAX_PENDING.
        threshold: what a contender has to be ahead now, as a share; the base where nobody leads.
        stopped: nothing is compared with the leader until the organiser has looked at it; nothing is
            pending then. `rank` does not know of it: that is in the events (`leaderboard`).
    """

    entries: pd.DataFrame
    records: pd.DataFrame
    pending: tuple[tuple[int, int], ...]
    threshold: float
    stopped: bool = False

    @property
    def leader(self) -> int | None:
        """The submission that leads the main board."""
        return int(self.records["submission"].iloc[-1]) if len(self.records) else None

    def of(self, numbers: Sequence[int] | Ints) -> pd.DataFrame:
        """The entries of these submissions, in that order; without those that are not in this season.

        Without `entries.loc`, which would make a table of all numbers first.
        """
        found = positions(self.entries.index, numbers)
        return self.entries.iloc[found[found >= 0]]


def past_of(submissions: pd.DataFrame, evaluations: pd.DataFrame, runs: pd.DataFrame) -> History:
    """What `rank` wants of evaluations and runs: half of a large season, which may go after it.

    Rows that point to something that is not there count for nothing.

    Args:
        submissions: as for `rank`.
        evaluations: index evaluation (int64, unique, in order of finishing); submission (int64), at
            (float64, when it finished), verdict ("accepted", "rejected" or "error"), failed_runs (int64).
        runs: evaluation (int64), mfu (float64): one row for each timed run of an accepted evaluation.
    """
    submissions, evaluations = _by_id(submissions), _by_id(evaluations)
    of = positions(submissions.index, evaluations["submission"])
    return history(len(submissions), evaluations, runs, of)


def rank(
    submissions: pd.DataFrame,
    past: History,
    comparisons: pd.DataFrame,
    rule: ScoringRule,
    now: float,
    hardware: str | None = None,
) -> Ranking:
    """Rank a season.

    Args:
        submissions: index submission (int64, unique); author (str), at (float64, seconds since 1970
            when it was handed in), program (equal where the normalised program is; "" or missing: not
            known), strategy (str), world_size (int64), hardware (str), isolation (str), state (str).
        past: of the same submissions, as `past_of` gives it.
        comparisons: at (float64), contender and leader (int64, submissions), faster (bool).
        rule: of the season.
        now: seconds since 1970; decides what is pending and nothing else.
        hardware: of the main board; None: any.
    """
    submissions = _by_id(submissions)
    ids, size = submissions.index, len(submissions)
    judged = np.diff(past.first) > 0
    # Of those that were handed in at one moment the lower number is the earlier.
    order: Smalls = np.argsort(submissions["at"].to_numpy(np.float64), kind="stable").astype(
        np.int32
    )
    original = _originals(submissions, judged, order)
    worth = scores(past, rule)
    fit = _fit(submissions, worth, original, rule)
    main = fit
    if hardware is not None:
        main = fit & (submissions["hardware"] == hardware).to_numpy(bool)

    lead = replay(past, worth, main, _compared(comparisons, submissions), rule)
    leader = lead.reigns[-1].submission if lead.reigns else -1
    place = by_score(worth.score, order[main[order]], leader)
    bar = threshold(rule, lead.reigns[-1], now) if lead.reigns else rule.base_threshold
    best = np.zeros(size, bool)
    best[one_an_author(submissions["author"], place)] = True
    entries = pd.DataFrame(
        {
            **{name: submissions[name] for name in GIVEN},
            "score": worth.score,
            "low": worth.low,
            "high": worth.high,
            "runs": worth.runs,
            "success_rate": worth.success_rate,
            "alarm": worth.alarm,
            "copy_of": _nullable(ids.take(original).to_numpy(np.int64), original >= 0),
            "eligible": fit,
            "main": main,
            "best": best,
            "rank": _nullable(_numbered(place[best[place]], size), best),
            "why_not": _why_not(submissions, worth, judged, original, fit, main, best, rule),
        },
        index=ids,
        copy=False,
    )
    return Ranking(
        entries=entries,
        records=_records(lead, ids),
        pending=_pending(worth.score, place, lead, bar, ids) if rule.pairs else (),
        threshold=bar,
    )


# --- who may be ranked ------------------------------------------------------------------------


def _by_id(frame: pd.DataFrame) -> pd.DataFrame:
    return frame if frame.index.is_monotonic_increasing else frame.sort_index()


def _originals(submissions: pd.DataFrame, judged: Bools, order: Smalls) -> Smalls:
    """Position of the first submission of the same program; -1 for one that is no copy.

    One that was withdrawn, or that we could not judge, stands in nobody's way.
    """
    state = submissions["state"]
    serves = (judged | (state != "failed").to_numpy(bool)) & (state != "cancelled").to_numpy(bool)
    program = submissions["program"]
    codes = pd.factorize(program)[0].astype(np.int32)
    codes[(program == "").to_numpy(bool)] = -1
    first = np.full(codes.max(initial=-1) + 2, -1, np.int32)
    latest_first = order[serves[order]][::-1]
    first[codes[latest_first]] = latest_first  # the last assignment, the earliest one's, stays
    first[-1] = -1  # of those whose program is not known
    found = first[codes]
    turn = _numbered(order, len(order))
    return np.where((found >= 0) & (turn[found] < turn), found, -1).astype(np.int32)


def _fit(submissions: pd.DataFrame, worth: Scores, original: Smalls, rule: ScoringRule) -> Bools:
    fit: Bools = ~np.isnan(worth.score) & (original < 0)
    fit &= ~submissions["state"].isin(OUT).to_numpy(bool)
    fit &= submissions["isolation"].isin(rule.isolation).to_numpy(bool)
    return fit


def _why_not(
    submissions: pd.DataFrame,
    worth: Scores,
    judged: Bools,
    original: Smalls,
    fit: Bools,
    main: Bools,
    best: Bools,
    rule: ScoringRule,
) -> pd.Categorical:
    """The reason of a missing rank; of several, the one that comes last here."""
    state = submissions["state"]
    unscored = np.isnan(worth.score)
    reasons: list[tuple[str, Bools]] = [
        (BETTER, main & ~best),
        (HARDWARE, fit & ~main),
        (ISOLATION, ~submissions["isolation"].isin(rule.isolation).to_numpy(bool)),
        (COPY, original >= 0),
        (NOTHING, unscored),
        (FAILS, unscored & (worth.success_rate < rule.min_success_rate)),
        (TOO_FEW, unscored & (worth.runs < rule.min_runs)),
        (REJECTED, judged & (worth.runs == 0)),
        (ALARM, worth.alarm),
        (NOT_YET, ~judged),
        (GAVE_UP, ~judged & (state == "failed").to_numpy(bool)),
        *((words, (state == name).to_numpy(bool)) for name, words in OUT.items()),
    ]
    codes = np.full(len(submissions), -1, np.int8)
    for code, (_, holds) in enumerate(reasons):
        codes[holds] = code
    return pd.Categorical.from_codes(codes, [words for words, _ in reasons])


# --- places -----------------------------------------------------------------------------------


def _compared(comparisons: pd.DataFrame, submissions: pd.DataFrame) -> Comparisons:
    at = comparisons["at"].to_numpy(np.float64)
    contender = positions(submissions.index, comparisons["contender"])
    leader = positions(submissions.index, comparisons["leader"])
    faster = comparisons["faster"].to_numpy(bool)
    order = np.lexsort((faster, leader, contender, at))
    return Comparisons(at[order], contender[order], leader[order], faster[order])


def by_score(score: Floats, by_time: Smalls, leader: int) -> Smalls:
    """Positions in the order of a board: the leader, then by score, of equal ones the earlier.

    Args:
        score: float64, of all entries.
        by_time: int32, positions of those on this board, earliest first.
        leader: its position, -1 where it is not on this board.
    """
    place = by_time[np.argsort(-score[by_time], kind="stable")]
    if leader < 0:
        return place
    return np.concatenate((np.array([leader], np.int32), place[place != leader]))


def one_an_author(author: "pd.Series[str]", place: Smalls) -> Smalls:
    """Of each author the place that comes first; so the leader's author is there with the leader."""
    codes = pd.factorize(author)[0][place]
    first: Smalls = place[~pd.Series(codes).duplicated().to_numpy(bool)]
    return first


def _numbered(place: Smalls, size: int) -> Smalls:
    """1, 2, 3, ... at these positions, and 0 elsewhere."""
    numbers = np.zeros(size, np.int32)
    numbers[place] = np.arange(1, len(place) + 1)
    return numbers


def _nullable(values: npt.NDArray[np.integer], there: Bools) -> pd.arrays.IntegerArray:
    return pd.arrays.IntegerArray(np.where(there, values, 0).astype(np.int32), ~there)


def _records(lead: Lead, ids: "pd.Index[Any]") -> pd.DataFrame:
    reigns = lead.reigns
    return pd.DataFrame(
        {
            "at": np.array([reign.at for reign in reigns], np.float64),
            "submission": ids.take([reign.submission for reign in reigns]).to_numpy(np.int64),
            "score": np.array([reign.score for reign in reigns], np.float64),
            "threshold": np.array([reign.threshold for reign in reigns], np.float64),
            "jump": np.array([reign.jump for reign in reigns], np.float64),
        }
    )


def _pending(
    score: Floats, place: Smalls, lead: Lead, bar: float, ids: "pd.Index[Any]"
) -> tuple[tuple[int, int], ...]:
    """Those whose score is far enough ahead and who have not lost to this leader; best first."""
    if not lead.reigns:
        return ()
    leader = lead.reigns[-1].submission
    ahead = place[(score[place] >= score[leader] * (1 + bar)) & (place != leader)]
    lost = np.array([contender for contender, to in lead.lost if to == leader], np.int64)
    owed = ahead[~np.isin(ahead, lost)][:MAX_PENDING]
    return tuple((contender, int(ids[leader])) for contender in ids.take(owed).tolist())
