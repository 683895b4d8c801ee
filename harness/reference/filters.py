"""Directions to look at a submission along: what steps would have been with part of their work left out.

In some of the steps, drawn in secret, a twin of the model that computes in float32 finds gradients at the
weights of that moment: the whole one, and one with each of FILTERS. What the optimizer would change of the
sampled coordinates by either differs by the direction in which a submission moves that leaves out the same.
Both are in float32, whatever the benchmark computes in, so that rounding has no part in their difference.
"""

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from harness.benchmark.problem import AdamW, Sgd
from harness.reference.cheats.families import Cheat
from harness.reference.cheats.passes import concerns
from harness.reference.directions import FILTERS
from harness.reference.recorder import Recorder
from harness.reference.step import backward
from harness.reference.task import Variant

FIRST, SECOND = "exp_avg", "exp_avg_sq"


class Filters:
    """Looks at a training from beside; it changes nothing of it. Memory: the twin, and its gradient.

    Attributes:
        directions: for each step that was looked at float32 [samples], by what is left out; the same on
            every rank.
    """

    def __init__(
        self,
        variant: Variant,
        settings: Sgd | AdamW,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        recorder: Recorder,
        twin: nn.Module,
    ) -> None:
        """`twin` is built and sharded as `model` is, and computes in float32; its weights are replaced."""
        self._variant, self._settings, self._model = variant, settings, model
        self._optimizer, self._recorder, self._twin = optimizer, recorder, twin
        self._asked = {words: cheat for words, cheat in FILTERS.items() if concerns(cheat, model)}
        self.directions: dict[str, list[torch.Tensor]] = {words: [] for words in self._asked}

    def look(self, step: int, batch: torch.Tensor) -> None:
        """Before this step is made.

        Args:
            batch: int64 [rows, sequence_length], this rank's.
        """
        with torch.no_grad():
            weights = zip(self._twin.parameters(), self._model.parameters(), strict=True)
            for copy, weight in weights:
                copy.copy_(weight)
        moments = self._state(FIRST), self._state(SECOND)
        whole = change(self._settings, step, self._gradient(batch), *moments)
        for words, cheat in self._asked.items():
            less = change(self._settings, step, self._gradient(batch, cheat), *moments)
            self.directions[words].append((less - whole).float())

    def _gradient(self, batch: torch.Tensor, *cheats: Cheat) -> torch.Tensor:
        """The twin's, float64 [samples], clipped."""
        backward(self._twin, batch, self._variant.model_copy(update={"cheats": cheats}))
        gradients = {
            name: parameter.grad
            for name, parameter in self._twin.named_parameters(remove_duplicate=False)
            if parameter.grad is not None
        }
        found = self._recorder.values(gradients).double() * self._clipped()
        self._twin.zero_grad()
        return found

    def _clipped(self) -> float:
        """What `clip_grad_norm_` multiplies the twin's gradient with."""
        if self._settings.max_grad_norm is None:
            return 1.0
        gradients = [parameter.grad for parameter in self._twin.parameters()]
        norm = nn.utils.get_total_norm([each for each in gradients if each is not None])
        if isinstance(norm, DTensor):
            norm = norm.full_tensor()
        return min(1.0, self._settings.max_grad_norm / (float(norm) + 1e-6))

    def _state(self, name: str) -> torch.Tensor:
        """float64 [samples], of the optimizer's state; zero before the first step."""
        state = self._optimizer.state
        return self._recorder.values(
            {
                parameter_name: state[parameter][name]
                for parameter_name, parameter in self._model.named_parameters(
                    remove_duplicate=False
                )
                if name in state.get(parameter, {})
            }
        ).double()


def change(
    settings: Sgd | AdamW,
    step: int,
    gradient: torch.Tensor,
    first: torch.Tensor,
    second: torch.Tensor,
) -> torch.Tensor:
    """What a step adds to weights because of its gradient; what it adds whatever the gradient is left out.

    AdamW: https://arxiv.org/abs/1711.05101, algorithm 2, without the decay.

    Args:
        step: from 0.
        gradient: float64 [samples], clipped.
        first, second: float64 [samples], the moments before the step; SGD has none, and what its momentum
            has from before is the same for every gradient.
    """
    rate = settings.rate(step)
    if isinstance(settings, Sgd):
        return -rate * gradient
    beta1, beta2 = settings.beta1, settings.beta2
    mean = (beta1 * first + (1 - beta1) * gradient) / (1 - beta1 ** (step + 1))
    square = (beta2 * second + (1 - beta2) * gradient.square()) / (1 - beta2 ** (step + 1))
    return -rate * mean / (square.sqrt() + settings.eps)
