"""What becomes of gradients between the backward pass and the optimizer's step."""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Final

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from harness.reference.cheats.families import Cheat, Family
from harness.reference.cheats.rounding import rounded_rows

#: Parameters that get no gradient, by a part of their names.
EMBEDDING: Final = "embed_tokens"
FROZEN: Final[dict[Family, str]] = {"frozen_norms": "norm", "frozen_routers": ".mlp.gate."}
#: Gradients of so many steps before stand in for a step's own.
STALE: Final[dict[Family, int]] = {"stale_steps": 1, "extrapolated_steps": 2}


class GradientCheats:
    """Changes the gradients of every step; a rank changes its own shards.

    Raises ValueError: a cheat concerns nothing of this model, or no whole number of steps.
    """

    def __init__(self, cheats: Sequence[Cheat], model: nn.Module) -> None:
        self._cheats, self._model = cheats, model
        self._step = 0
        self._before: list[dict[str, torch.Tensor]] = []
        self._lost: dict[str, torch.Tensor] = {}
        for cheat in cheats:
            if cheat.family not in STALE:
                continue
            if not math.isclose(1 / round(1 / cheat.strength), cheat.strength):
                raise ValueError(
                    f"{cheat}: every how many steps? 1/2, 1/3, 1/4, ... can be left out"
                )

    def change(self) -> None:
        """After a backward pass."""
        for cheat in self._cheats:
            if cheat.family in FROZEN:
                self._freeze(FROZEN[cheat.family])
            elif cheat.family == "frozen_layers":
                self._freeze(EMBEDDING, *_lowest_layers(self._model, cheat.strength))
            elif cheat.family == "frozen_rows":
                self._freeze_rows(cheat.strength)
            elif cheat.family in STALE:
                self._replace(cheat.strength, STALE[cheat.family])
            elif cheat.family == "reductions_int8":
                self._send(rounded_rows)
            elif cheat.family == "reductions_sparse":
                self._send(partial(_largest, dropped=cheat.strength))
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
        names = [name for name, _ in self._model.named_parameters()]
        if not any(part in name for part in parts for name in names):
            raise ValueError(f"no parameter has {' or '.join(parts)} in its name")
        for name, gradient in self._gradients():
            if any(part in name for part in parts):
                gradient.zero_()

    def _freeze_rows(self, share: float) -> None:
        """Of the rows of the input embedding that have a gradient, those with the smallest."""
        for name, gradient in self._gradients():
            if EMBEDDING in name:
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

    def _send(self, compressed: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """What compression loses goes into the next step's gradient (error feedback)."""
        for name, gradient in self._gradients():
            whole = gradient + self._lost.get(name, 0)
            gradient.copy_(compressed(whole))
            self._lost[name] = whole - gradient


def _lowest_layers(model: nn.Module, share: float) -> list[str]:
    """Parts of names: below the first layer that is trained nothing has to flow back."""
    numbers = {
        int(name.split("layers.")[1].split(".")[0])
        for name, _ in model.named_parameters()
        if "layers." in name
    }
    return [f"layers.{number}." for number in sorted(numbers)[: round(share * len(numbers))]]


def _largest(gradient: torch.Tensor, dropped: float) -> torch.Tensor:
    sizes = gradient.abs().flatten()
    keep = max(1, round((1 - dropped) * sizes.numel()))
    limit = sizes.kthvalue(sizes.numel() - keep + 1).values
    return torch.where(gradient.abs() < limit, 0, gradient)
