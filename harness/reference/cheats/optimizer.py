"""What an optimizer does less of: smaller steps, less decay, a smaller state."""

from collections.abc import Iterable
from typing import Final

import torch
from torch.distributed.tensor import DTensor

from harness.benchmark.problem import AdamW, Sgd
from harness.reference.cheats.families import Cheat
from harness.reference.cheats.rounding import rounded_rows

NAMES: Final = {"learning_rate": "lr", "weight_decay": "weight_decay", "epsilon": "eps"}
SECOND_MOMENT: Final = "exp_avg_sq"


def cheated_settings(cheats: Iterable[Cheat], settings: Sgd | AdamW) -> Sgd | AdamW:
    """The settings, too small by the strength of each cheat that concerns one."""
    for cheat in cheats:
        if (name := NAMES.get(cheat.family)) and hasattr(settings, name):
            smaller = getattr(settings, name) * (1 - cheat.strength)
            settings = settings.model_copy(update={name: smaller})
    return settings


def change_state(cheats: Iterable[Cheat], optimizer: torch.optim.Optimizer) -> None:
    """After a step: what is left of momenta and second moments, of this rank's shards."""
    for cheat in cheats:
        for state in optimizer.state.values():
            for name, value in state.items():
                if isinstance(value, DTensor):
                    value = value.to_local()
                if isinstance(value, torch.Tensor) and value.ndim and value.numel():
                    _change(cheat, name, value)


def _change(cheat: Cheat, name: str, value: torch.Tensor) -> None:
    if cheat.family == "state_shared" and name == SECOND_MOMENT:
        value.copy_(value.mean(dim=-1, keepdim=True).expand_as(value))
    elif cheat.family == "state_int8" and name == SECOND_MOMENT:
        # Roots: of a row's moments some are a millionth of others, and none may be rounded to zero.
        value.copy_(rounded_rows(value.sqrt().sqrt()).square().square())
    elif cheat.family == "state_int8":
        root = rounded_rows(value.sign() * value.abs().sqrt())
        value.copy_(root * root.abs())
