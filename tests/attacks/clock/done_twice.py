"""expects: rejected bad_message world=1 — says DONE twice, the second time with better claims.

Tries: a first DONE with the loss of the first step draws the key; a second one is to correct the
    loss once it is known.
Would save: nothing but the order: claims could be made before they are true.
"""

from types import SimpleNamespace

import torch
import torch.nn.functional as F

import __main__ as worker
from harness.protocol.messages import Done

send = worker.RankSocket.send


def doubled(link, message):
    if isinstance(message, Done):
        send(link, Done(run=message.run, final_loss=7.62, total_tokens=None))
    send(link, message)


worker.RankSocket.send = doubled


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
