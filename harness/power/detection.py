"""From runs with a cheat to the rate at which an evaluation finds it, with a bound."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from statistics import NormalDist
from typing import Final, Self

from harness.benchmark.hparams import Hparams
from harness.benchmark.rules import Together, Tolerances
from harness.power.fitted import spreads_over
from harness.power.measured import Case, RunFigures
from harness.verify.metrics import exceeds, judged_metrics
from harness.verify.rates import CONFIDENCE, at_least
from harness.verify.together import judge_together

#: An evaluation that finds a cheat less often than that does not deter it.
DETECTED: Final = 0.99
_NORMAL: Final = NormalDist()


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
        rate: at which an evaluation finds a cheat that is in all of its runs: it is missed if every run
            passes by itself, and if all of them pass together. The larger of both.
        at_least: the lower bound of that rate at CONFIDENCE: the largest of those by counts, and that by
            how far metrics are over what is allowed; they share what may be wrong.
        nearest, times: the check that is most over (or nearest to) its tolerance in the median run, and how
            many times its tolerance that is.
    """

    case: Case
    runs: int
    found: int
    evaluations: int
    together: int
    rate: float
    at_least: float
    nearest: str
    times: float


def judge(case: Case, rules: Rules) -> Judged:
    """What the rules say to every run, and to the evaluations that they make one after the other."""
    tolerances = judged_metrics(rules.tolerances)
    nearest = sorted((_nearest(run, tolerances) for run in case.runs), key=lambda pair: pair[1])
    name, times = nearest[len(nearest) // 2]
    alone = Counted(sum(rejected(run, tolerances) for run in case.runs), len(case.runs))
    together = rejected_together(case.runs, rules)
    return Judged(
        case=case,
        runs=alone.of,
        found=alone.found,
        evaluations=together.of,
        together=together.found,
        rate=_rate(alone, together, rules.evaluation_runs),
        at_least=_at_least(case, rules, alone, together),
        nearest=name,
        times=times,
    )


@dataclass(frozen=True)
class Counted:
    """Some of many."""

    found: int
    of: int

    @property
    def rate(self) -> float:
        return self.found / self.of if self.of else 0.0

    def at_least(self, risk: float) -> float:
        """Its lower bound, that is wrong in so many cases."""
        return at_least(self.found, self.of, 1 - risk) if self.of else 0.0


def rejected_together(runs: Sequence[RunFigures], rules: Rules) -> Counted:
    """Of the evaluations that these runs make, those that are rejected by what their runs say together."""
    made = evaluations(runs, rules)
    return Counted(sum(bool(judge_together(each, rules.together)) for each in made), len(made))


def _rate(alone: Counted, together: Counted, runs: int) -> float:
    return max(1 - (1 - alone.rate) ** runs, together.rate)


def _at_least(case: Case, rules: Rules, alone: Counted, together: Counted) -> float:
    risk, runs = (1 - CONFIDENCE) / 3, rules.evaluation_runs
    return max(
        1 - (1 - alone.at_least(risk)) ** runs,
        together.at_least(risk),
        _by_size(case, rules, risk),
    )


def _by_size(case: Case, rules: Rules, risk: float) -> float:
    """The lower bound by how far metrics are over what is allowed of a run, a mean or the nearest run."""
    limits = list(_limits(rules))
    runs, found = rules.evaluation_runs, 0.0
    for name, allowed, kind in limits:
        spreads = spreads_over(name, case.metrics.get(name, ()), allowed, risk / len(limits))
        if kind is Kind.ALONE:
            rate = 1 - (1 - _NORMAL.cdf(spreads)) ** runs
        elif kind is Kind.ALL:
            rate = _NORMAL.cdf(spreads) ** runs
        else:
            rate = _NORMAL.cdf(spreads * math.sqrt(runs))
        found = max(found, rate)
    return found


class Kind(Enum):
    """Who has to stay within a limit: each run, one of them, or their mean."""

    ALONE = auto()
    ALL = auto()
    MEAN = auto()


def _limits(rules: Rules) -> Iterator[tuple[str, float, Kind]]:
    """All limits of an evaluation's metrics."""
    tolerances = judged_metrics(rules.tolerances)
    yield from ((name, allowed, Kind.ALONE) for name, allowed in tolerances.items())
    if rules.evaluation_runs > 1:
        strict = rules.together.strict_update_error
        if strict is not None:
            yield "update_error", strict, Kind.ALL
        if rules.evaluation_runs >= rules.together.fewest_runs:
            yield from ((name, most, Kind.MEAN) for name, most in rules.together.means.items())


def rejected(run: RunFigures, tolerances: dict[str, float]) -> bool:
    """Whether a check rejects it by itself."""
    return bool(run.rejected_by) or any(
        exceeds(value, tolerances[name])
        for name, value in run.metrics.items()
        if name in tolerances
    )


def evaluations(runs: Sequence[RunFigures], rules: Rules) -> list[Sequence[RunFigures]]:
    """Those that runs make in turn; none where they say nothing together."""
    of, asked = rules.evaluation_runs, rules.together
    if of < 2 or not (asked.strict_update_error is not None or asked.means):
        return []
    return [runs[first : first + of] for first in range(0, len(runs) - of + 1, of)]


def _nearest(run: RunFigures, tolerances: dict[str, float]) -> tuple[str, float]:
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
        if (each.at_least if bound else each.rate) < DETECTED and (
            most is None
            or (each.case.saves, each.case.saves_bytes) > (most.case.saves, most.case.saves_bytes)
        ):
            found[each.case.family] = each
    return found
