"""Bounds by size: those of tables of tolerance intervals, and honest where the form holds."""

import math

import numpy as np
import pytest

from harness.power.fitted import spreads_over


def values_over(factor: float, runs: int) -> list[float]:
    """Whose mean is so many of their standard deviations above 0."""
    one = np.resize([-1.0, 1.0], runs)
    return list(map(float, one / one.std(ddof=1) + factor))


@pytest.mark.parametrize(
    ("runs", "factor", "covered"),
    [(4, 5.144, 1.6449), (10, 2.911, 1.6449), (20, 2.396, 1.6449), (10, 3.981, 2.3263)],
)
def test_it_is_that_of_the_tables_of_one_sided_tolerance_factors(
    runs: int, factor: float, covered: float
) -> None:
    """https://www.itl.nist.gov/div898/handbook/prc/section2/prc263.htm and Owen's tables, at 95 %."""
    found = spreads_over("matched_filter", values_over(factor, runs), 0.0, 0.05)
    assert found == pytest.approx(covered, abs=2e-3)


def test_of_what_is_positive_the_logarithm_counts() -> None:
    values = values_over(3.0, 8)
    logs = spreads_over("update_error", [math.exp(value) for value in values], 1.0, 0.05)
    assert logs == pytest.approx(spreads_over("matched_filter", values, 0.0, 0.05))


@pytest.mark.parametrize(
    ("values", "allowed"),
    [
        ([1.0, 2.0], 0.1),  # too few
        ([1.0, math.inf, 2.0], 0.1),
        ([1.0, math.nan, 2.0], 0.1),
        ([1.0, 0.0, 2.0], 0.1),
        ([1.0, 1.0, 1.0], 0.1),  # nothing is known of a spread
        ([1.0, 2.0, 3.0], 5.0),  # within what is allowed
    ],
)
def test_nothing_is_claimed_of_what_says_nothing(values: list[float], allowed: float) -> None:
    assert spreads_over("update_error", values, allowed, 0.05) == -math.inf


def test_the_bound_is_wrong_as_often_as_it_says() -> None:
    """Of six normal values each the true distance is 3 spreads; 400 draws."""
    generator = np.random.default_rng(0)
    drawn = generator.standard_normal((400, 6)) + 3
    wrong = [spreads_over("matched_filter", list(map(float, row)), 0.0, 0.1) > 3 for row in drawn]
    assert 0.06 < np.mean(wrong) < 0.14
