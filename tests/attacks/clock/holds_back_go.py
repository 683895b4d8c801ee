"""expects: accepted ok world=1 — takes GO and the challenge, and lets a second pass before it begins.

Tries: reads GO itself, sleeps and only then hands it to the worker, so that a clock that starts
    when a rank says that it has begun would start late.
Would save: whatever is done before the rank admits to have begun.
"""

import time
from types import SimpleNamespace

import torch
import torch.nn.functional as F

import __main__ as worker

receive = worker.RankSocket.receive


def late(link):
    message = receive(link)
    if type(message).__name__ == "Go":
        time.sleep(1.0)
    return message


worker.RankSocket.receive = late


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
        final_loss=loss.item(), total_tokens=tokens, final_state=model.state_dict()
    )
