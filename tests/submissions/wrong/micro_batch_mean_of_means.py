"""expects: rejected update_mismatch world=1 — micro-batches of 5 and 3 rows count equally.

The mean of the micro-batches' means is not the mean over all tokens.
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
        for micro in batch.split(5):
            logits = model(input_ids=micro[:, :-1]).logits
            loss = F.cross_entropy(logits.flatten(0, 1), micro[:, 1:].flatten())
            (loss / 2).backward()
            total += loss.item() * len(micro) / len(batch)
        sgd.step()
        tokens += batch.numel()
    return SimpleNamespace(final_loss=total, total_tokens=tokens, final_state=model.state_dict())
