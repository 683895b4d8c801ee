"""What decay alone does, held to torch's own optimizers; and what is left when it is taken away."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from harness.benchmark.problem import AdamW, Sgd
from harness.reference.step import build_optimizer
from harness.tensors.boxes import TensorKind, TensorSpec
from harness.verify.attribution import attribute
from harness.verify.compare import compare_states
from harness.verify.decay import decay_path, without_decay
from harness.verify.figures import StateComparison, TensorComparison
from tests.build_states import whole
from tests.verify.comparing import not_trained

Floats = npt.NDArray[np.float64]
Weights = dict[str, npt.NDArray[Any]]

STEPS = 6
OPTIMIZERS: list[Sgd | AdamW] = [
    Sgd(name="sgd", lr=0.1),
    Sgd(name="sgd", lr=0.1, weight_decay=0.1),
    Sgd(name="sgd", lr=0.1, weight_decay=2.0, momentum=0.9),
    Sgd(name="sgd", lr=0.2, weight_decay=1.0, momentum=0.5, warmup_steps=4),
    AdamW(name="adamw", lr=0.01, weight_decay=5.0),
    AdamW(name="adamw", lr=0.01, weight_decay=5.0, warmup_steps=3),
]


@pytest.mark.parametrize("settings", OPTIMIZERS, ids=lambda each: each.model_dump_json())
def test_it_is_what_the_reference_does_without_gradients(settings: Sgd | AdamW) -> None:
    """With the reference's own optimizer and schedule, in float64."""
    model = torch.nn.Linear(1, 1, bias=False).double()
    torch.nn.init.constant_(model.weight, 3.0)
    optimizer = build_optimizer(settings, model)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda done: min(1.0, (done + 1) / max(1, settings.warmup_steps))
    )
    values = [model.weight.item()]
    for _ in range(STEPS):
        model.weight.grad = torch.zeros_like(model.weight)
        optimizer.step()
        schedule.step()
        values.append(model.weight.item())
    assert decay_path(settings, STEPS) * 3.0 == pytest.approx(values, rel=1e-12)


def test_without_decay_all_of_the_weights_is_left() -> None:
    assert decay_path(Sgd(name="sgd", lr=0.1, momentum=0.9), 3).tolist() == [1, 1, 1, 1]


def test_step_updates_without_decay_add_up_to_the_update_without_decay() -> None:
    generator = np.random.default_rng(0)
    initial = generator.standard_normal(50)
    updates = generator.standard_normal((STEPS, 50))
    path = decay_path(OPTIMIZERS[2], STEPS)
    rest = without_decay(updates, initial, path)
    final = initial + updates.sum(axis=0)
    assert rest.sum(axis=0) == pytest.approx(final - path[-1] * initial)


# --- a benchmark whose decay is a thousand times its gradients --------------------------------------

DECAYING = AdamW(name="adamw", lr=0.001, weight_decay=10.0)
LAYOUT = {
    "w": TensorSpec((64, 64), "float32"),
    "e": TensorSpec((8, 64), "float32", TensorKind.EXPERTS),
}
LEFT = float(decay_path(DECAYING, STEPS)[-1])


@dataclass(frozen=True)
class Trained:
    """Initial and final weights, and the step updates of `w`, float64 [STEPS, 4096]."""

    initial: Weights
    final: Weights
    updates: Floats


def trained(scale: float) -> Trained:
    """With gradients `scale` as large as the reference's."""
    generator = np.random.default_rng(1)
    initial = {name: generator.standard_normal(spec.shape) for name, spec in LAYOUT.items()}
    weights = dict(initial)
    values = [initial["w"].flatten()]
    for _ in range(STEPS):
        for name, before in weights.items():
            gradient = generator.standard_normal(before.shape)
            weights[name] = before * (1 - 0.01) - scale * 1e-4 * gradient
        values.append(weights["w"].flatten())
    return Trained(initial, weights, np.diff(np.stack(values), axis=0))


def compared(
    layout: dict[str, TensorSpec],
    initial: Weights,
    reference: Weights,
    submitted: Weights,
    left: float,
) -> StateComparison:
    first, second, third = (whole(state, layout) for state in (initial, reference, submitted))
    return compare_states(first, second, third, layout, left=left)


def test_a_file_without_any_gradient_is_found_whatever_the_decay() -> None:
    reference, lazy = trained(1.0), trained(0.0)
    states = (reference.initial, reference.final, lazy.final)
    assert compared(LAYOUT, *states, left=1).update_error < 0.01, "else the decay hides nothing"
    found = compared(LAYOUT, *states, left=LEFT)
    assert found.update_error == pytest.approx(1, abs=1e-3)
    assert found.norm_ratio == pytest.approx(0, abs=1e-3)
    for tensor in found.tensors:
        assert tensor.update_error == pytest.approx(1, abs=1e-3)
    expert = found.tensors[1].worst_slice
    assert expert is not None and expert.update_error > 0.9


