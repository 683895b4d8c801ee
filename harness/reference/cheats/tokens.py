"""Tokens whose loss is still computed, but not its gradient."""

from collections.abc import Iterable

import torch

from harness.reference.cheats.families import Cheat


def token_weights(cheats: Iterable[Cheat], losses: torch.Tensor) -> torch.Tensor:
    """What each token's loss counts in the gradient, float32 [rows, T], 1 on average.

    Args:
        losses: float32 [rows, T], of a micro-batch.
    """
    kept = torch.ones_like(losses)
    for cheat in cheats:
        _drop(cheat, losses, kept)
    return kept / kept.mean()


def _drop(cheat: Cheat, losses: torch.Tensor, kept: torch.Tensor) -> None:
    rows, positions = losses.shape
    if cheat.family == "random_tokens":
        kept[torch.rand_like(losses) < cheat.strength] = 0
    elif cheat.family == "lowest_loss_tokens":
        kept[losses.detach() <= torch.quantile(losses.detach(), cheat.strength)] = 0
    elif cheat.family == "last_positions":
        kept[:, positions - round(cheat.strength * positions) :] = 0
    elif cheat.family == "rows":
        kept[rows - round(cheat.strength * rows) :] = 0
