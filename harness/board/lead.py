"""Who led from when: the record's history, replayed from scores and paired comparisons.

Only those take part who may be ranked today. An invalidated entry is therefore as if it had never been
there, and the lead goes back to whom it belongs. What an entry was worth at a moment is computed from
what was known then, so that later evaluations change no history.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from harness.board.rule import ScoringRule
from harness.board.scores import Bools, Floats, History, Ints, Scores, score_then

SECONDS_PER_HOUR = 3_600.0


@dataclass(frozen=True)
class Reign:
    """One change of the lead.

    Attributes:
        at: seconds since 1970.
        submission: position of the new leader.
        score: what it was worth at that moment.
        threshold: what it had to be ahead, as a share; 0 for the first, who had nobody to beat.
        jump: what it was ahead, as a share; 0 for the first.
    """

    at: float
    submission: int
    score: float
    threshold: float
    jump: float


@dataclass(frozen=True)
class Comparisons:
    """Paired comparisons in order of happening, each an array [comparisons].

    Attributes:
        at: float64, seconds since 1970.
        contender, leader: int64, positions of submissions; -1 for an unknown one.
        faster: bool, whether the contender was shown to be faster.
    """

    at: Floats
    contender: Ints
    leader: Ints
    faster: Bools


@dataclass(frozen=True)
class Lead:
    """The replay's outcome.

    Attributes:
        reigns: all changes of the lead, oldest first; empty where nobody has a score.
        lost: (contender, leader) of comparisons that count and were not won, as positions.
    """

    reigns: tuple[Reign, ...]
    lost: frozenset[tuple[int, int]]


def threshold(rule: ScoringRule, reign: Reign, at: float) -> float:
    """What a contender has to be ahead of this leader at a moment, as a share.

    It begins at the leader's own jump and halves its distance to the base every half-life.
    """
    extra = max(reign.jump - rule.base_threshold, 0.0)
    half_lives = max(at - reign.at, 0.0) / (rule.half_life_hours * SECONDS_PER_HOUR)
    return float(rule.base_threshold + extra * 0.5**half_lives)


def replay(
    past: History, now: Scores, eligible: Bools, compared: Comparisons, rule: ScoringRule
) -> Lead:
    """Go through everything that could change the lead, in order.

    Args:
        past: evaluations and runs.
        now: scores with all of them counted.
        eligible: bool [submissions], who may be ranked; each has a score now.
        compared: used where the rule asks for pairs.
    """
    moments = _scored_moments(past, now, eligible, rule)
    if not len(moments):
        return Lead((), frozenset())
    if rule.pairs:
        return _by_comparison(past, now, eligible, moments, compared, rule)
    return Lead(tuple(_by_score(past, now, moments, rule)), frozenset())


def _scored_moments(past: History, now: Scores, eligible: Bools, rule: ScoringRule) -> Ints:
    """Evaluations after which an eligible entry had a score, in order of finishing.

    int64, positions in the evaluations of `past`.
    """
    runs = _so_far(np.bincount(past.run_evaluation, minlength=len(past.at)), past)
    tried = runs + _so_far(past.failed, past)
    rate = np.divide(runs, tried, out=np.zeros(len(runs)), where=tried > 0)
    enough = (runs >= rule.min_runs) & (rate >= rule.min_success_rate)
    found = np.flatnonzero(enough & eligible[past.submission])
    order: Ints = np.lexsort((past.number[found], past.at[found]))
    return found[order]


def _so_far(counts: Ints, past: History) -> Ints:
    """A running total over the evaluations, begun anew at the first of each submission."""
    total = np.concatenate(([0], np.cumsum(counts)))
    since: Ints = total[1:] - total[past.first[past.submission]]
    return since


def _score(past: History, now: Scores, evaluation: int, rule: ScoringRule) -> float:
    """Of the submission of that evaluation, when this was its last."""
    submission = int(past.submission[evaluation])
    if evaluation + 1 == past.first[submission + 1]:
        return float(now.score[submission])
    return score_then(past, submission, evaluation + 1, rule)


def _by_comparison(
    past: History,
    now: Scores,
    eligible: Bools,
    moments: Ints,
    compared: Comparisons,
    rule: ScoringRule,
) -> Lead:
    def worth(submission: int, at: float) -> float:
        first, last = past.first[submission], past.first[submission + 1]
        known = int(np.searchsorted(past.at[first:last], at, "right"))
        return _score(past, now, int(first) + known - 1, rule) if known else np.nan

    reigns = [_first_reign(past, now, moments, rule)]
    lost = set()
    for index in range(len(compared.at)):
        at, contender = float(compared.at[index]), int(compared.contender[index])
        reign = reigns[-1]
        if contender < 0 or not eligible[contender] or contender == reign.submission:
            continue
        if compared.leader[index] != reign.submission:
            continue  # somebody else led by then, or leads no more
        mine, theirs = worth(contender, at), worth(reign.submission, at)
        theirs = reign.score if np.isnan(theirs) else theirs
        bar = threshold(rule, reign, at)
        if not mine >= theirs * (1 + bar):
            continue  # a comparison before its time; it is made again when the threshold has fallen
        if compared.faster[index]:
            reigns.append(Reign(at, contender, mine, bar, mine / theirs - 1))
        else:
            lost.add((contender, reign.submission))
    return Lead(tuple(reigns), frozenset(lost))


def _first_reign(past: History, now: Scores, moments: Ints, rule: ScoringRule) -> Reign:
    evaluation = int(moments[0])
    score = _score(past, now, evaluation, rule)
    return Reign(float(past.at[evaluation]), int(past.submission[evaluation]), score, 0.0, 0.0)


def _by_score(past: History, now: Scores, moments: Ints, rule: ScoringRule) -> Iterator[Reign]:
    """Without pairs the lead changes when a score comes to be, never by waiting."""
    reign = _first_reign(past, now, moments, rule)
    yield reign
    theirs = reign.score
    submissions = past.submission[moments]
    # Most can be passed over unseen: no score is above its fastest run.
    for evaluation, submission, fastest in zip(
        moments.tolist(), submissions.tolist(), now.high[submissions].tolist(), strict=True
    ):
        if submission == reign.submission:
            theirs = _score(past, now, evaluation, rule)
        elif fastest > theirs:
            at, mine = float(past.at[evaluation]), _score(past, now, evaluation, rule)
            bar = threshold(rule, reign, at)
            if mine >= theirs * (1 + bar):
                reign = Reign(at, submission, mine, bar, mine / theirs - 1)
                theirs = mine
                yield reign
