"""From runs to scores: what every submission is worth now, and what it was worth at an earlier moment.

Pure functions on arrays. A million evaluations are sorted once; everything after that walks through
contiguous segments, so that no submission costs a call of its own.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from harness.board.rule import ScoringRule

Ints = npt.NDArray[np.int64]
#: What there are millions of.
Smalls = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

#: Submissions, or evaluations, that are looked at together: what that takes stays small.
BLOCK = 50_000


@dataclass(frozen=True)
class History:
    """Counted evaluations and their runs, by submission.

    Evaluations that ended in our own error are not here; neither is a row that points to nothing.

    Attributes:
        submission: int32 [evaluations], position of the submission, ascending; within one submission
            in the order of finishing.
        number: int32 [evaluations], its place among all that ever finished.
        at: float64 [evaluations], seconds since 1970 when it finished.
        failed: int32 [evaluations], runs that the submission failed.
        runs: int32 [evaluations], its timed runs, where it was accepted.
        first: int32 [submissions + 1], where the evaluations of each begin in the arrays above.
        mfu: float64 [runs], ascending within each submission; NaN last.
        run_evaluation: int32 [runs], position in the arrays above of the evaluation a run belongs to.
        first_run: int32 [submissions + 1], where the runs of each submission begin.
    """

    submission: Smalls
    number: Smalls
    at: Floats
    failed: Smalls
    runs: Smalls
    first: Smalls
    mfu: Floats
    run_evaluation: Smalls
    first_run: Smalls


@dataclass(frozen=True)
class Scores:
    """What the runs of each submission say, each an array [submissions].

    Attributes:
        score: float64, the rule's statistic; NaN where there is no score.
        low, high: float64, the slowest and the fastest run: of the few runs of an evaluation the only
            spread that was measured rather than interpolated. NaN without runs.
        runs: int32, timed runs of accepted evaluations.
        success_rate: float64, of those and the failed ones; NaN where there were neither.
        alarm: bool, a run whose MFU is no share of the peak: above 1, negative or not a number.
        enough: bool, whether it has the runs and the success rate that the rule asks for.
    """

    score: Floats
    low: Floats
    high: Floats
    runs: Smalls
    success_rate: Floats
    alarm: Bools
    enough: Bools


def ascending(values: npt.NDArray[Any]) -> Ints | None:
    """The order that sorts them, equal ones as they come.

    None where they are in order, as a store mostly gives them: to sort would copy everything.
    """
    return None if (values[1:] >= values[:-1]).all() else np.argsort(values, kind="stable")


def positions(index: "pd.Index[Any]", keys: npt.ArrayLike) -> Smalls:
    """Where each key stands in an ascending, unique index; -1 for one that is not there. int32 [keys]."""
    wanted = np.asarray(keys)
    found = np.full(len(wanted), -1, np.int32)
    if not len(index):
        return found
    first, last = int(index[0]), int(index[-1])
    known = None if last - first == len(index) - 1 else index.to_numpy(np.int64)
    for begin in range(0, len(wanted), BLOCK):
        block = wanted[begin : begin + BLOCK].astype(np.int64)
        if known is None:  # ids without gaps, as a store gives them
            there, place = (block >= first) & (block <= last), block - first
        else:
            place = np.minimum(np.searchsorted(known, block), len(known) - 1)
            there = known[place] == block
        found[begin : begin + BLOCK] = np.where(there, place, -1)
    return found


def history(submissions: int, evaluations: pd.DataFrame, runs: pd.DataFrame, of: Smalls) -> History:
    """Sort evaluations and runs by submission.

    Args:
        submissions: how many there are.
        evaluations: as for `rank`, its index ascending.
        runs: as for `rank`.
        of: int32 [evaluations], position of each one's submission, -1 if unknown.
    """
    accepted = (evaluations["verdict"] == "accepted").to_numpy(bool)
    rejected = (evaluations["verdict"] == "rejected").to_numpy(bool)
    counted = (accepted | rejected) & (of >= 0)
    at = evaluations["at"].to_numpy(np.float64)
    kept: Smalls = np.flatnonzero(counted).astype(np.int32)
    kept = kept[np.lexsort((kept, at[kept], of[kept]))]
    submission = of[kept]
    failed = evaluations["failed_runs"].to_numpy()[kept].astype(np.int32)
    # A rejection before the first run is a failed attempt as much as one in the last.
    failed = np.where(rejected[kept], np.maximum(failed, 1), failed)

    place = np.full(len(evaluations) + 1, -1, np.int32)  # the last is for -1: unknown stays unknown
    place[kept] = np.arange(len(kept))
    place[:-1][~accepted] = -1
    run_evaluation = place[positions(evaluations.index, runs["evaluation"])]
    mfu = runs["mfu"].to_numpy(np.float64)
    known = run_evaluation >= 0
    if not known.all():  # as it is, there is nothing to copy
        run_evaluation, mfu = run_evaluation[known], mfu[known]
    counts = np.bincount(run_evaluation, minlength=len(kept)).astype(np.int32)
    owner = submission[run_evaluation]
    first_run = _starts(owner, submissions)
    order = _ascending_within(mfu, owner, first_run)
    del owner, known, place  # of each there are millions
    run_evaluation = run_evaluation[order]
    mfu = mfu[order]
    del order
    return History(
        submission=submission,
        number=kept,
        at=at[kept],
        failed=failed,
        runs=counts,
        first=_starts(submission, submissions),
        mfu=mfu,
        run_evaluation=run_evaluation,
        first_run=first_run,
    )


def _starts(owner: Smalls, submissions: int) -> Smalls:
    starts = np.zeros(submissions + 1, np.int32)
    np.cumsum(np.bincount(owner, minlength=submissions), out=starts[1:])
    return starts


def _ascending_within(values: Floats, owner: Smalls, first: Smalls) -> Smalls:
    """Positions that order `values` by owner, and ascending within each; `first` as `_starts` gives it.

    Owners with equally many values are rows of a matrix. That is several times faster than to sort by two
    keys, most of all when the values come in the order of their owners, as a store gives them.
    """
    found = ascending(owner)
    order: Smalls = (
        np.arange(len(owner), dtype=np.int32) if found is None else found.astype(np.int32)
    )
    counts = np.diff(first)
    for count in np.unique(counts[counts > 1]).tolist():
        starts = first[:-1][counts == count]
        for begin in range(0, len(starts), BLOCK):
            rows = starts[begin : begin + BLOCK, None] + np.arange(count)
            inner = np.argsort(values[order[rows]], axis=1)
            order[rows] = np.take_along_axis(order[rows], inner, axis=1)
    return order


def scores(past: History, rule: ScoringRule) -> Scores:
    """What all submissions are worth, every counted evaluation included."""
    submissions = len(past.first) - 1
    failed = np.bincount(past.submission, past.failed, submissions).astype(np.int32)
    return _scores(past.mfu, past.first_run, failed, rule)


def score_then(past: History, submission: int, until: int, rule: ScoringRule) -> float:
    """The score of one submission when only its first evaluations were known; NaN if it had none.

    Args:
        submission: its position.
        until: position in the evaluations of `past` after the last one that counts.
    """
    first, last = past.first_run[submission], past.first_run[submission + 1]
    mfu = past.mfu[first:last][past.run_evaluation[first:last] < until]
    failed = past.failed[past.first[submission] : until].sum()
    return float(_scores(mfu, np.array([0, len(mfu)]), np.array([failed]), rule).score[0])


def _scores(mfu: Floats, first: Smalls, failed: Smalls, rule: ScoringRule) -> Scores:
    runs = np.diff(first).astype(np.int32)
    some = runs > 0
    start, end = first[:-1][some], first[1:][some]
    low, high, value = (np.full(len(runs), np.nan) for _ in range(3))
    low[some], high[some] = mfu[start], mfu[end - 1]
    if rule.statistic == "median":
        # The middle of an ascending segment, or the mean of the two that share it.
        value[some] = (mfu[(start + end - 1) // 2] + mfu[(start + end) // 2]) / 2
    elif rule.statistic == "worst":
        value[some] = low[some]
    elif len(start):
        # In ascending order, so that the order of the rows does not show in the last bit.
        value[some] = np.add.reduceat(mfu, start) / runs[some]
    tried = runs + failed
    rate = np.divide(runs, tried, out=np.full(len(runs), np.nan), where=tried > 0)
    alarm = some & ~((low >= 0) & (high <= 1))
    enough = some & (runs >= rule.min_runs) & (rate >= rule.min_success_rate)
    # A median of zero is no training at all, and nothing could be a share faster than it.
    value[~(enough & ~alarm & (value > 0))] = np.nan
    return Scores(value, low, high, runs, rate, alarm, enough)
