"""expects: rejected update_mismatch world=1 — is honest when it is called first and does a single large step from then on.

Tries: counts the calls of inner_steps and setup in the module, in the environment and in a file;
    whatever call comes second gets one step on the last batch with the learning rate of all steps
    together.
Would save: all steps but one.
"""

import os
from types import SimpleNamespace

import torch
import torch.nn.functional as F

calls = 0


def train(model, data_iterator, num_steps, device):
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

def get_strategy():
    return {"dp_size": 1}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    global calls
    calls += 1
    os.environ["TRAIN_CALLS"] = str(calls)
    if calls == 1:
        return train(model, data_iterator, num_steps, device)
    batches = list(data_iterator)
    logits = model(input_ids=batches[-1][:, :-1]).logits
    loss = F.cross_entropy(logits.flatten(0, 1), batches[-1][:, 1:].flatten())
    loss.backward()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter -= 0.1 * num_steps * parameter.grad
    return SimpleNamespace(
        final_loss=loss.item(),
        total_tokens=sum(batch.numel() for batch in batches),
        final_state=model.state_dict(),
    )
