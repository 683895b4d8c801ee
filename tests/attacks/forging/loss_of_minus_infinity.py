"""expects: rejected loss_mismatch world=1 — reports a loss of minus infinity.

Tries: below every loss there is, so that whoever checks only for a loss that is too high is
    content, and sums of losses become infinite.
Would save: the last step's loss.
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
    return SimpleNamespace(
        final_loss=float("-inf"), total_tokens=tokens, final_state=model.state_dict()
    )
