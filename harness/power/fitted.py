"""How sure a rate is where every run is far over what is allowed: a bound from sizes, not from counts.

Thirty runs that are all found show no more than nine in ten. That they are all found by ten times their
spread shows more, if the logarithm of a metric is taken as normal, as the tolerances' fits take it. The
bound is that of a normal variable's one-sided tolerance interval (Owen 1963,
https://doi.org/10.2307/2283750): with T of the noncentral t distribution.
"""

import math
from collections.abc import Sequence
from statistics import NormalDist, fmean, stdev
from typing import Final

import numpy as np

from harness.verify.metrics import NORMAL

#: Of a spread; fewer say nothing of it.
MIN_RUNS: Final = 3
_POINTS: Final = 400
_NORMAL: Final = NormalDist()


def spreads_over(name: str, values: Sequence[float], allowed: float, risk: float) -> float:
    """By how many of its standard deviations a metric is over what is allowed, at least.

    Args:
        name: of the metric, whose logarithm is normal, or itself.
        values: of every run.
        risk: chance that it is less.

    Returns:
        May be below 0; −inf where it is not over on average, or too few values, or not all, say how far.
    """
    if len(values) < MIN_RUNS or not all(math.isfinite(value) for value in values):
        return -math.inf
    if name not in NORMAL:
        if min(values) <= 0:
            return -math.inf
        values, allowed = [math.log(value) for value in values], math.log(allowed)
    runs, spread = len(values), stdev(values)
    if not spread:
        return -math.inf
    over = (fmean(values) - allowed) / spread * math.sqrt(runs)
    if over <= 0:
        return -math.inf
    low, high = -50.0, over + 50.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if _passes(over, runs - 1, middle) < risk else (low, middle)
    return low / math.sqrt(runs)


def _passes(t: float, freedom: int, shift: float) -> float:
    """P(T ≥ t) of the noncentral t distribution: the mean of Φ(shift − t·s) over s = √(χ²/freedom)."""
    wide = 8 / math.sqrt(2 * freedom)
    sizes = np.linspace(max(1e-3, 1 - wide), 1 + wide, _POINTS)
    logs = (freedom - 1) * np.log(sizes) - freedom * np.square(sizes) / 2
    weights = np.exp(logs - logs.max())
    passed = [_NORMAL.cdf(shift - t * size) for size in sizes]
    return float(np.dot(weights, passed) / weights.sum())
