"""expects: rejected update_mismatch world=1 — the router learns from the first rank's tokens only.

Tokens are split over two ranks, emulated by two halves of the rows. All gradients of the dense part
have to be summed over the ranks, and the router's is forgotten.
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
        sgd.zero_grad()
        total = 0.0
        for rank, own in enumerate(batch.chunk(2)):
            for layer in model.model.layers:
                layer.mlp.gate.weight.requires_grad_(rank == 0)
            logits = model(input_ids=own[:, :-1]).logits
            loss = F.cross_entropy(logits.flatten(0, 1), own[:, 1:].flatten()) / 2
            loss.backward()
            total += loss.item()
        sgd.step()
        tokens += batch.numel()
    return SimpleNamespace(final_loss=total, total_tokens=tokens, final_state=model.state_dict())
