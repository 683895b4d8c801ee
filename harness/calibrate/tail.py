"""How far the noise goes that was measured in some runs: a bound that few further runs exceed.

Each variant is fitted by itself, on runs of different challenges: variants share challenges and the
reference's training, so they say nothing more of one another. The logarithm of the noise is taken as
normal, and the bound is the prediction of one more run (Student's t): fewer runs make a wider one. A
difference without its sign is taken as a normal one about zero instead, and a z as it is. Where the worst
run is further out than so many runs go, the spread is widened until it is not; runs that are far below the
others, with a gap between, are left out. The largest bound of all variants counts.

In some runs no tie of the router flips, or none that matters, and in others several do. Logarithms are
spread over orders of magnitude then, mostly downwards, and a normal tail of them would reach a thousand
times as far as any run. What flips do adds up, and each does no more than a token can: such a sum has no
heavier tail than an exponential one (Chernoff). So where logarithms are spread WIDE, and what is above the
median varies no more than an exponential variable does, that upper half is taken as exponential.

The mean of several runs has a bound of its own, which is nearer: what differs from run to run averages out,
and what a submission does in every run does not.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from statistics import NormalDist, fmean, median, stdev
from typing import Final

from harness.benchmark.rules import Fit
from harness.errors import Code, InputError
from harness.verify.metrics import NORMAL
from harness.verify.student import passed_at

#: Absolute values of one difference, which may be near zero by luck.
FOLDED: Final = ("norm_ratio",)
#: Of a variant; fewer say nothing of a tail.
MIN_RUNS: Final = 6
#: A worst run that is less likely than that, in as many runs, does not belong to the fit.
UNLIKELY: Final = 0.05
#: Of logarithms: one run in six is more than 1.6 times what is usual, and one in six less than that.
WIDE: Final = 0.5
#: Standard deviation over mean, of an exponential variable 1; as few values show it, not much more.
VARIES: Final = 1.2
#: From a run to the next, if both are of one kind.
GAP: Final = 30.0
TINY: Final = 1e-30
#: Of a normal distribution the standard deviation, in median absolute deviations.
DEVIATION: Final = 1 / NormalDist().inv_cdf(0.75)

Noise = Mapping[str, Sequence[float]]


def fit(
    metric: str,
    noise: Noise,
    rate: float,
    least: float,
    mean_of: int = 1,
) -> Fit | None:
    """The largest bound of all variants; None where there are none.

    Args:
        noise: of each variant the value of every run, not negative; each run is of another challenge.
        rate: of the runs of a variant that exceed its bound.
        least: noise below that is none.
        mean_of: bound the mean of so many runs (`metrics.mean_over_runs`); 1 for what is FOLDED.

    Raises InputError(BAD_ARGUMENT): too few runs.
    """
    one = _folded if metric in FOLDED else _normal if metric in NORMAL else _logarithmic
    found = []
    for name, values in noise.items():
        if len(values) < MIN_RUNS:
            raise InputError(
                Code.BAD_ARGUMENT,
                f"{len(values)} runs of the variant '{name}' are too few to say how far its noise goes: "
                f"measure it {MIN_RUNS} times at least, with --runs or --add",
            )
        found.append(one(name, values, rate, least, mean_of))
    return max(found, key=lambda each: each.bound, default=None)


def usual(noise: Noise, rate: float, least: float) -> float:
    """A bound for what most runs do, which a few that are far out do not move: as `fit`, by medians."""
    bounds = [least]
    for values in noise.values():
        logs = [math.log(max(value, least)) for value in values]
        center = median(logs)
        deviation = DEVIATION * median(abs(value - center) for value in logs)
        bounds.append(math.exp(center + passed_at(rate, max(1, len(logs) - 1)) * deviation))
    return max(bounds)


def _normal(name: str, values: Sequence[float], rate: float, least: float, mean_of: int) -> Fit:
    return _prediction(name, [max(value, least) for value in values], rate, mean_of)


def _prediction(
    name: str,
    values: Sequence[float],
    rate: float,
    mean_of: int,
    unit: Callable[[float], float] = float,
) -> Fit:
    """The prediction of one more run, or of the mean of some, of a normal variable.

    Args:
        unit: brings center and bound to the metric's.
    """
    runs, center, spread = len(values), fmean(values), stdev(values)
    wider = _wider(max(values) - center, spread, passed_at(UNLIKELY / runs, runs - 1))
    reach = passed_at(rate, runs - 1) * wider * spread * math.sqrt(1 / mean_of + 1 / runs)
    return Fit(
        variant=name,
        center=unit(center),
        spread=spread,
        wider=wider,
        runs=runs,
        mean_of=mean_of,
        rate=rate,
        bound=unit(center + reach),
    )


def _logarithmic(
    name: str, values: Sequence[float], rate: float, least: float, mean_of: int
) -> Fit:
    logs = [math.log(max(value, least)) for value in _of_one_kind(values)]
    if stdev(logs) > WIDE and (above := _steady(values)):
        return _exponential(name, values, above, rate, mean_of)
    return _prediction(name, logs, rate, mean_of, math.exp)


def _of_one_kind(values: Sequence[float]) -> Sequence[float]:
    """Those above the widest gap, if no noise leaves one so wide.

    In bfloat16 ties flip in most runs; one in which none did differs from the reference by a thousandth of
    what others do. It says nothing of how far noise goes up, and would double the spread.
    """
    ordered = sorted(values)
    ratio, first = max(
        (high / max(low, TINY), n + 1) for n, (low, high) in enumerate(pairwise(ordered))
    )
    kept = ordered[first:]
    return kept if ratio > GAP and len(kept) >= MIN_RUNS else values


def _steady(values: Sequence[float]) -> list[float]:
    """How far values are above the median, where that varies as of an exponential variable; else none."""
    center = median(values)
    above = [value - center for value in values if value > center]
    enough = len(above) >= MIN_RUNS // 2
    return above if enough and stdev(above) <= VARIES * fmean(above) else []


def _exponential(
    name: str, values: Sequence[float], above: Sequence[float], rate: float, mean_of: int
) -> Fit:
    """The prediction of one more run; of several, that none of them exceeds.

    Of n distances above the median with the mean b one more exceeds x in (1 + x / nb)⁻ⁿ of all cases. Half
    of all runs are above it, or fewer where most are equal: one more than was seen counts then.
    """
    runs, center = len(above), median(values)
    upper = min(0.5, (runs + 1) / (len(values) + 1))
    share = min(1.0, rate / mean_of / upper)
    exceeded = runs * fmean(above) * math.expm1(-math.log(share) / runs)
    return Fit(
        variant=name,
        tail="exponential",
        center=center,
        spread=fmean(above),
        wider=1.0,
        runs=len(values),
        mean_of=mean_of,
        rate=rate,
        bound=center + exceeded,
    )


def _folded(name: str, values: Sequence[float], rate: float, least: float, mean_of: int) -> Fit:
    if mean_of > 1:
        raise ValueError(f"the mean of {mean_of} differences without their signs")
    runs = len(values)
    spread = math.sqrt(fmean(max(value, least) ** 2 for value in values))
    wider = _wider(max(values), spread, passed_at(UNLIKELY / runs / 2, runs))
    return Fit(
        variant=name,
        center=0.0,
        spread=spread,
        wider=wider,
        runs=runs,
        rate=rate,
        bound=passed_at(rate / 2, runs) * wider * spread,
    )


def _wider(away: float, spread: float, limit: float) -> float:
    """By how much the spread has to be larger for the worst run to be within so many of it; 1 at least."""
    return max(1.0, away / spread / limit) if spread else 1.0
