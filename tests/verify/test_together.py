"""Of several runs one has to agree to rounding: what each of them is allowed alone is not enough."""

import math

import pytest

from harness.errors import Code
from harness.verify.findings import Severity
from harness.verify.together import judge_together


@pytest.mark.parametrize(
    ("errors", "accepted"),
    [
        ([1e-6, 1e-6], True),
        ([1e-6, 0.01], True),  # one had a flip
        ([0.01, 1e-6, 0.01], True),
        ([1e-4, 1e-4], True),  # exactly at it
        ([1.01e-4, 1e-3], False),
        ([0.01, 0.01], False),
        ([math.inf, math.inf], True),  # each is rejected for itself
        ([math.nan, 1e-6], True),
        ([math.nan, 0.01], False),
        ([0.01], True),  # one run may be the one with a flip
        ([], True),
    ],
)
def test_one_run_has_to_be_within_the_bound(errors: list[float], accepted: bool) -> None:
    assert (judge_together(errors, 1e-4) is None) == accepted


def test_without_a_bound_nothing_is_judged() -> None:
    assert judge_together([0.5, 0.5], None) is None


def test_the_finding_says_what_the_best_run_came_to() -> None:
    found = judge_together([3e-3, 2e-3], 1e-4)
    assert found is not None
    assert (found.code, found.check, found.severity) == (
        Code.UPDATE_MISMATCH, "strict_update_error", Severity.REJECTS
    )  # fmt: skip
    assert (found.measured, found.allowed) == (2e-3, 1e-4)
    assert "none of the 2 runs" in found.message and "0.002 (allowed 0.0001, 20x)" in found.message
