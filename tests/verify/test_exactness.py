"""Distance from exact training, in units of the reference's: by hand, and what the judge says of it."""

import math

import numpy as np
import pytest

from harness.benchmark.rules import Tolerances
from harness.errors import Code
from harness.verify.attribution import Attribution
from harness.verify.exactness import inexactness, judge_inexactness
from harness.verify.figures import StateComparison
from harness.verify.findings import Severity
from harness.verify.metrics import RunMetrics, metric_values

EXACT = np.array([1.0, 2.0, 3.0, 4.0])
REFERENCE = EXACT + np.array([0.0, 0.5, -0.5, 1.0])


def test_it_is_the_sum_of_distances_over_that_of_the_reference() -> None:
    submitted = EXACT + np.array([-1.0, 0.0, 0.5, -1.5])
    assert inexactness(submitted, REFERENCE, EXACT) == 1.5
    assert inexactness(REFERENCE, REFERENCE, EXACT) == 1.0
    assert inexactness(EXACT, REFERENCE, EXACT) == 0.0


def test_small_distances_of_large_weights_are_not_lost() -> None:
    exact = np.array([1.0, 2.0], np.float32)
    reference = exact.astype(np.float64) + 1e-9
    submitted = exact.astype(np.float64) + 3e-9
    assert inexactness(submitted, reference, exact) == pytest.approx(3.0, rel=1e-6)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_infinitely_far(bad: float) -> None:
    assert inexactness(np.array([1.0, bad, 3.0, 4.0]), REFERENCE, EXACT) == math.inf


def test_beside_an_exact_reference_there_is_equal_or_infinitely_far() -> None:
    assert inexactness(EXACT, EXACT, EXACT) == 0.0
    assert inexactness(REFERENCE, EXACT, EXACT) == math.inf


TOLERANCES = Tolerances(
    loss=1, update_error=1, tensor_update_error=1, slice_update_error=1, norm_ratio=1,
    tensor_norm_ratio=1, step_weight=1, inexactness=1.25,
)  # fmt: skip


def metrics(*inexact: float) -> RunMetrics:
    honest = StateComparison((), 0.0, 1.0)
    return metric_values([honest], [Attribution((1.0,), 1.0)], 0.0, (), (), inexact)


def test_the_worst_version_counts_and_the_finding_says_what_it_may_be() -> None:
    assert judge_inexactness(metrics(1.0, 1.25), TOLERANCES) == []
    (finding,) = judge_inexactness(metrics(1.0, 1.5), TOLERANCES)
    assert (finding.code, finding.check) == (Code.UPDATE_MISMATCH, "inexactness")
    assert (finding.severity, finding.measured, finding.allowed) == (Severity.REJECTS, 1.5, 1.25)
    assert finding.message == (
        "the update is 1.5 times as far from training in float32 as the reference's is (allowed 1.25). "
        "Is part of it computed in a lower precision, or left out?"
    )


def test_without_exact_training_a_note_says_so_and_without_a_tolerance_nothing_does() -> None:
    (finding,) = judge_inexactness(metrics(), TOLERANCES)
    assert finding.severity is Severity.NOTE
    old = TOLERANCES.model_copy(update={"inexactness": None})
    assert judge_inexactness(metrics(9.0), old) == []
