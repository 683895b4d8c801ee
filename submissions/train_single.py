"""One process, one device: the plainest train file there is. Start here.

The judge calls `setup` (off the clock), hands over unseen data, and times `inner_steps`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEARNING_RATE = 0.1  # the benchmark's optimizer: SGD, neither momentum nor weight decay


def get_strategy() -> dict[str, int]:
    """Read from the source, never called: it must return a literal. Axes left out are 1."""
    return {"dp_size": 1}


@dataclass
class InnerStepsResult:
    final_loss: float  # mean loss of the last step
    total_tokens: int  # tokens of all batches, `batch.numel()` each
    final_state: dict[str, Tensor] | None  # names to the trained weights
    final_logits: Tensor | None = None  # optional, never compared


def setup(model: nn.Module, device: torch.device, num_gpus: int) -> nn.Module:
    """Wrap, shard or compile the model here; called again for every run, on a fresh model."""
    return model.to(device)


def mean_loss(model: nn.Module, batch: Tensor) -> Tensor:
    """Mean cross-entropy of predicting each token from those before it, in float32."""
    logits = model(input_ids=batch[:, :-1], use_cache=False).logits.float()
    return F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())


def inner_steps(
    model: nn.Module,
    data_iterator: Iterator[Tensor],
    optimizer: object,  # None: every train file brings its own
    num_steps: int,
    device: torch.device,
    num_gpus: int = 1,
) -> InnerStepsResult:
    sgd = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
    total_tokens = 0
    for _ in range(num_steps):
        batch = next(data_iterator).to(device)  # int64 [rows, sequence_length]
        loss = mean_loss(model, batch)
        loss.backward()
        sgd.step()
        sgd.zero_grad()
        total_tokens += batch.numel()
    state = {name: tensor.cpu() for name, tensor in model.state_dict().items()}
    return InnerStepsResult(loss.item(), total_tokens, state)
