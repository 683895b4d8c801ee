"""Bounds of a rate of which only a count is known, one-sided (Clopper and Pearson 1934), and of a count."""

import math
from typing import Final

CONFIDENCE: Final = 0.95


def at_least(found: int, runs: int, confidence: float = CONFIDENCE) -> float:
    """Lower bound, by bisection."""
    if not found:
        return 0.0
    low, high = 0.0, 1.0
    for _ in range(60):
        rate = (low + high) / 2
        tail = sum(
            math.comb(runs, k) * rate**k * (1 - rate) ** (runs - k) for k in range(found, runs + 1)
        )
        low, high = (rate, high) if tail < 1 - confidence else (low, rate)
    return low


def at_most(found: int, runs: int, confidence: float = CONFIDENCE) -> float:
    """Upper bound."""
    return 1 - at_least(runs - found, runs, confidence)


def seldom_more(expected: float, rate: float) -> int:
    """The smallest count that a Poisson variable of that mean exceeds with a probability below `rate`."""
    count, term = 0, math.exp(-expected)
    tail = 1 - term
    while tail >= rate:
        count += 1
        term *= expected / count
        tail -= term
    return count
