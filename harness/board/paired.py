"""The statistics of paired runs: an interval for a ratio of speeds, and when to stop looking.

Numbers only. Two facts shape it; `python measurements/pairs.py` measures both, and docs/scoring.md has the
figures:

- **Few pairs.** The usual bootstrap of a mean (percentiles of resampled means) is far too narrow for 4 to
  10 pairs. Used here is the studentised one, widened to Student's interval where that is wider: the
  first bears skewed noise, the second runs that now and then are slow.
- **Several looks.** Who looks after every pair and stops when it pleases sees differences where there are
  none. Looks are few and fixed before the first pair, and share the rate of false alarms between them.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

#: With fewer no interval at these levels says anything.
MIN_PAIRS = 4
#: Where to look, in parts of the budget, and which part of the false alarms each look may use up.
LOOKS = ((0.5, 0.2), (0.75, 0.3), (1.0, 0.5))
RESAMPLES = 10_000


@dataclass(frozen=True)
class Look:
    """After so many pairs there is a decision; `alpha` is the chance of a false alarm that it may take."""

    pairs: int
    alpha: float


@dataclass(frozen=True)
class Interval:
    """Of a ratio: the estimate, and what it is at least and at most; 0 and infinity: nothing is known."""

    ratio: float
    low: float
    high: float


def looks(budget: int, confidence: float) -> tuple[Look, ...]:
    """When to look; nothing for a budget below MIN_PAIRS. The alphas sum up to 1 - confidence."""
    alphas: dict[int, float] = {}
    for part, share in LOOKS:
        pairs = max(MIN_PAIRS, math.ceil(part * budget - 1e-9))
        if pairs <= budget:
            alphas[pairs] = alphas.get(pairs, 0.0) + share * (1 - confidence)
    return tuple(Look(pairs, alpha) for pairs, alpha in sorted(alphas.items()))


def interval(ratios: npt.ArrayLike, alpha: float, seed: int = 0) -> Interval:
    """The geometric mean of ratios with a bound on either side.

    Args:
        ratios: float64 [pairs], above 0.
        alpha: the chance that each of the bounds, for itself, may be wrong.
        seed: of the resamples; the same ratios and seed give the same interval.
    """
    logs = np.log(np.asarray(ratios, np.float64))
    mean = float(logs.mean())
    if len(logs) < MIN_PAIRS:
        return Interval(math.exp(mean), 0.0, math.inf)
    error = float(logs.std(ddof=1)) / math.sqrt(len(logs))
    if error == 0.0:
        return Interval(math.exp(mean), math.exp(mean), math.exp(mean))
    below, above = _bootstrap_quantiles(logs, alpha, seed)
    student = student_quantile(1 - alpha, len(logs) - 1)
    return Interval(
        ratio=math.exp(mean),
        low=_exp(mean - max(above, student) * error),
        high=_exp(mean - min(below, -student) * error),
    )


def _bootstrap_quantiles(logs: Floats, alpha: float, seed: int) -> tuple[float, float]:
    """How far a resample's mean is from that of all, in its own standard errors: both quantiles.

    A resample of equal values is infinitely far: it knows nothing of the spread.
    """
    draw = np.random.default_rng([seed, len(logs)])
    sample = logs[draw.integers(0, len(logs), (RESAMPLES, len(logs)))]
    away = sample.mean(axis=1) - logs.mean()
    spread = sample.std(axis=1, ddof=1)
    flat = spread <= 1e-9 * logs.std()
    far = np.where(away > 0, np.inf, -np.inf)
    errors = np.where(flat, 1.0, spread) / math.sqrt(len(logs))
    distance = np.where(flat, far, away / errors)
    below = np.quantile(distance, alpha, method="lower")
    above = np.quantile(distance, 1 - alpha, method="higher")
    return float(below), float(above)


def student_quantile(probability: float, freedom: int) -> float:
    """Of Student's t distribution with that many degrees of freedom (1 or more); probability above 0.5."""
    low, high = 0.0, 1.0
    while _student_distribution(high, freedom) < probability:
        low, high = high, 2 * high
    for _ in range(100):
        middle = (low + high) / 2
        if _student_distribution(middle, freedom) < probability:
            low = middle
        else:
            high = middle
    return high


def _student_distribution(value: float, freedom: int) -> float:
    """The chance of at most `value`, 0 or more. Abramowitz and Stegun, 26.7.3 and 26.7.4."""
    angle = math.atan(value / math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2 == 1
    term = total = 0.0 if freedom == 1 else (cosine if odd else 1.0)
    for k in range(3 if odd else 2, freedom - 1, 2):
        term *= cosine * cosine * (k - 1) / k
        total += term
    inside = 2 / math.pi * (angle + sine * total) if odd else sine * total
    return 0.5 + inside / 2


def _exp(value: float) -> float:
    return math.inf if value > 700 else math.exp(value)
