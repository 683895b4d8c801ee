"""What becomes of gradients between the backward pass and the optimizer's step."""

from collections.abc import Iterator, Sequence
from typing import Final

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from harness.reference.cheats.families import Cheat, Family
from harness.reference.cheats.rounding import rounded

#: Parameters that get no gradient, by a part of their names.
FROZEN: Final[dict[Family, str]] = {"frozen_norms": "norm", "frozen_routers": ".mlp.gate."}
#: Gradients of so many steps before stand in for a step's own.
STALE: Final[dict[Family, int]] = {"stale_steps": 1, "extrapolated_steps": 2}


class GradientCheats:
    """Changes the gradients of every step; a rank changes its own shards."""

    def __init__(self, cheats: Sequence[Cheat], model: nn.Module) -> None:
        self._cheats, self._model = cheats, model
        self._step = 0
        self._before: list[dict[str, torch.Tensor]] = []

    def change(self) -> None:
        """After a backward pass."""
        for cheat in self._cheats:
            if cheat.family in FROZEN:
                self._freeze(FROZEN[cheat.family])
            elif cheat.family == "frozen_layers":
                self._freeze(*_lowest_layers(self._model, cheat.strength))
            elif cheat.family == "frozen_rows":
                self._freeze_rows(cheat.strength)
            elif cheat.family in STALE:
                self._replace(cheat.strength, STALE[cheat.family])
            elif cheat.family == "reductions_int8":
                for _, gradient in self._gradients():
                    gradient.copy_(rounded(gradient, "int8"))
            elif cheat.family == "reductions_sparse":
                for _, gradient in self._gradients():
                    _keep_largest(gradient, cheat.strength)
        self._step += 1

    def _gradients(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Of this rank's shards that have elements."""
        for name, parameter in self._model.named_parameters():
            gradient = parameter.grad
            if isinstance(gradient, DTensor):
                gradient = gradient.to_local()
            if gradient is not None and gradient.numel():
                yield name, gradient

    def _freeze(self, *parts: str) -> None:
        for name, gradient in self._gradients():
            if any(part in name for part in parts):
                gradient.zero_()

    def _freeze_rows(self, share: float) -> None:
        """Of the rows of the input embedding that have a gradient, those with the smallest."""
        for name, gradient in self._gradients():
            if "embed_tokens" in name:
                norms = gradient.norm(dim=1)
                moved = norms[norms > 0]
                if moved.numel():
                    gradient[norms <= torch.quantile(moved, share)] = 0

    def _replace(self, share: float, order: int) -> None:
        """Every so many steps the gradient is that of the step before, or the line through the last two."""
        period = round(1 / share)
        if self._step % period == period - 1 and len(self._before) >= order:
            for name, gradient in self._gradients():
                last = self._before[-1][name]
                gradient.copy_(last if order == 1 else 2 * last - self._before[-2][name])
        own = {name: gradient.clone() for name, gradient in self._gradients()}
        self._before = [*self._before, own][-order:]


def _lowest_layers(model: nn.Module, share: float) -> list[str]:
    """Parts of names: whoever does not train the first layers has no backward pass there."""
    numbers = {
        int(name.split("layers.")[1].split(".")[0])
        for name, _ in model.named_parameters()
        if "layers." in name
    }
    return [f"layers.{number}." for number in sorted(numbers)[: round(share * len(numbers))]]


def _keep_largest(gradient: torch.Tensor, dropped: float) -> None:
    """What is not sent is lost; the rest is as long as all was."""
    length = gradient.norm()
    sizes = gradient.abs().flatten()
    keep = max(1, round((1 - dropped) * sizes.numel()))
    limit = sizes.kthvalue(sizes.numel() - keep + 1).values
    gradient[gradient.abs() < limit] = 0
    gradient.mul_(length / gradient.norm().clamp(min=1e-30))
