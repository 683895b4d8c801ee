"""Bounds of rates, against printed tables."""

import math

import pytest

from harness.verify.rates import at_least, at_most, seldom_more


@pytest.mark.parametrize(
    ("found", "runs", "bound"), [(0, 5, 0.0), (1, 1, 0.05), (59, 59, 0.9505), (5, 10, 0.2224)]
)
def test_the_bound_is_that_of_clopper_and_pearson(found: int, runs: int, bound: float) -> None:
    assert at_least(found, runs) == pytest.approx(bound, abs=1e-4)


@pytest.mark.parametrize(
    ("found", "runs", "bound"), [(0, 1, 0.95), (0, 59, 0.0495), (2, 100, 0.0616), (5, 5, 1.0)]
)
def test_the_upper_bound_is_the_lower_one_of_those_that_were_not_found(
    found: int, runs: int, bound: float
) -> None:
    assert at_most(found, runs) == pytest.approx(bound, abs=1e-4)


@pytest.mark.parametrize(
    ("expected", "rate", "count"),
    [
        (0.0, 1e-9, 0),
        (0.1, 0.5, 0),
        (0.1, 2e-4, 2),
        (0.1, 1e-4, 3),
        (1.0, 0.05, 3),
        (8.0, 0.01, 15),
    ],
)
def test_a_count_that_is_seldom_exceeded_is_that_of_a_poisson_variable(
    expected: float, rate: float, count: int
) -> None:
    assert seldom_more(expected, rate) == count
    terms = [expected**k / math.factorial(k) * math.exp(-expected) for k in range(count + 1)]
    assert 1 - math.fsum(terms) < rate
    assert count == 0 or 1 - math.fsum(terms[:-1]) >= rate
