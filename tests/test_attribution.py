"""Step attribution: each cheat leaves its mark in the weights, and sampling misses no element."""

import math

import numpy as np
import pytest
from build_states import decode, encode, pieces, random_boxes
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import JudgeError
from harness.verify.attribution import (
    MIN_PER_TENSOR,
    attribute,
    draw_coordinates,
    explain_weights,
    gather,
)
from harness.verify.pieces import Box, TensorSpec

STEPS, SAMPLES = 6, 5_000


@pytest.fixture
def steps() -> np.ndarray:
    """Updates that share a direction, as those of real training do; float32 [STEPS, SAMPLES]."""
    rng = np.random.default_rng(0)
    common = rng.standard_normal(SAMPLES)
    own = rng.standard_normal((STEPS, SAMPLES))
    return (0.01 * (0.7 * common + own)).astype(np.float32)


def honest(steps: np.ndarray) -> np.ndarray:
    noise = 0.01 * np.random.default_rng(1).standard_normal(SAMPLES) * np.abs(steps).mean()
    return steps.sum(axis=0) + noise.astype(np.float32)


def test_honest_noise_has_weights_near_one(steps: np.ndarray) -> None:
    result = attribute(steps, honest(steps))
    assert result.weights == pytest.approx([1.0] * STEPS, abs=1e-3)
    assert result.conclusive and 1 < result.condition < 10 and result.residual < 0.01


@pytest.mark.parametrize(
    ("factors", "said"),
    [
        ((1, 1, 1, 1, 1, 0), "step 6 of 6 is missing (weight 0.00)"),
        ((1, 1, 0, 1, 1, 1), "step 3 of 6 is missing"),
        ((1, 1, 2, 1, 1, 1), "step 3 of 6 counts twice (weight 2.00)"),
        ((0.9,) * 6, "every step has weight 0.90: as if the learning rate were about 0.90 times"),
        ((0,) * 6, "none of the 6 steps"),
        ((1, 1.4, 1, 1, 1, 1), "step 2 of 6 has 1.4"),
    ],
)
def test_a_cheat_shows_in_its_step_and_is_named(
    steps: np.ndarray, factors: tuple[float, ...], said: str
) -> None:
    observed = (np.array(factors)[:, None] * steps).sum(axis=0)
    weights = attribute(steps, observed).weights
    assert weights == pytest.approx(factors, abs=1e-4)
    assert said in explain_weights(weights, 0.02)


def test_one_step_alone_is_attributed(steps: np.ndarray) -> None:
    result = attribute(steps[:1], 0.5 * steps[0])
    assert result.weights == pytest.approx([0.5])
    assert result.condition == pytest.approx(1.0)
    assert result.conclusive


def test_a_reference_step_without_movement_is_inconclusive_and_said(steps: np.ndarray) -> None:
    steps[2] = 0
    result = attribute(steps, steps.sum(axis=0))
    assert not result.conclusive and "step 3 of the reference" in result.reason
    assert all(math.isnan(weight) for weight in result.weights)


def test_reference_steps_that_are_alike_are_inconclusive_and_said(steps: np.ndarray) -> None:
    steps[4] = 2 * steps[1]
    result = attribute(steps, steps.sum(axis=0))
    assert not result.conclusive and "alike" in result.reason


def test_nonfinite_weights_are_the_submissions_problem(steps: np.ndarray) -> None:
    observed = honest(steps)
    observed[17] = math.nan
    result = attribute(steps, observed)
    assert result.conclusive
    assert all(math.isnan(weight) for weight in result.weights)


def test_step_sizes_do_not_change_the_condition(steps: np.ndarray) -> None:
    scaled = steps * np.logspace(0, -6, STEPS)[:, None]
    before, after = attribute(steps, honest(steps)), attribute(scaled, scaled.sum(axis=0))
    assert after.condition == pytest.approx(before.condition, rel=1e-3)
    assert after.weights == pytest.approx([1.0] * STEPS, abs=1e-6)


LAYOUT = {
    "z.large": TensorSpec((400, 50), "float32"),
    "counter": TensorSpec((), "int64"),
    "a.small": TensorSpec((3,), "float32"),
    "norm": TensorSpec((200,), "float32"),
}


def test_coordinates_come_from_every_floating_tensor_in_proportion_and_repeatably() -> None:
    drawn = draw_coordinates(LAYOUT, 1_000, seed=5)
    assert list(drawn) == ["a.small", "norm", "z.large"]  # the reference records in this order
    assert drawn["a.small"].tolist() == [0, 1, 2]
    assert len(drawn["norm"]) == max(MIN_PER_TENSOR, round(1_000 * 200 / 20_203))
    assert len(drawn["z.large"]) == round(1_000 * 20_000 / 20_203)
    for name, indices in drawn.items():
        assert indices.dtype == np.int64
        assert len(np.unique(indices)) == len(indices)
        assert indices.min() >= 0 and indices.max() < math.prod(LAYOUT[name].shape)
    again, other = (draw_coordinates(LAYOUT, 1_000, seed=seed) for seed in (5, 6))
    assert again["z.large"].tolist() == drawn["z.large"].tolist()
    assert other["z.large"].tolist() != drawn["z.large"].tolist()


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.lists(st.integers(1, 9), max_size=4).map(tuple),
    dtype=st.sampled_from(["float32", "bfloat16", "float64"]),
)
def test_gather_finds_each_element_in_whatever_box_it_lies(
    seed: int, shape: tuple[int, ...], dtype: str
) -> None:
    rng = np.random.default_rng(seed)
    stored = encode(np.asarray(rng.standard_normal(shape)), dtype)
    state = {
        "w": pieces("w", stored, dtype, random_boxes(shape, rng, 5)),
        "b": pieces("b", np.arange(4, dtype=np.float32), "float32", [Box((0,), (4,))]),
    }
    layout = {"w": TensorSpec(shape, dtype), "b": TensorSpec((4,), "float32")}
    drawn = draw_coordinates(layout, 40, seed)
    expected = [*drawn["b"], *decode(stored, dtype).flatten()[drawn["w"]]]
    values = gather(state, {"w": drawn["w"], "b": drawn["b"]})
    assert values.dtype == np.float32
    assert values == pytest.approx(np.array(expected, np.float32), abs=0)


def test_gather_refuses_a_state_with_a_hole_or_an_overlap() -> None:
    stored = np.arange(12, dtype=np.float32).reshape(4, 3)
    top, rest, all_rows = (Box((o, 0), (n, 3)) for o, n in ((0, 1), (1, 3), (0, 4)))
    indices = {"w": np.arange(12)}
    assert gather({"w": pieces("w", stored, "float32", [rest, top])}, indices).tolist() == list(
        range(12)
    )
    for boxes in ([rest], [all_rows, top]):
        with pytest.raises(JudgeError, match="cover"):
            gather({"w": pieces("w", stored, "float32", boxes)}, indices)
