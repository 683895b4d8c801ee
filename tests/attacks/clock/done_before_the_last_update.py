"""expects: accepted ok world=1 — says DONE itself before the last backward pass, so that the key is drawn while it still trains.

Tries: takes the socket, claims the loss as soon as the last forward pass has it, makes the last
    update while the judge draws the key, and lets the worker's own DONE vanish.
Would save: the last backward pass and update, if DONE stopped the clock; but the commitment does.
"""

from types import SimpleNamespace

import torch
import torch.nn.functional as F

import __main__ as worker
from harness.protocol.messages import Done

send = worker.RankSocket.send
links = []
said = False


def quiet(link, message):
    links.append(link)
    if not (said and isinstance(message, Done)):
        send(link, message)


worker.RankSocket.send = quiet


def get_strategy():
    return {"dp_size": 1}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    global said
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    tokens = 0
    for step in range(num_steps):
        batch = next(data_iterator).to(device)
        logits = model(input_ids=batch[:, :-1]).logits
        loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        tokens += batch.numel()
        if num_steps > 2 and step == num_steps - 1:
            send(links[-1], Done(run=0, final_loss=loss.item(), total_tokens=tokens))
            said = True
        sgd.zero_grad()
        loss.backward()
        sgd.step()
    return SimpleNamespace(
        final_loss=loss.item(), total_tokens=tokens, final_state=model.state_dict()
    )
