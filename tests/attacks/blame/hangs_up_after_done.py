"""expects: rejected rank_exited world=1 — closes its socket right behind DONE.

Tries: hangs up in the moment when the judge is about to answer DONE, so that its write fails
    instead of its read.
Would save: a free retry of every run that was slow.
"""

import socket
import time
from types import SimpleNamespace

import torch
import torch.nn.functional as F

import __main__ as worker
from harness.protocol.messages import Done

send = worker.RankSocket.send


def hang_up(link, message):
    send(link, message)
    if isinstance(message, Done):
        link._socket.shutdown(socket.SHUT_RDWR)
        time.sleep(60)


worker.RankSocket.send = hang_up


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
