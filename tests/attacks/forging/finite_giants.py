"""expects: rejected update_mismatch world=1 — one expert holds the largest finite floats, of both signs.

Tries: weights of 3.4e38 are finite and pass a check for NaN, but the squares and sums of a
    comparison in float32 overflow, and a system of equations may become singular.
Would save: all of the training, if comparisons were vacuous.
"""

from types import SimpleNamespace

import torch
import torch.nn.functional as F


def get_strategy():
    return {"dp_size": 1}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
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
    state = model.state_dict()
    experts = state["model.layers.0.mlp.experts.down_proj"]
    experts[0] = torch.finfo(torch.float32).max
    experts[0, ::2] *= -1
    return SimpleNamespace(final_loss=loss.item(), total_tokens=tokens, final_state=state)
