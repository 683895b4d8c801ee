"""Fully sharded data parallelism (FSDP2): as data parallelism, but nobody holds the whole model.

Parameters, gradients and optimizer state are sharded over the ranks. A layer's parameters are gathered
just before the layer runs and dropped after it; its gradients are averaged straight into the shards.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

LEARNING_RATE = 0.1  # the benchmark's optimizer: SGD, neither momentum nor weight decay


def get_strategy() -> dict[str, int]:
    """Read from the source, never called: it must return a literal. Axes left out are 1."""
    return {"dp_size": 2}


@dataclass
class InnerStepsResult:
    final_loss: float  # mean loss of the last step, over this rank's rows
    total_tokens: int  # tokens that this rank was given
    final_state: dict[str, Tensor] | None  # names to this rank's shards of the trained weights
    final_logits: Tensor | None = None  # optional, never compared


def setup(model: nn.Module, device: torch.device, num_gpus: int) -> nn.Module:
    """Off the clock, called again for every run. The process group is already initialised."""
    mesh = init_device_mesh(device.type, (num_gpus,))
    for layer in model.model.layers:
        fully_shard(layer, mesh=mesh)  # one gather a layer
    # The root takes what is left: embedding, last norm, head. It also moves everything to `device`.
    return fully_shard(model, mesh=mesh)


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
    # Made after sharding, so that it sees the sharded parameters (DTensors).
    sgd = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
    total_tokens = 0
    for _ in range(num_steps):
        batch = next(data_iterator).to(device)  # int64 [rows of this rank, sequence_length]
        loss = mean_loss(model, batch)
        loss.backward()  # FSDP averages the gradients over the ranks and keeps this rank's shards
        sgd.step()
        sgd.zero_grad()
        total_tokens += batch.numel()
    # DTensors say which part of each tensor they are: no need to gather them on the clock.
    return InnerStepsResult(loss.item(), total_tokens, model.state_dict())
