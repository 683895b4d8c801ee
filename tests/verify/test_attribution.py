"""Step attribution: each cheat leaves its mark in the weights, and sampling misses no element."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import Code, JudgeError
from harness.tensors.boxes import Box, TensorSpec
from harness.verify import attribution
from harness.verify.attribution import (
    attribute,
    draw_coordinates,
    explain_weights,
    gather,
)
from tests.build_states import Array, decode, encode, pieces, random_boxes

STEPS, SAMPLES = 6, 5_000


@pytest.fixture
def steps() -> Array:
    """Updates that share a direction, as those of real training do; float32 [STEPS, SAMPLES]."""
    rng = np.random.default_rng(0)
    common = rng.standard_normal(SAMPLES)
    own = rng.standard_normal((STEPS, SAMPLES))
    return (0.01 * (0.7 * common + own)).astype(np.float32)


def honest(steps: Array) -> Array:
    noise = 0.01 * np.random.default_rng(1).standard_normal(SAMPLES) * np.abs(steps).mean()
    observed: Array = steps.sum(axis=0) + noise.astype(np.float32)
    return observed


def test_honest_noise_has_weights_near_one(steps: Array) -> None:
    result = attribute(steps, honest(steps))
    assert result.weights == pytest.approx([1.0] * STEPS, abs=1e-3)
    assert result.conclusive and 1 < result.condition < 10


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
    steps: Array, factors: tuple[float, ...], said: str
) -> None:
    observed = (np.array(factors)[:, None] * steps).sum(axis=0)
    weights = attribute(steps, observed).weights
    assert weights == pytest.approx(factors, abs=1e-4)
    assert said in explain_weights(weights, 0.02)


@pytest.mark.parametrize("scale", [1.0, 1e-4])
def test_the_weight_of_a_step_is_least_squares(scale: float) -> None:
    """Steps of (3, 0, 0) and (4, 4, 0); the update is 2 of the first, 0.5 of the second, and 10
    along a direction that no step has. Together the steps are (7, 4, 0)."""
    steps, observed = np.array([[3, 0, 0], [4, 4, 0]]), np.array([8, 2, 10])
    result = attribute(scale * steps, scale * observed)
    assert result.weights == pytest.approx((2.0, 0.5))
    # Two directions at 45 degrees: the eigenvalues are 1 plus and 1 minus the cosine.
    assert result.condition == pytest.approx(1 + 2**0.5)
    assert (result.conclusive, result.reason) == (True, "")


@pytest.mark.parametrize(("condition", "conclusive"), [(9_900, True), (10_100, False)])
def test_steps_are_too_much_alike_from_a_condition_of_ten_thousand_on(
    condition: float, conclusive: bool
) -> None:
    """Steps of (1, e) and (1, -e) have a condition of 1 / e."""
    steps = np.array([[1, 1 / condition], [1, -1 / condition]])
    result = attribute(steps, np.array([0.5, 1.0]) @ steps)
    assert result.conclusive == conclusive
    assert result.condition == pytest.approx(condition, rel=1e-3)
    if conclusive:
        assert result.weights == pytest.approx((0.5, 1.0), abs=1e-3)
        assert result.reason == ""
    else:
        assert np.isnan(result.weights).tolist() == [True, True]
        assert "alike" in result.reason


def test_a_condition_exactly_at_the_limit_is_conclusive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attribution, "MAX_CONDITION", 1.0)  # that of one step alone
    assert attribute(np.array([[1.0, 0.0]]), np.array([1.0, 0.0])).conclusive


@pytest.mark.parametrize("second", [1.0, -1.0])
def test_steps_along_one_line_are_infinitely_alike(second: float) -> None:
    with np.errstate(all="raise"):  # an eigenvalue of zero is not divided by
        result = attribute(np.array([[1.0, 0.0], [second, 0.0]]), np.array([2.0, 0.0]))
    assert not result.conclusive and "alike" in result.reason
    assert result.condition > 1e6


def test_a_reference_without_steps_is_inconclusive() -> None:
    result = attribute(np.empty((0, 5)), np.ones(5))
    assert (result.weights, result.conclusive) == ((), False)
    assert result.reason == "the reference recorded no steps"
    assert result.condition == math.inf


def test_every_reference_step_without_movement_is_named() -> None:
    result = attribute(np.array([[0, 0], [1, 2], [0, 0]]), np.array([1, 2]))
    assert result.reason == "step 1, 3 of the reference moved none of the sampled weights"
    assert not result.conclusive
    assert result.condition == math.inf
    assert np.isnan(result.weights).tolist() == [True] * 3


def test_one_step_alone_is_attributed(steps: Array) -> None:
    result = attribute(steps[:1], 0.5 * steps[0])
    assert result.weights == pytest.approx([0.5])
    assert result.condition == pytest.approx(1.0)
    assert result.conclusive


def test_a_reference_step_without_movement_is_inconclusive_and_said(steps: Array) -> None:
    steps[2] = 0
    result = attribute(steps, steps.sum(axis=0))
    assert not result.conclusive and "step 3 of the reference" in result.reason
    assert all(math.isnan(weight) for weight in result.weights)


def test_reference_steps_that_are_alike_are_inconclusive_and_said(steps: Array) -> None:
    steps[4] = 2 * steps[1]
    result = attribute(steps, steps.sum(axis=0))
    assert not result.conclusive and "alike" in result.reason


def test_nonfinite_weights_are_the_submissions_problem(steps: Array) -> None:
    observed = honest(steps)
    observed[17] = math.nan
    result = attribute(steps, observed)
    assert result.conclusive and result.reason == ""
    assert len(result.weights) == STEPS
    assert all(math.isnan(weight) for weight in result.weights)
    assert 1 < result.condition < 10


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
def test_one_value_that_is_not_finite_leaves_no_weight_of_a_single_step(bad: float) -> None:
    """It would give an infinite one, which `explain_weights` could take for a step that counts often."""
    result = attribute(np.array([[1.0, 2.0]]), np.array([bad, 2.0]))
    assert result.conclusive and math.isnan(result.weights[0])


def test_step_sizes_do_not_change_the_condition(steps: Array) -> None:
    scaled = steps * np.logspace(0, -6, STEPS)[:, None]
    before, after = attribute(steps, honest(steps)), attribute(scaled, scaled.sum(axis=0))
    assert after.condition == pytest.approx(before.condition, rel=1e-3)
    assert after.weights == pytest.approx([1.0] * STEPS, abs=1e-6)


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ((1, 0.24), "step 2 of 2 is missing (weight 0.24)"),
        ((1, -0.24), "step 2 of 2 is missing (weight -0.24)"),
        ((1, -0.001), "step 2 of 2 is missing (weight 0.00)"),
        ((1, 0.25), "weights away from 1: step 2 of 2 has 0.25"),
        ((1, -0.25), "weights away from 1: step 2 of 2 has -0.25"),
        ((1.76, 1), "step 1 of 2 counts twice (weight 1.76)"),
        ((2.24, 1), "step 1 of 2 counts twice (weight 2.24)"),
        ((1.75, 1), "weights away from 1: step 1 of 2 has 1.75"),
        ((2.25, 1), "weights away from 1: step 1 of 2 has 2.25"),
        ((1, 0, 2, 1.4), "step 2 of 4 is missing (weight 0.00); step 3 of 4 counts twice"),
        ((0.24, -0.24), "none of the 2 steps is in the result"),
        ((0.24, 0.25), "every step has weight 0.24"),
        ((0, 0.25, 1), "step 1 of 3 is missing"),
        ((0.9, 0.9, 0.9), "every step has weight 0.90"),
        ((1.625, 1.375), "every step has weight 1.50"),  # apart by half of what they are off
        ((1.625, 1.37), "weights away from 1: step 1 of 2 has 1.62, step 2 of 2 has 1.37"),
        ((0.8, 0.86), "every step has weight 0.83"),
        ((-1, -1), "every step has weight -1.00"),
        ((0.9,), "weights away from 1: step 1 of 1 has 0.9"),
        ((1.02, 1.04), "every step has weight 1.03"),
        ((0.98, 1.03), "weights away from 1: step 2 of 2 has 1.03"),
        ((math.nan, 1.0), "the weights of the steps cannot be determined"),
        ((math.inf, 0.0), "the weights of the steps cannot be determined"),
    ],
)
def test_weights_are_put_into_words(weights: tuple[float, ...], said: str) -> None:
    assert explain_weights(weights, 0.021).startswith(said)


def test_four_steps_are_told_of_and_no_more() -> None:
    said = explain_weights((0, 1, 0, 1, 0, 0, 2), 0.02)
    assert said.count(";") == 3 and said.endswith("step 6 of 7 is missing (weight 0.00)")
    said = explain_weights((1.3, 0.6, 1.01, 1.5, 0.65, 1.31), 0.02)
    assert said == (
        "weights away from 1: step 2 of 6 has 0.6, step 4 of 6 has 1.5, step 5 of 6 has 0.65, "
        "step 6 of 6 has 1.31"
    )


def test_a_step_exactly_at_its_tolerance_is_not_told_of() -> None:
    said = explain_weights((1.0, 1.25, 1.5), 0.25)
    assert said == "weights away from 1: step 3 of 3 has 1.5"


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
    assert len(drawn["norm"]) == 10  # of 1,000 as its 200 of 20,203 elements
    assert len(drawn["z.large"]) == 990
    for name, indices in drawn.items():
        assert indices.dtype == np.int64
        assert len(np.unique(indices)) == len(indices)
        assert indices.min() >= 0 and indices.max() < math.prod(LAYOUT[name].shape)
    again, other = (draw_coordinates(LAYOUT, 1_000, seed=seed) for seed in (5, 6))
    assert again["z.large"].tolist() == drawn["z.large"].tolist()
    assert other["z.large"].tolist() != drawn["z.large"].tolist()


@pytest.mark.parametrize(
    ("sizes", "samples", "drawn"),
    [
        ({"a": 100_000, "b": 20}, 1_000, {"a": 1_000, "b": 8}),
        ({"a": 100_000, "b": 8}, 1_000, {"a": 1_000, "b": 8}),
        ({"a": 100_000, "b": 7}, 1_000, {"a": 1_000, "b": 7}),
        ({"a": 1_000, "b": 3_000}, 400, {"a": 100, "b": 300}),
        ({"a": 100, "b": 300}, 10_000, {"a": 100, "b": 300}),
        ({"a": 0, "b": 10}, 5, {"b": 8}),
        ({"a": 1}, 0, {"a": 1}),
        ({}, 10, {}),
    ],
)
def test_as_many_elements_are_drawn_as_a_tensor_has_a_share_but_eight_at_least(
    sizes: dict[str, int], samples: int, drawn: dict[str, int]
) -> None:
    layout = {name: TensorSpec((size,), "float32") for name, size in sizes.items()}
    found = draw_coordinates(layout, samples, seed=0)
    assert {name: len(indices) for name, indices in found.items()} == drawn
    assert all((np.diff(indices) > 0).all() for indices in found.values())


def test_exact_tensors_take_no_share_of_the_samples() -> None:
    layout = {"n": TensorSpec((900,), "int64"), "w": TensorSpec((100,), "bfloat16")}
    assert {n: len(i) for n, i in draw_coordinates(layout, 50, 0).items()} == {"w": 50}


def test_elements_of_the_whole_tensor_are_drawn() -> None:
    drawn = draw_coordinates({"w": TensorSpec((10, 100), "float32")}, 500, seed=3)["w"]
    assert set(drawn // 100) == set(range(10))


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


def test_a_gathered_state_is_in_the_order_of_names_and_indices() -> None:
    box = Box((0,), (4,))
    state = {
        name: pieces(name, np.arange(4, dtype=np.float32) + shift, "float32", [box])
        for name, shift in (("b", 10), ("a", 20), ("c", 30))
    }
    indices = {"c": np.array([3]), "a": np.array([0, 2]), "b": np.array([1])}
    assert gather(state, indices).tolist() == [20, 22, 11, 33]


def test_nothing_is_gathered_where_nothing_was_sampled() -> None:
    values = gather({}, {})
    assert values.dtype == np.float32 and values.shape == (0,)


def test_a_scalar_and_empty_pieces_are_gathered() -> None:
    empty, rest = Box((0, 2), (2, 0)), Box((0, 0), (2, 2))
    state = {
        "scalar": pieces("scalar", np.array(7, np.float32), "float32", [Box((), ())]),
        "w": pieces("w", np.array([[1, 2], [3, 4]], np.float32), "float32", [empty, rest]),
    }
    indices = {"scalar": np.array([0]), "w": np.array([0, 3])}
    assert gather(state, indices).tolist() == [7, 1, 4]


def test_a_scalar_that_is_missing_is_our_failure() -> None:
    for stored in ([], [Box((), ()), Box((), ())]):
        state = {"s": pieces("s", np.array(7, np.float32), "float32", stored)}
        with pytest.raises(JudgeError, match="cover") as caught:
            gather(state, {"s": np.array([0])})
        assert caught.value.code is Code.INTERNAL
