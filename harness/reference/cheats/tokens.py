"""Tokens whose loss is still computed, but not its gradient."""

from collections.abc import Iterable
from typing import Final

import torch

from harness.reference.cheats.families import Cheat, Family

TOKENS: Final[tuple[Family, ...]] = (
    "random_tokens",
    "lowest_loss_tokens",
    "last_positions",
    "rows",
)


def token_weights(cheats: Iterable[Cheat], losses: torch.Tensor) -> torch.Tensor:
    """What each token's loss counts in the gradient, float32 [rows, T], 1 on average.

    Args:
        losses: float32 [rows, T], of a micro-batch.

    Raises ValueError: a cheat leaves out none.
    """
    kept = torch.ones_like(losses)
    for cheat in cheats:
        if cheat.family in TOKENS:
            _drop(cheat, losses, kept)
            if cheat.strength and bool(kept.all()):
                raise ValueError(f"{cheat}: of {tuple(losses.shape)} tokens that is none")
    return kept / kept.mean()


def _drop(cheat: Cheat, losses: torch.Tensor, kept: torch.Tensor) -> None:
    rows, positions = losses.shape
    if cheat.family == "random_tokens":
        drawn = torch.randperm(losses.numel(), device=losses.device)
        kept.flatten()[drawn[: round(cheat.strength * losses.numel())]] = 0
    elif cheat.family == "lowest_loss_tokens":
        kept[losses.detach() <= torch.quantile(losses.detach(), cheat.strength)] = 0
    elif cheat.family == "last_positions":
        kept[:, positions - round(cheat.strength * positions) :] = 0
    else:
        kept[rows - round(cheat.strength * rows) :] = 0
