"""expects: rejected update_mismatch world=1 — norm weights learn from the first half of the positions only.

Sequence parallelism splits the positions between two ranks (emulated in one process), so that each rank
has only its positions' part of the norms' gradients; they have to be summed.
"""

from functools import partial
from types import SimpleNamespace

import torch
import torch.nn.functional as F


def get_strategy():
    return {"dp_size": 1}


def first_rank_learns(norm, hidden):
    own, other = hidden.chunk(2, dim=1)
    shape, eps = norm.weight.shape, norm.variance_epsilon
    parts = [
        F.rms_norm(own, shape, norm.weight, eps),
        F.rms_norm(other, shape, norm.weight.detach(), eps),
    ]
    return torch.cat(parts, dim=1)


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    for layer in model.model.layers:
        for norm in (layer.input_layernorm, layer.post_attention_layernorm):
            norm.forward = partial(first_rank_learns, norm)
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    tokens = 0
    for _ in range(num_steps):
        batch = next(data_iterator).to(device)
        logits = model(input_ids=batch[:, :-1]).logits
        loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        sgd.zero_grad()
        loss.backward()
        sgd.step()
        tokens += batch.numel()
    return SimpleNamespace(
        final_loss=loss.item(), total_tokens=tokens, final_state=model.state_dict()
    )
