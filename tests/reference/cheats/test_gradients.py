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
        (
            "frozen_layers",
            0.5,
            {f"layers.{n}.{p}" for n in (0, 1) for p in ("norm", "mlp.gate.weight")}
            | {"embed_tokens.weight"},
        ),
    ],
)
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


def test_of_a_sparse_reduction_the_largest_are_sent_and_the_rest_with_the_next() -> None:
    model = nn.Linear(4, 1, bias=False)
    sparse = cheats(model, "reductions_sparse", 0.5)
    for gradient, sent in (
        ([1.0, -4, 2, -2.5], [0, -4, 0, -2.5]),
        ([1.0, 1, 1, -2.5], [0, 0, 3, -2.5]),
    ):
        model.weight.grad = torch.tensor([gradient])
        sparse.change()
        assert model.weight.grad.tolist() == [sent]


def test_a_reduction_of_eight_bits_has_few_values_a_row_and_loses_nothing_for_good() -> None:
    model = nn.Linear(1000, 2, bias=False)
    rows = torch.stack([torch.linspace(-1, 1, 1000), torch.linspace(-1e-3, 1e-3, 1000)])
    coarse, whole = cheats(model, "reductions_int8"), torch.zeros(2, 1000)
    for _ in range(10):
        model.weight.grad = rows.clone()
        coarse.change()
        assert all(len(row.unique()) <= 255 for row in model.weight.grad)
        whole += model.weight.grad
    assert torch.allclose(whole[0], 10 * rows[0], atol=1e-2)
    assert torch.allclose(whole[1], 10 * rows[1], atol=1e-5)


@pytest.mark.parametrize("family", ["frozen_norms", "frozen_routers", "frozen_layers"])
def test_a_cheat_that_concerns_no_parameter_fails(family: str) -> None:
    model = nn.Linear(2, 2)
    gradients(model)
    with pytest.raises(ValueError, match="no parameter has"):
        cheats(model, family).change()


@pytest.mark.parametrize("strength", [0.4, 0.6, 0.3])
def test_stale_steps_are_every_so_many(strength: float) -> None:
    with pytest.raises(ValueError, match="every how many steps"):
        cheats(nn.Linear(2, 2), "stale_steps", strength)


def test_other_cheats_leave_gradients_alone() -> None:
    model = Model()
    gradients(model)
    cheats(model, "top_1", 0.5).change()
    assert without(model) == set()
