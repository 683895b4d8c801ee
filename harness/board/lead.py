"""Who led from when: the record's history, replayed from scores and paired comparisons.

Only those take part who may be ranked today. An invalidated entry is therefore as if it had never been
there, and the lead goes back to whom it belongs. What an entry was worth at a moment is computed from
what was known then, so that later evaluations change no history.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from harness.board.rule import ScoringRule
from harness.board.scores import BLOCK, Bools, Floats, History, Ints, Scores, Smalls, score_then

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
        contender, leader: int32, positions of submissions; -1 for an unknown one.
        faster: bool, whether the contender was shown to be faster.
    """

    at: Floats
    contender: Smalls
    leader: Smalls
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
    moments = _scored_moments(past, eligible, rule)
    if not len(moments):
        return Lead((), frozenset())
    if rule.pairs:
        return _by_comparison(past, now, eligible, _earliest(past, moments), compared, rule)
    moments = moments[np.lexsort((past.number[moments], past.at[moments]))]
    return Lead(tuple(_by_score(past, now, moments, rule)), frozenset())


def _earliest(past: History, moments: Ints) -> int:
    """Of some evaluations the one that finished first."""
    at = past.at[moments]
    first = moments[at == at.min()]
    return int(first[np.argmin(past.number[first])])


def _scored_moments(past: History, eligible: Bools, rule: ScoringRule) -> Ints:
    """Evaluations after which an eligible entry had a score: positions in those of `past`."""
    found = [
        _scored_of(past, begin, min(begin + BLOCK, len(eligible)), eligible, rule)
        for begin in range(0, len(eligible), BLOCK)
    ]
    return np.concatenate([np.empty(0, np.int64), *found])


def _scored_of(past: History, begin: int, end: int, eligible: Bools, rule: ScoringRule) -> Ints:
    """The same, of submissions `begin` to `end`."""
    first = past.first[begin : end + 1]
    cut = slice(first[0], first[-1])
    of = past.submission[cut] - begin
    runs = _so_far(past.runs[cut], of, first - first[0])
    tried = runs + _so_far(past.failed[cut], of, first - first[0])
    rate = np.divide(runs, tried, out=np.zeros(len(runs)), where=tried > 0)
    enough = (runs >= rule.min_runs) & (rate >= rule.min_success_rate)
    found: Ints = np.flatnonzero(enough & eligible[begin:end][of]) + first[0]
    return found


def _so_far(counts: Smalls, of: Smalls, first: Ints) -> Ints:
    """A running total over evaluations, begun anew at the first of each submission."""
    total = np.concatenate(([0], np.cumsum(counts)))
    since: Ints = total[1:] - total[first][of]
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
    first: int,
    compared: Comparisons,
    rule: ScoringRule,
) -> Lead:
    def worth(submission: int, at: float) -> float:
        begin, end = past.first[submission], past.first[submission + 1]
        known = int(np.searchsorted(past.at[begin:end], at, "right"))
        return _score(past, now, int(begin) + known - 1, rule) if known else np.nan

    reigns = [_first_reign(past, now, first, rule)]
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


def _first_reign(past: History, now: Scores, evaluation: int, rule: ScoringRule) -> Reign:
    score = _score(past, now, evaluation, rule)
    return Reign(float(past.at[evaluation]), int(past.submission[evaluation]), score, 0.0, 0.0)


def _one_by_one(past: History, now: Scores, moments: Ints) -> Iterator[tuple[int, int, float]]:
    """Evaluation, submission, and the submission's fastest run, of each moment."""
    for begin in range(0, len(moments), BLOCK):
        evaluations = moments[begin : begin + BLOCK]
        submissions = past.submission[evaluations]
        fastest = now.high[submissions]
        yield from zip(evaluations.tolist(), submissions.tolist(), fastest.tolist(), strict=True)


def _by_score(past: History, now: Scores, moments: Ints, rule: ScoringRule) -> Iterator[Reign]:
    """Without pairs the lead changes when a score comes to be, never by waiting."""
    reign = _first_reign(past, now, int(moments[0]), rule)
    yield reign
    theirs = reign.score
    # Most can be passed over unseen: no score is above its fastest run.
    for evaluation, submission, fastest in _one_by_one(past, now, moments):
        if submission == reign.submission:
            theirs = _score(past, now, evaluation, rule)
        elif fastest > theirs:
            at, mine = float(past.at[evaluation]), _score(past, now, evaluation, rule)
            bar = threshold(rule, reign, at)
            if mine >= theirs * (1 + bar):
                reign = Reign(at, submission, mine, bar, mine / theirs - 1)
                theirs = mine
                yield reign
