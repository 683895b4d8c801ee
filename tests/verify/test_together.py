"""What each run of an evaluation is allowed alone is not enough: one has to agree to rounding, or all of
them on average as closely as noise does."""

import math
from dataclasses import dataclass, field

import pytest

from harness.benchmark.rules import Together
from harness.errors import Code
from harness.verify.findings import Severity
from harness.verify.together import judge_means, judge_strictly, judge_together


@dataclass(frozen=True)
class Run:
    """Metrics of one run, and at what they were worst."""

    metrics: dict[str, float]
    places: dict[str, str] = field(default_factory=dict)

    def measured(self, name: str) -> float | None:
        return self.metrics.get(name)

    def where(self, name: str) -> str:
        return self.places.get(name, "")


def of_errors(*errors: float) -> list[Run]:
    return [Run({"update_error": error}) for error in errors]


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
    assert (judge_strictly(of_errors(*errors), 1e-4) is None) == accepted


def test_without_a_bound_nothing_is_judged() -> None:
    assert judge_together(of_errors(0.5, 0.5), Together()) == []


def test_the_finding_says_what_the_best_run_came_to() -> None:
    ((run, found),) = judge_together(of_errors(3e-3, 2e-3), Together(strict_update_error=1e-4))
    assert run == 1
    assert (found.code, found.check, found.severity) == (
        Code.UPDATE_MISMATCH, "strict_update_error", Severity.REJECTS
    )  # fmt: skip
    assert (found.measured, found.allowed) == (2e-3, 1e-4)
    assert "none of the 2 runs" in found.message and "0.002 (allowed 0.0001, 20x)" in found.message


MEANS = Together(means={"update_error": 0.1, "matched_filter": 6.0, "loss": 0.01})


@pytest.mark.parametrize(
    ("errors", "accepted"),
    [
        ([0.1, 0.0999], True),
        ([0.19, 0.05], True),  # 0.0975: the mean of what is positive is geometric
        ([0.11, 0.1], False),
        ([0.05, 0.3, 0.05], True),
        ([0.9, 0.0], True),
        ([0.9], True),  # one run has no mean
        ([math.inf, 0.9], True),  # it is rejected for itself
        ([math.nan, 0.9], True),
        ([], True),
    ],
)
def test_the_mean_over_all_runs_has_to_be_within_its_bound(
    errors: list[float], accepted: bool
) -> None:
    assert (judge_means(of_errors(*errors), MEANS) is None) == accepted


def test_a_z_has_an_arithmetic_mean() -> None:
    for values, accepted in (((9.0, 3.0), True), ((9.0, 3.1), False), ((13.0, 0.0), False)):
        runs = [Run({"matched_filter": value}) for value in values]
        assert (judge_means(runs, MEANS) is None) == accepted


def test_fewer_runs_than_the_bound_is_for_have_no_mean() -> None:
    asked = MEANS.model_copy(update={"fewest_runs": 3})
    assert judge_means(of_errors(0.5, 0.5), asked) is None
    assert judge_means(of_errors(0.5, 0.5, 0.5, 0.5), asked) is not None


def test_the_finding_names_the_worst_metric_where_it_is_worst_and_the_others() -> None:
    places = {"matched_filter": "as if some rows are left out"}
    runs = [
        Run({"update_error": 0.11, "matched_filter": 8.0, "loss": 0.001}, {}),
        Run({"update_error": 0.11, "matched_filter": 10.0, "loss": 0.001}, places),
    ]
    ((run, found),) = judge_together(runs, MEANS)
    assert run == 1
    assert (found.code, found.check, found.severity) == (
        Code.UPDATE_MISMATCH, "means", Severity.REJECTS
    )  # fmt: skip
    assert (found.measured, found.allowed) == (9.0, 6.0)
    assert found.message == (
        "over all 2 runs together the difference from the reference is more than noise: matched_filter "
        "is 9 (allowed 6, 1.5x) on average (as if some rows are left out); and so is update_error"
    )


def test_a_loss_alone_is_told_as_a_loss() -> None:
    found = judge_means([Run({"loss": 0.02}), Run({"loss": 0.02})], MEANS)
    assert found is not None
    assert found[1].code is Code.LOSS_MISMATCH
    assert found[1].message.endswith("loss is 0.02 (allowed 0.01, 2x) on average")
