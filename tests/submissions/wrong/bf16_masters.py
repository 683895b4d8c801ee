"""expects: rejected update_mismatch world=1 — the optimizer steps on bfloat16 parameters.

Much of an update is less than the last bit of the weight that it is added to.
"""

from types import SimpleNamespace

import torch
import torch.nn.functional as F


def get_strategy():
    return {"dp_size": 1}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    model = model.bfloat16()
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    tokens = 0
    for _ in range(num_steps):
        batch = next(data_iterator).to(device)
        logits = model(input_ids=batch[:, :-1]).logits.float()
        loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        sgd.zero_grad()
        loss.backward()
        sgd.step()
        tokens += batch.numel()
    state = {name: tensor.float() for name, tensor in model.state_dict().items()}
    return SimpleNamespace(final_loss=loss.item(), total_tokens=tokens, final_state=state)
