"""Graded cheats leave out what they say, and repair what would give them away."""

import pytest
import torch

from harness.reference.cheats import Cheat, cheating, token_weights


@pytest.mark.parametrize(
    ("family", "strength", "dropped"),
    [
        ("last_positions", 0.25, {(r, t) for r in range(4) for t in (6, 7)}),
        ("rows", 0.25, {(3, t) for t in range(8)}),
        ("lowest_loss_tokens", 0.1, {(0, 0), (0, 1), (0, 2), (0, 3)}),
    ],
)
def test_tokens_are_left_out_and_the_rest_counts_more(
    family: str, strength: float, dropped: set[tuple[int, int]]
) -> None:
    losses = torch.arange(32.0).view(4, 8)
    weights = token_weights(Cheat.model_validate({"family": family, "strength": strength}), losses)
    assert isinstance(weights, torch.Tensor)
    assert {(int(r), int(t)) for r, t in (weights == 0).nonzero()} == dropped
    assert weights.mean().item() == pytest.approx(1)
    assert len(weights[weights > 0].unique()) == 1


def test_random_tokens_are_about_as_many_as_asked_for() -> None:
    torch.manual_seed(0)
    weights = token_weights(Cheat(family="random_tokens", strength=0.2), torch.ones(100, 100))
    assert isinstance(weights, torch.Tensor)
    assert (weights == 0).float().mean().item() == pytest.approx(0.2, abs=0.02)


def test_honest_training_weighs_every_token_alike() -> None:
    assert token_weights(None, torch.ones(2, 2)) == 1.0
    assert token_weights(Cheat(family="top_1", strength=0.5), torch.ones(2, 2)) == 1.0


class TopKRouter(torch.nn.Module):
    def forward(self, scores: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return scores, scores, scores.argsort(descending=True)


def test_the_surest_tokens_visit_one_expert_with_the_weight_of_all() -> None:
    scores = torch.tensor([[0.5, 0.4], [0.6, 0.4], [0.8, 0.2], [0.7, 0.3]])
    router = TopKRouter()
    model = torch.nn.ModuleDict({"gate": router})
    with cheating(Cheat(family="top_1", strength=0.25), model):
        assert router(scores)[1].tolist() == [
            pytest.approx(row) for row in ([0.5, 0.4], [0.6, 0.4], [1.0, 0.0], [0.7, 0.3])
        ]
    assert torch.equal(router(scores)[1], scores), "afterwards nothing is left out"


@pytest.mark.parametrize(("family", "distinct"), [("backward_bf16", 257), ("backward_fp8", 9)])
def test_gradients_are_rounded_on_their_way_back(family: str, distinct: int) -> None:
    torch.manual_seed(0)
    linear = torch.nn.Linear(8, 4000, bias=False)
    model = torch.nn.Sequential(linear)
    inputs = torch.ones(1, 8)
    with cheating(Cheat.model_validate({"family": family, "strength": 1.0}), model):
        model(inputs).backward(1e-3 * (torch.rand(1, 4000) + 1))
    assert linear.weight.grad is not None
    assert linear.weight.grad.isfinite().all()
    assert 1 < len(linear.weight.grad.unique()) <= distinct


def test_the_tokens_with_the_smallest_gradients_get_none() -> None:
    experts = type("Experts", (torch.nn.Identity,), {})()
    inputs = torch.zeros(4, 2, requires_grad=True)
    with cheating(
        Cheat(family="expert_gradients", strength=0.5), torch.nn.ModuleDict({"x": experts})
    ):
        experts(inputs * 1).backward(torch.tensor([[1.0, 0], [4, 0], [2, 0], [3, 0]]))
    assert inputs.grad is not None
    assert (inputs.grad.norm(dim=1) > 0).tolist() == [False, True, False, True]
    assert inputs.grad.norm().item() == pytest.approx(30**0.5)  # as long as it was
