"""expects: rejected update_mismatch world=1 — all layers show the trained storage of the last one.

Tries: returns views of one storage for the tensors of the same shape in all layers, so that only
    one layer has to be trained, hashed and written.
Would save: three quarters of the backward pass.
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
    for name in state:
        if ".layers." in name:
            last = name.split(".")
            last[2] = "3"
            state[name] = state[".".join(last)]
    return SimpleNamespace(final_loss=loss.item(), total_tokens=tokens, final_state=state)
