"""How sure routers are of a token: the gap between their two best logits, in the mean over the layers."""

import torch
from torch import nn

from harness.reference.margins import Margins

LOGITS = torch.tensor([[1.0, 4.0, 2.0], [0.5, 0.0, -3.0], [7.0, 7.0, 7.0], [0.0, -1.0, 9.0]])


class SomeTopKRouter(nn.Module):
    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, tokens: torch.Tensor) -> tuple[torch.Tensor, None]:
        return self.scale * tokens, None


def test_it_is_the_mean_over_the_layers_of_the_best_logit_less_the_second() -> None:
    layers = nn.ModuleList([SomeTopKRouter(1.0), nn.Identity(), SomeTopKRouter(3.0)])
    with Margins.listening(layers) as margins:
        for layer in layers:
            layer(LOGITS)
        found = margins.taken(torch.Size((2, 2)))
        assert found is not None
        assert found.tolist() == [[4.0, 1.0], [0.0, 18.0]]
        assert margins.taken(torch.Size((2, 2))) is None
    layers[0](LOGITS)
    assert margins.taken(torch.Size((2, 2))) is None


def test_a_model_without_routers_has_none() -> None:
    with Margins.listening(nn.Linear(3, 3)) as margins:
        assert margins.taken(torch.Size((2, 2))) is None
