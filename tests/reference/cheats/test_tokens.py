"""Tokens that a cheat leaves out of the gradient, and what the others count then."""

import pytest
import torch

from harness.reference.cheats.families import Cheat
from harness.reference.cheats.tokens import token_weights


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
    cheat = Cheat.model_validate({"family": family, "strength": strength})
    weights = token_weights([cheat], losses)
    assert {(int(r), int(t)) for r, t in (weights == 0).nonzero()} == dropped
    assert weights.mean().item() == pytest.approx(1)
    assert len(weights[weights > 0].unique()) == 1


@pytest.mark.parametrize(("strength", "dropped"), [(0.2, 2_000), (0.001, 10), (0.0001, 1)])
def test_random_tokens_are_as_many_as_asked_for(strength: float, dropped: int) -> None:
    cheat = Cheat(family="random_tokens", strength=strength)
    first, second = (token_weights([cheat], torch.ones(100, 100)) == 0 for _ in range(2))
    assert first.sum().item() == second.sum().item() == dropped
    assert not torch.equal(first, second)


def test_what_several_leave_out_is_left_out() -> None:
    cheats = [
        Cheat(family="rows", strength=0.25),
        Cheat(family="last_positions", strength=0.25),
        Cheat(family="top_1", strength=0.5),
    ]
    weights = token_weights(cheats, torch.ones(4, 8))
    assert (weights[:3, :6] == 32 / 18).all() and weights.sum().item() == pytest.approx(32)


@pytest.mark.parametrize(
    ("family", "strength"), [("rows", 0.125), ("last_positions", 0.01), ("random_tokens", 1e-9)]
)
def test_a_part_that_is_no_token_at_all_fails(family: str, strength: float) -> None:
    cheat = Cheat.model_validate({"family": family, "strength": strength})
    with pytest.raises(ValueError, match=r"of \(2, 8\) tokens that is none"):
        token_weights([cheat], torch.rand(2, 8))


def test_honest_training_weighs_every_token_alike() -> None:
    assert torch.equal(token_weights([], torch.rand(3, 5)), torch.ones(3, 5))
    other = token_weights([Cheat(family="top_1", strength=0.5)], torch.rand(2, 2))
    assert torch.equal(other, torch.ones(2, 2))
