"""The metrics of a run are the worst of all its tensors, slices, steps and versions, either way."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from harness.benchmark.rules import Tolerances
from harness.tensors.boxes import TensorKind
from harness.verify.attribution import Attribution
from harness.verify.figures import SliceComparison, StateComparison, TensorComparison
from harness.verify.metrics import (
    RunMetrics,
    judged_metrics,
    length_error,
    metric_values,
    slice_error,
    step_distance,
)


def tensor(
    update_error: float = 0.0, norm_ratio: float = 1.0, slice_errors: Sequence[float] = ()
) -> TensorComparison:
    """One tensor; with `slice_errors`, of experts."""
    worst = max(range(len(slice_errors)), key=lambda index: slice_errors[index], default=-1)
    return TensorComparison(
        name="w",
        kind=TensorKind.EXPERTS if slice_errors else TensorKind.PLAIN,
        numel=8,
        moved=True,
        update_error=update_error,
        norm_ratio=norm_ratio,
        worst_slice=SliceComparison(worst, 1, slice_errors[worst], 1.0) if slice_errors else None,
        slice_errors=np.array(slice_errors),
    )


def state(
    *tensors: TensorComparison, update_error: float = 0.0, norm_ratio: float = 1.0
) -> StateComparison:
    return StateComparison(tensors or (tensor(),), update_error, norm_ratio)


def steps(*weights: float, conclusive: bool = True) -> Attribution:
    return Attribution(weights, condition=1.0, conclusive=conclusive)


def test_what_has_no_tolerance_is_not_judged() -> None:
    named = dict.fromkeys(set(Tolerances.model_fields) - {"token_group_shift"}, 0.25)
    assert judged_metrics(Tolerances(**named)) == named
    assert "token_group_shift" not in judged_metrics(Tolerances(**named, token_group_shift=None))


def measured(
    *states: StateComparison, attributions: Sequence[Attribution] = (), loss: float = 0.0
) -> RunMetrics:
    return metric_values(states, attributions or [steps(1.0)] * len(states), loss)


def test_every_metric_comes_from_its_own_figure() -> None:
    comparison = state(
        tensor(update_error=0.3, norm_ratio=1.04), tensor(slice_errors=[0.1, 0.5, 0.2]),
        update_error=0.2, norm_ratio=1.01,
    )  # fmt: skip
    found = measured(comparison, attributions=[steps(1.0, 1.06)], loss=0.07)
    assert found.loss == 0.07
    assert found.update_error == 0.2
    assert found.tensor_update_error == 0.3
    assert found.slice_update_error == 0.5
    assert found.norm_ratio == pytest.approx(0.01)
    assert found.tensor_norm_ratio == pytest.approx(0.04)
    assert found.step_weight == pytest.approx(0.06)


def test_what_moved_too_little_counts_like_what_moved_too_much() -> None:
    """0.7 is further from 1 than 1.2: without a sign that is forgotten, it is the worst."""
    comparison = state(tensor(norm_ratio=0.7), tensor(norm_ratio=1.2), norm_ratio=0.9)
    found = measured(comparison, attributions=[steps(1.1, 0.6, 1.0)])
    assert found.norm_ratio == pytest.approx(0.1)
    assert found.tensor_norm_ratio == pytest.approx(0.3)
    assert found.step_weight == pytest.approx(0.4)


def test_the_worst_of_all_versions_counts_for_every_metric() -> None:
    """Each of two versions is the worse one in some of the metrics."""
    one = state(tensor(0.4, 1.0, [0.1]), update_error=0.2, norm_ratio=1.5)
    two = state(tensor(0.1, 0.2, [0.9]), update_error=0.3, norm_ratio=1.0)
    for versions in ((one, two), (two, one)):
        found = measured(*versions, attributions=[steps(1.0, 1.1), steps(0.7, 1.0)])
        assert found.update_error == 0.3
        assert found.tensor_update_error == 0.4
        assert found.slice_update_error == 0.9
        assert found.norm_ratio == pytest.approx(0.5)
        assert found.tensor_norm_ratio == pytest.approx(0.8)
        assert found.step_weight == pytest.approx(0.3)


def test_a_model_without_slices_has_no_slice_error() -> None:
    assert measured(state(tensor(0.2), update_error=0.2)).slice_update_error == 0.0
    assert slice_error(tensor(0.2)) == 0.0
    assert slice_error(tensor(0.2, slice_errors=[0.1, 0.6])) == 0.6


def test_nan_is_infinitely_wrong_in_every_metric() -> None:
    """No tolerance may be passed by a comparison with NaN."""
    nan = math.nan
    lost = state(tensor(nan, nan, [nan]), update_error=nan, norm_ratio=nan)
    found = measured(state(), lost, attributions=[steps(1.0), steps(nan)], loss=nan)
    assert set(found.model_dump(exclude_none=True).values()) == {math.inf}


def test_steps_that_the_reference_cannot_tell_apart_have_no_distance() -> None:
    unclear = steps(math.nan, math.nan, conclusive=False)
    assert math.isnan(measured(state(), attributions=[unclear]).step_weight)
    for both in ([unclear, steps(1.5)], [steps(1.5), unclear]):
        assert math.isnan(measured(state(), state(), attributions=both).step_weight)


@pytest.mark.parametrize(
    ("weights", "distance"),
    [((1.0, 1.0), 0.0), ((1.0, 1.25), 0.25), ((0.5, 1.25), 0.5), ((-1.0, 2.5), 2.0), ((), 0.0),
     ((1.0, math.nan), math.inf), ((math.inf, 1.0), math.inf)],
)  # fmt: skip
def test_the_distance_of_steps_is_that_of_the_one_furthest_from_1(
    weights: tuple[float, ...], distance: float
) -> None:
    assert step_distance(steps(*weights)) == distance


@pytest.mark.parametrize(
    ("ratio", "error"), [(1.0, 0.0), (1.5, 0.5), (0.25, 0.75), (0.0, 1.0), (math.inf, math.inf)]
)
def test_the_error_of_a_length_has_no_sign(ratio: float, error: float) -> None:
    assert length_error(tensor(norm_ratio=ratio)) == error
    assert length_error(state(norm_ratio=ratio)) == error


def test_metrics_are_kept_in_json_as_they_are_infinity_and_nan_too() -> None:
    found = measured(state(tensor(math.inf)), attributions=[steps(1.0, conclusive=False)])
    again = RunMetrics.model_validate_json(found.model_dump_json())
    assert again.tensor_update_error == math.inf
    assert math.isnan(again.step_weight)
    assert again.loss == 0.0


def test_metrics_take_no_other_field_and_are_not_changed_later() -> None:
    found = measured(state())
    with pytest.raises(ValidationError):
        RunMetrics.model_validate({**found.model_dump(), "more": 1.0})
    with pytest.raises(ValidationError):
        found.loss = 0.0  # type: ignore[misc]


def test_no_version_is_left_out_however_many_there_are() -> None:
    versions = [state(update_error=0.1)] * 3
    versions[2] = replace(versions[2], update_error=0.8)
    assert measured(*versions).update_error == 0.8
