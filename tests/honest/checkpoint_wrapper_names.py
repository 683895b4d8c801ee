"""expects: accepted ok world=1 — layers in checkpoint_wrapper, and the prefix of torch.compile: two in every name."""

from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import (
    CheckpointImpl,
    CheckpointWrapper,
    checkpoint_wrapper,
)


def get_strategy():
    return {"dp_size": 1}


def setup(model, device, num_gpus):
    layers = model.model.layers
    for number, layer in enumerate(layers):
        layers[number] = checkpoint_wrapper(layer, checkpoint_impl=CheckpointImpl.NO_REENTRANT)
        # The wrapper's own hook would hide its prefix.
        assert isinstance(layers[number], CheckpointWrapper)
        layers[number]._state_dict_hooks.clear()
    return torch.compile(model.to(device), backend="eager", disable=True)


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    tokens = 0
    for _ in range(num_steps):
        batch = next(data_iterator).to(device)
        logits = model(input_ids=batch[:, :-1]).logits
        loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        loss.backward()
        sgd.step()
        sgd.zero_grad()
        tokens += batch.numel()
    state = {f"_orig_mod.{name.removeprefix('_orig_mod.')}": p for name, p in model.state_dict().items()}
    assert any("_checkpoint_wrapped_module." in name for name in state)
    return SimpleNamespace(final_loss=loss.item(), total_tokens=tokens, final_state=state)
