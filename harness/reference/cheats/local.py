"""Local SGD (https://arxiv.org/abs/1805.09767): ranks step alone, and average what they have at times."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from harness.reference.cheats.families import Cheat

#: Ranks that step alone. Two are the fewest: they drift apart least.
RANKS: Final = 2


def turns(
    cheats: Iterable[Cheat],
    batches: Iterable[torch.Tensor],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
) -> Iterator[tuple[int, torch.Tensor]]:
    """What to make a step with, in turn: the step's number, from 0, and rows.

    Without that cheat every batch once. With it each rank makes the steps between two averages from the
    same weights and moments, on its own part of every batch; behind the last they are averaged.

    Args:
        batches: int64 [rows, sequence_length] each.
        model, optimizer: are set back and averaged between the turns.

    Raises ValueError: the part that is left out is none of 1/2, 2/3, 3/4, ...
    """
    alone = _steps_alone(cheats)
    if alone == 1:
        yield from enumerate(batches)
        return
    for first, some in _by(alone, list(batches)):
        before, ends = _state(model, optimizer), []
        for rank in range(RANKS):
            _set(model, optimizer, before)
            for number, batch in enumerate(some):
                yield first + number, batch[rank::RANKS]
            ends.append(_state(model, optimizer))
        _set(model, optimizer, [torch.stack(each).mean(dim=0) for each in zip(*ends, strict=True)])


def _steps_alone(cheats: Iterable[Cheat]) -> int:
    """From one average to the next: of so many reductions all but the last are left out."""
    for cheat in cheats:
        if cheat.family == "local_sgd":
            steps = round(1 / max(1 - cheat.strength, 1e-9))
            if abs(1 - 1 / steps - cheat.strength) > 1e-6:
                raise ValueError(f"{cheat}: 1/2, 2/3, 3/4, ... of the reductions can be left out")
            return steps
    return 1


def _by(size: int, batches: Sequence[torch.Tensor]) -> Iterator[tuple[int, Sequence[torch.Tensor]]]:
    for first in range(0, len(batches), size):
        yield first, batches[first : first + size]


def _tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[torch.Tensor]:
    """Of this rank: its shards of the weights and of all that the optimizer keeps of each."""
    for parameter in model.parameters():
        for tensor in (parameter.detach(), *optimizer.state[parameter].values()):
            if isinstance(tensor, torch.Tensor):
                yield tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _state(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [tensor.clone() for tensor in _tensors(model, optimizer)]


@torch.no_grad()
def _set(
    model: nn.Module, optimizer: torch.optim.Optimizer, values: Sequence[torch.Tensor]
) -> None:
    """Before an optimizer's first step there are no moments to go back to: they are dropped again."""
    if len(values) < sum(1 for _ in _tensors(model, optimizer)):
        optimizer.state.clear()
    for tensor, value in zip(_tensors(model, optimizer), values, strict=True):
        tensor.copy_(value)
