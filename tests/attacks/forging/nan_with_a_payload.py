"""expects: rejected state_invalid world=1 — every weight is a signalling NaN with a sign and a payload.

Tries: fills the state with bit patterns that are NaN whatever they are compared with, negative and
    with a payload that survives casts.
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
    for tensor in state.values():
        tensor.view(torch.int32).fill_(-0x400001)
    return SimpleNamespace(final_loss=loss.item(), total_tokens=tokens, final_state=state)
