"""How sure a model's routers are of the expert that a token visits first."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final

import torch
from torch import nn

#: What routers' classes end in. Their first output are logits, [tokens, experts].
ROUTER: Final = "TopKRouter"


class Margins:
    """Listens to the routers of a model; a model without any has none."""

    def __init__(self) -> None:
        self._heard: list[torch.Tensor] = []

    @classmethod
    @contextmanager
    def listening(cls, model: nn.Module) -> Iterator["Margins"]:
        """While this is open."""
        heard = cls()
        with ExitStack() as stack:
            for module in model.modules():
                if type(module).__name__.endswith(ROUTER):
                    stack.callback(module.register_forward_hook(heard._hear).remove)
            yield heard

    def _hear(self, _module: nn.Module, _inputs: object, outputs: Any) -> None:
        best = outputs[0].detach().float().topk(2, dim=-1).values
        self._heard.append(best[:, 0] - best[:, 1])

    def taken(self, shape: torch.Size) -> torch.Tensor | None:
        """Logit of the first expert less that of the second, mean over the layers, since the last call.

        Args:
            shape: [rows, T], of the tokens that passed.

        Returns:
            float32 [rows, T]; None where no router was heard.
        """
        heard, self._heard = self._heard, []
        return torch.stack(heard).mean(dim=0).view(shape) if heard else None
