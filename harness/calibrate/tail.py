"""How far noise goes that was measured in some runs: a bound that one more run passes at a stated rate.

Noise has a scale of its variant, and varies about it much alike in all of them: its logarithm is taken as
normal, with a mean for each variant and one spread for all. The bound is the prediction of one more run of
the noisiest variant (Student's t). A difference without its sign is taken as a normal one about zero. Where
the worst run is further out than such a fit allows, the spread is widened until it is not.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, median
from typing import Final

from harness.benchmark.rules import Fit
from harness.errors import Code, InputError
from harness.verify.student import passed_at

#: Absolute values of one difference, which may be near zero by luck.
FOLDED: Final = ("norm_ratio",)
#: Fewer degrees of freedom say nothing of a tail.
MIN_FREEDOM: Final = 5
#: A worst run that is less likely than that, in as many runs, does not belong to the fit.
UNLIKELY: Final = 0.05
#: A variant with so many times less noise tells nothing of the noisiest one's.
NEAR: Final = 10.0
#: Of a normal distribution the standard deviation, in median absolute deviations.
DEVIATION: Final = 1 / NormalDist().inv_cdf(0.75)

Noise = Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class _Group:
    """One variant's values, as logarithms, without those that are zero."""

    name: str
    values: tuple[float, ...]


def fit(metric: str, noise: Noise, rate: float) -> Fit | None:
    """A bound for one metric; None where there is no noise at all.

    Args:
        noise: of each variant the value of every run, not negative.
        rate: of the runs of the noisiest variant that pass the bound.

    Raises InputError(BAD_ARGUMENT): too few runs.
    """
    if metric in FOLDED:
        return _folded(noise, rate)
    groups = _groups(noise)
    if not groups:
        return None
    freedom = sum(len(group.values) - 1 for group in groups)
    _check(metric, freedom)
    residuals = [value - fmean(group.values) for group in groups for value in group.values]
    spread = math.sqrt(sum(value * value for value in residuals) / freedom)
    wider = _wider(max(residuals), spread, freedom, len(residuals))
    reach = passed_at(rate, freedom) * wider * spread
    bounds = {
        group: fmean(group.values) + reach * math.sqrt(1 + 1 / len(group.values))
        for group in groups
    }
    noisiest = max(groups, key=lambda group: bounds[group])
    center, bound = fmean(noisiest.values), bounds[noisiest]
    return Fit(
        variant=noisiest.name,
        center=math.exp(center),
        spread=spread,
        wider=wider,
        freedom=freedom,
        rate=rate,
        bound=math.exp(bound),
    )


def usual(noise: Noise, rate: float) -> float | None:
    """A bound for what most runs do, which a few that are far out do not move; None: no noise at all.

    As `fit`, by medians: of each variant, and of the absolute deviations from them.
    """
    groups = _groups(noise)
    if not groups:
        return None
    freedom = max(1, sum(len(group.values) - 1 for group in groups))
    away = [abs(value - median(group.values)) for group in groups for value in group.values]
    reach = passed_at(rate, freedom) * DEVIATION * median(away)
    return math.exp(max(median(group.values) for group in groups) + reach)


def _groups(noise: Noise) -> list[_Group]:
    """The variants that are about as noisy as the noisiest; others differ by roundings."""
    means = {name: fmean(values) for name, values in noise.items() if values}
    least = max(means.values(), default=0.0) / NEAR
    found = []
    for name, mean in means.items():
        positive = [value for value in noise[name] if value > 0]
        if positive and mean >= least:
            found.append(_Group(name, tuple(math.log(value) for value in positive)))
    return found


def _check(metric: str, freedom: int) -> None:
    if freedom < MIN_FREEDOM:
        raise InputError(
            Code.BAD_ARGUMENT,
            f"too few runs to say how far the noise of {metric} goes: measure each variant more often, "
            "with a larger --runs or with --add",
        )


def _wider(worst: float, spread: float, freedom: int, runs: int) -> float:
    """By how much the spread has to be larger for the worst of so many runs to belong to it; 1 at least."""
    if not spread:
        return 1.0
    return max(1.0, worst / spread / passed_at(UNLIKELY / runs, freedom))


def _folded(noise: Noise, rate: float) -> Fit | None:
    sizes = {
        name: math.sqrt(fmean(value * value for value in values)) for name, values in noise.items()
    }
    name = max(sizes, key=lambda each: sizes[each], default=None)
    if name is None or not sizes[name]:
        return None
    freedom = sum(map(len, noise.values()))
    _check("norm_ratio", freedom)
    largest = max(
        value / sizes[each] for each, values in noise.items() for value in values if sizes[each]
    )
    wider = _wider(largest, 1.0, freedom, 2 * freedom)
    bound = sizes[name] * wider * passed_at(rate / 2, freedom)
    return Fit(
        variant=name, center=0.0, spread=sizes[name], wider=wider, freedom=freedom, rate=rate, bound=bound
    )  # fmt: skip
