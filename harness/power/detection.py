"""From runs with a cheat to the rate at which an evaluation finds it, with a bound."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Self

from harness.benchmark.hparams import Hparams
from harness.benchmark.rules import Together, Tolerances
from harness.power.measured import Case, CheatedRun
from harness.verify.metrics import exceeds, judged_metrics
from harness.verify.rates import CONFIDENCE, at_least
from harness.verify.together import judge_together

#: An evaluation that finds a cheat less often than that does not deter it.
DETECTED: Final = 0.99


@dataclass(frozen=True)
class Rules:
    """What rejects: of one run, and of all runs of an evaluation."""

    tolerances: Tolerances
    together: Together
    evaluation_runs: int

    @classmethod
    def of(cls, hparams: Hparams) -> Self:
        return cls(hparams.verify.tolerances, hparams.together, hparams.evaluation_runs)


@dataclass(frozen=True)
class Judged:
    """A case by the rules of a benchmark.

    Attributes:
        runs, found: how many were trained, and how many of them are rejected by themselves.
        evaluations, together: how many evaluations they make, and how many of those are rejected by what
            their runs say together.
        of: runs of an evaluation.
        nearest, times: the check that is most over (or nearest to) its tolerance in the median run, and how
            many times its tolerance that is.
    """

    case: Case
    runs: int
    found: int
    evaluations: int
    together: int
    of: int
    nearest: str
    times: float

    def detection(self, *, bound: bool = False) -> float:
        """The rate at which an evaluation finds a cheat that is in all of its runs.

        It is missed if every run passes by itself; and if all of them pass together, which is another
        rate: the larger of both is the estimate. Runs are of independent challenges.

        Args:
            bound: the lower bound at CONFIDENCE instead; two rates share what may be wrong.
        """
        rates = 2 if self.evaluations else 1
        confidence = 1 - (1 - CONFIDENCE) / rates

        def rate(count: int, of: int) -> float:
            return at_least(count, of, confidence) if bound else count / of

        alone = 1 - (1 - rate(self.found, self.runs)) ** self.of
        return max(alone, rate(self.together, self.evaluations)) if self.evaluations else alone


def judge(case: Case, rules: Rules) -> Judged:
    """What the rules say to every run, and to the evaluations that they make one after the other."""
    tolerances = judged_metrics(rules.tolerances)
    nearest = sorted((_nearest(run, tolerances) for run in case.runs), key=lambda pair: pair[1])
    name, times = nearest[len(nearest) // 2]
    evaluations = list(_evaluations(case.runs, rules))
    return Judged(
        case=case,
        runs=len(case.runs),
        found=sum(rejected(run, tolerances) for run in case.runs),
        evaluations=len(evaluations),
        together=sum(bool(judge_together(runs, rules.together)) for runs in evaluations),
        of=rules.evaluation_runs,
        nearest=name,
        times=times,
    )


def rejected(run: CheatedRun, tolerances: dict[str, float]) -> bool:
    """Whether a check rejects it by itself."""
    return bool(run.rejected_by) or any(
        exceeds(value, tolerances[name])
        for name, value in run.metrics.items()
        if name in tolerances
    )


def _evaluations(runs: Sequence[CheatedRun], rules: Rules) -> Iterator[Sequence[CheatedRun]]:
    """Where runs say something together."""
    of, asked = rules.evaluation_runs, rules.together
    if of > 1 and (asked.strict_update_error is not None or asked.means):
        for first in range(0, len(runs) - of + 1, of):
            yield runs[first : first + of]


def _nearest(run: CheatedRun, tolerances: dict[str, float]) -> tuple[str, float]:
    parts = {
        name: value / tolerances[name]
        for name, value in run.metrics.items()
        if name in tolerances and not math.isnan(value)
    }
    return max(parts.items(), key=lambda pair: pair[1])


def unseen(judged: Iterable[Judged], *, bound: bool = False) -> dict[str, Judged | None]:
    """For each family the case that saves most of those that an evaluation finds at less than DETECTED.

    Args:
        bound: by the lower bound of that rate instead of its estimate.

    Returns:
        By the families' names; None where every measured strength is found.
    """
    found: dict[str, Judged | None] = {}
    for each in judged:
        most = found.setdefault(each.case.family, None)
        if each.detection(bound=bound) < DETECTED and (
            most is None
            or (each.case.saves, each.case.saves_bytes) > (most.case.saves, most.case.saves_bytes)
        ):
            found[each.case.family] = each
    return found
