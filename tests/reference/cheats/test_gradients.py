"""What becomes of gradients before a step."""

import pytest
import torch
from torch import nn

from harness.reference.cheats.families import Cheat
from harness.reference.cheats.gradients import GradientCheats


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.Parameter(torch.zeros(3))
        self.mlp = nn.ModuleDict({"gate": nn.Linear(3, 2, bias=False)})


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(4, 3)
        self.layers = nn.ModuleList([Layer(), Layer(), Layer(), Layer()])


def cheats(model: nn.Module, family: str, strength: float = 1.0) -> GradientCheats:
    cheat = Cheat.model_validate({"family": family, "strength": strength})
    return GradientCheats([cheat], model)


def gradients(model: nn.Module, value: float = 1.0) -> None:
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, value)


def without(model: nn.Module) -> set[str]:
    return {
        name
        for name, each in model.named_parameters()
        if each.grad is not None and not each.grad.any()
    }


@pytest.mark.parametrize(
    ("family", "strength", "frozen"),
    [
        ("frozen_norms", 1.0, {f"layers.{n}.norm" for n in range(4)}),
        ("frozen_routers", 1.0, {f"layers.{n}.mlp.gate.weight" for n in range(4)}),
        ("frozen_layers", 0.5, {f"layers.{n}.{p}" for n in (0, 1) for p in ("norm", "mlp.gate.weight")}),
    ],
)  # fmt: skip
def test_what_is_frozen_gets_no_gradient(family: str, strength: float, frozen: set[str]) -> None:
    model = Model()
    gradients(model)
    cheats(model, family, strength).change()
    assert without(model) == frozen


def test_of_the_rows_that_have_a_gradient_those_with_the_smallest_are_frozen() -> None:
    model = Model()
    gradients(model)
    rows = model.embed_tokens.weight.grad
    assert rows is not None
    rows.copy_(torch.tensor([0.0, 3, 1, 2])[:, None].expand(4, 3))
    cheats(model, "frozen_rows", 0.4).change()
    assert rows[:, 0].tolist() == [0, 3, 0, 2]
    assert without(model) == set()


@pytest.mark.parametrize(
    ("family", "strength", "used"),
    [
        ("stale_steps", 0.5, [1, 1, 4, 4, 16, 16]),
        ("stale_steps", 0.25, [1, 2, 4, 4, 16, 32]),
        (
            "extrapolated_steps",
            0.5,
            [1, 2, 4, 2 * 4 - 2, 16, 2 * 16 - 6],
        ),  # no line through one step
    ],
)
def test_a_step_takes_the_gradients_of_those_before(
    family: str, strength: float, used: list[float]
) -> None:
    model = nn.Linear(2, 2)
    applied = cheats(model, family, strength)
    seen = []
    for step in range(6):
        gradients(model, 2.0**step)
        applied.change()
        assert model.bias.grad is not None
        seen.append(model.bias.grad[0].item())
    assert seen == used


def test_of_a_sparse_reduction_the_largest_are_left_and_as_long_as_all() -> None:
    model = nn.Linear(4, 1, bias=False)
    model.weight.grad = torch.tensor([[1.0, -4, 2, -2.5]])
    length = model.weight.grad.norm()
    cheats(model, "reductions_sparse", 0.5).change()
    assert (model.weight.grad != 0).tolist() == [[False, True, False, True]]
    assert model.weight.grad.norm() == pytest.approx(length)


def test_a_reduction_of_eight_bits_has_at_most_255_values() -> None:
    model = nn.Linear(1000, 1, bias=False)
    model.weight.grad = torch.linspace(-1, 1, 1000)[None]
    cheats(model, "reductions_int8").change()
    assert len(model.weight.grad.unique()) == 255
    assert (model.weight.grad - torch.linspace(-1, 1, 1000)).abs().max() <= 0.5 / 127 + 1e-6


def test_other_cheats_leave_gradients_alone() -> None:
    model = Model()
    gradients(model)
    cheats(model, "top_1", 0.5).change()
    assert without(model) == set()
