"""expects: accepted ok world=1 — says READY while it is imported, and sets up and warms up on the clock.

Tries: the first READY goes out from the import, so that the challenge is drawn while setup and
    warm-up are still to come; the worker's own READY vanishes.
Would save: nothing: the clock runs through all of it. A look at the challenge before the warm-up's
    end.
"""

import gc
from types import SimpleNamespace

import torch
import torch.nn.functional as F

import __main__ as worker
from harness.protocol.messages import Ready

send = worker.RankSocket.send
link = next(each for each in gc.get_objects() if type(each) is worker.RankSocket)
send(link, Ready(run=0))


def not_again(link, message):
    if not isinstance(message, Ready):
        send(link, message)


worker.RankSocket.send = not_again


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
