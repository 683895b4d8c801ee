"""What an optimizer does less of: smaller steps, less decay, no bias correction, a smaller state."""

import math
from collections.abc import Iterable, Mapping
from typing import Final

import torch
from torch.distributed.tensor import DTensor

from harness.benchmark.problem import AdamW, Sgd
from harness.reference.cheats.families import Cheat
from harness.reference.cheats.rounding import rounded_rows

NAMES: Final = {"learning_rate": "lr", "weight_decay": "weight_decay", "epsilon": "eps"}
SECOND_MOMENT: Final = "exp_avg_sq"


def step_settings(cheats: Iterable[Cheat], settings: Sgd | AdamW, step: int) -> Mapping[str, float]:
    """What a step is made with, by torch's names: the benchmark's rate of that step, but for the cheats.

    Args:
        step: from 0.
    """
    found = {"lr": settings.rate(step), "weight_decay": settings.weight_decay}
    if isinstance(settings, AdamW):
        found["eps"] = settings.eps
    for cheat in cheats:
        if (name := NAMES.get(cheat.family)) in found:
            found[name] *= 1 - cheat.strength
        elif cheat.family == "bias_correction" and isinstance(settings, AdamW):
            found |= _less_corrected(cheat.strength, found, settings, step + 1)
    return found


def _less_corrected(
    strength: float, found: Mapping[str, float], settings: AdamW, steps: int
) -> dict[str, float]:
    """Settings with which a corrected step is what one with a power 1 − strength of both corrections is.

    c1 = 1 − β1^t, c2 = √(1 − β2^t): lr · m / (√v + ε) = (lr · c1 / c2) · (m / c1) / (√v / c2 + ε / c2).
    The decay stays lr · wd.
    """
    first = (1 - settings.beta1**steps) ** strength
    second = math.sqrt(1 - settings.beta2**steps) ** strength
    return {
        "lr": found["lr"] * first / second,
        "eps": found["eps"] / second,
        "weight_decay": found["weight_decay"] * second / first,
    }


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