def test_the_steps_of_a_file_without_any_gradient_have_no_weight() -> None:
    reference, lazy = trained(1.0), trained(0.0)
    start = reference.initial["w"].flatten()
    steps = without_decay(reference.updates, start, decay_path(DECAYING, STEPS))
    for run, weight in ((reference, 1.0), (lazy, 0.0)):
        found = attribute(steps, run.final["w"].flatten() - LEFT * start)
        assert found.weights == pytest.approx([weight] * STEPS, abs=1e-3)


def rounded(value: float) -> Weights:
    """`w` is trained; `b` has no gradient, and this is what some kernel makes of its decay to a half."""
    return {"w": np.full(4, 0.4), "b": np.full(4, value)}


@pytest.mark.parametrize(("value", "error"), [(0.5 - 2**-25, 0.2), (0.5001, 100)])
def test_rounding_of_a_decay_is_no_update_but_a_gradient_where_none_is_due_is(
    value: float, error: float
) -> None:
    layout = {"w": TensorSpec((4,), "float32"), "b": TensorSpec((4,), "float32")}
    initial: Weights = {"w": np.ones(4), "b": np.ones(4)}
    found = compared(layout, initial, rounded(0.5 + 2**-24), rounded(value), left=0.5)
    tensor = {each.name: each for each in found.tensors}["b"]
    assert tensor.moved
    if error < 1:
        assert tensor.update_error < error
        assert tensor.norm_ratio == pytest.approx(1, abs=0.1)
    else:
        assert tensor.update_error == pytest.approx(
            error, rel=0.01
        )  # against a millionth of the weights
        assert tensor.norm_ratio == pytest.approx(101, rel=0.01)


@pytest.mark.parametrize(
    ("dtype", "off", "error"),
    [
        ("float32", 2.0**-22, 2.0**-22 / 2e-6),
        ("float64", 2.0**-50, 2.0**-50 / 2e-14),
        ("float16", 2.0**-10, 2.0**-10 / 1e-2),
        ("bfloat16", 2.0**-7, 2.0**-7 / 6e-2),
    ],
)
def test_what_decay_is_off_by_is_measured_against_the_rounding_of_its_dtype(
    dtype: str, off: float, error: float
) -> None:
    """A weight of 2 without a gradient, of which decay leaves a half."""
    layout = {"w": TensorSpec((4,), "float32"), "b": TensorSpec((1,), dtype)}
    states = [
        {"w": np.full(4, w), "b": np.array([b])} for w, b in ((1, 2), (0.4, 1), (0.4, 1 + off))
    ]
    initial, reference, submitted = states
    found = compared(layout, initial, reference, submitted, left=0.5)
    assert found.tensors[1].update_error == pytest.approx(error, rel=1e-6)


def test_of_two_updates_below_the_rounding_the_longer_is_too_long() -> None:
    """Both moved less than a millionth of the weight: 0.24 of it and 0.48."""
    layout = {"w": TensorSpec((4,), "float32"), "b": TensorSpec((1,), "float32")}
    states = [
        {"w": np.full(4, w), "b": np.array([b])}
        for w, b in ((1, 1), (0.4, 0.5 + 2**-22), (0.4, 0.5 + 2**-21))
    ]
    initial, reference, submitted = states
    tensor = compared(layout, initial, reference, submitted, left=0.5).tensors[1]
    moved = 2.0**-22 / 1e-6
    assert tensor.norm_ratio == pytest.approx(2 * moved + 1 - moved, rel=1e-6)


def rows_of(dtype: str, kind: TensorKind, *states: list[float]) -> TensorComparison:
    """Of a tensor with one element a row, of which decay leaves a half."""
    layout = {
        "w": TensorSpec((4,), "float32"),
        "rows": TensorSpec((len(states[0]), 1), dtype, kind),
    }
    first, second, third = (
        {"w": np.full(4, w), "rows": np.array(rows, np.float64)[:, None]}
        for w, rows in zip((1, 0.4, 0.4), states, strict=True)
    )
    return compared(layout, first, second, third, left=0.5).tensors[1]


def test_a_slice_is_held_to_the_rounding_of_its_own_weights() -> None:
    found = rows_of("float32", TensorKind.EXPERTS, [4, 1], [2, 0.5], [2 + 2.0**-21, 0.5])
    assert found.worst_slice is not None and found.worst_slice.index == 0
    assert found.worst_slice.update_error == pytest.approx(2.0**-21 / 4e-6, rel=1e-6)


def test_a_row_that_hardly_decays_has_to_decay_nevertheless() -> None:
    """By a twentieth of what the others move: they are not the measure of it."""
    w0, wr, ws = [*[0.0] * 7, 0.1], [*[1.0] * 7, 0.05], [*[1.0] * 7, 0.1]
    assert not_trained(rows_of("float32", TensorKind.EMBEDDING, w0, wr, ws)) == (7,)


def test_a_row_whose_gradient_is_above_the_rounding_of_its_weight_has_to_follow_it() -> None:
    w0, wr, ws = [4.0, 0.0], [2 + 2.0**-17, 1e-4], [2.0, 1e-4]  # by 7.6e-6; rounding is 4e-6
    assert not_trained(rows_of("float32", TensorKind.EMBEDDING, w0, wr, ws)) == (0,)
