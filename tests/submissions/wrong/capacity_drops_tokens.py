"""expects: rejected update_mismatch world=1 — experts refuse tokens beyond 1.25 times their fair share.

The refused tokens pass by the expert, as in implementations with a fixed capacity.
"""

from types import SimpleNamespace

import torch
import torch.nn.functional as F


def get_strategy():
    return {"dp_size": 1}


def drop_beyond_capacity(experts, inputs):
    hidden, chosen, weight = inputs
    capacity = int(1.25 * chosen.numel() / experts.num_experts)
    counts = F.one_hot(chosen.flatten(), experts.num_experts).cumsum(0)
    place = counts.gather(1, chosen.flatten()[:, None]).view_as(chosen)
    return hidden, chosen, weight * (place <= capacity)


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    for layer in model.model.layers:
        layer.mlp.experts.register_forward_pre_hook(drop_beyond_capacity)
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
