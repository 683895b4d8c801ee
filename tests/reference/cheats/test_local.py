"""Ranks that step alone: what they come to is the average of what each would come to by itself."""

import copy

import pytest
import torch
from torch import nn

from harness.reference.cheats.families import Cheat
from harness.reference.cheats.local import RANKS, turns

BATCHES = list(torch.randn(5, 4, 3, generator=torch.Generator().manual_seed(0)))


def local_sgd(strength: float) -> list[Cheat]:
    return [Cheat(family="local_sgd", strength=strength)]


def model() -> nn.Module:
    torch.manual_seed(1)
    return nn.Linear(3, 1)


def adamw(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=0.1)


def step(model: nn.Module, optimizer: torch.optim.Optimizer, rows: torch.Tensor) -> None:
    model(rows).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()


def trained(strength: float, batches: list[torch.Tensor]) -> tuple[nn.Module, list[int]]:
    here, numbers = model(), []
    optimizer = adamw(here)
    for number, rows in turns(local_sgd(strength), batches, here, optimizer):
        numbers.append(number)
        step(here, optimizer, rows)
    return here, numbers


def by_itself(rank: int, batches: list[torch.Tensor]) -> nn.Module:
    here = model()
    optimizer = adamw(here)
    for batch in batches:
        step(here, optimizer, batch[rank::RANKS])
    return here


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([each.detach().flatten() for each in model.parameters()])


def test_between_two_averages_each_rank_trains_on_its_own_rows_from_the_same_weights() -> None:
    found, numbers = trained(2 / 3, BATCHES[:3])
    first, second = (weights(by_itself(rank, BATCHES[:3])) for rank in range(RANKS))
    assert not torch.allclose(first, second, rtol=1e-3)
    assert torch.allclose(weights(found), (first + second) / 2)
    assert numbers == [0, 1, 2] * RANKS


def test_moments_are_averaged_too_and_the_last_part_may_be_shorter() -> None:
    found, numbers = trained(0.75, BATCHES)
    assert numbers == [0, 1, 2, 3] * RANKS + [4] * RANKS
    # As if the four steps were a checkpoint: the fifth starts from averages of weights and moments.
    here = model()
    optimizer = adamw(here)
    ends = []
    for rank in range(RANKS):
        there = model()
        own = adamw(there)
        for batch in BATCHES[:4]:
            step(there, own, batch[rank::RANKS])
        ends.append((there, own))
    step(here, optimizer, BATCHES[0])  # so that there is a state
    mean_of(here, [there for there, _ in ends])
    for mine, *theirs in zip(
        *(each.state.values() for each in (optimizer, *(own for _, own in ends))), strict=True
    ):
        for name, value in mine.items():
            value.copy_(torch.stack([other[name] for other in theirs]).mean(dim=0))
    last = []
    for rank in range(RANKS):
        there = copy.deepcopy(here)
        own = adamw(there)
        own.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        step(there, own, BATCHES[4][rank::RANKS])
        last.append(there)
    mean_of(here, last)
    assert torch.allclose(weights(found), weights(here), atol=1e-6)


@torch.no_grad()
def mean_of(model: nn.Module, others: list[nn.Module]) -> None:
    for mine, *theirs in zip(
        model.parameters(), *(other.parameters() for other in others), strict=True
    ):
        mine.copy_(torch.stack(theirs).mean(dim=0))


def test_without_it_every_batch_comes_once_and_whole() -> None:
    here = model()
    other = [Cheat(family="rows", strength=0.5)]
    found = list(turns(other, BATCHES, here, adamw(here)))
    assert [number for number, _ in found] == list(range(len(BATCHES)))
    assert all(rows is batch for (_, rows), batch in zip(found, BATCHES, strict=True))


def test_a_part_that_is_no_whole_number_of_steps_is_refused() -> None:
    here = model()
    with pytest.raises(ValueError, match="of the reductions can be left out"):
        list(turns(local_sgd(0.6), BATCHES, here, adamw(here)))
