"""Student's t against printed tables, and there and back."""

import math

import pytest

from harness.verify.student import normal_of, passed_at, student_of


@pytest.mark.parametrize(
    ("t", "freedom", "z"),
    [
        (2.0, 2.0, 17 / 19 * math.sqrt(2 * math.log(3))),
        (-2.0, 2.0, -17 / 19 * math.sqrt(2 * math.log(3))),
        (2.2281, 10.0, 1.96),  # both are passed in 5 of 100 cases
        (3.1693, 10.0, 2.576),  # in 1 of 100
        (4.0, 1e9, 4.0),
    ],
)
def test_t_is_brought_to_the_scale_of_a_normal_distribution(
    t: float, freedom: float, z: float
) -> None:
    assert normal_of(t, freedom) == pytest.approx(z, rel=2e-3)


@pytest.mark.parametrize(
    ("rate", "freedom", "t"),
    [
        (0.05, 10, 1.8125),
        (0.025, 5, 2.5706),
        (0.001, 10, 4.1437),
        (0.0001, 20, 4.539),
        (0.00005, 80, 4.099),
        (0.5, 7, 0.0),
    ],
)  # fmt: skip
def test_what_is_passed_at_a_rate_is_that_of_printed_tables(
    rate: float, freedom: float, t: float
) -> None:
    assert passed_at(rate, freedom) == pytest.approx(t, rel=5e-3)


@pytest.mark.parametrize("freedom", [3, 8, 200])
@pytest.mark.parametrize("t", [-5.0, -0.1, 0.0, 1.0, 6.0])
def test_there_and_back(t: float, freedom: float) -> None:
    assert student_of(normal_of(t, freedom), freedom) == pytest.approx(t, abs=1e-9)
