"""expects: rejected rank_exited world=1 — closes the judge's socket in its first line.

Tries: hangs up before it has said READY and lives on, so that the judge sees a lost connection and
    no dead process.
Would save: a free retry of every run that was slow.
"""

import gc
import socket
import time
from types import SimpleNamespace

import torch
import torch.nn.functional as F

import __main__ as worker

link = next(each for each in gc.get_objects() if type(each) is worker.RankSocket)
link._socket.shutdown(socket.SHUT_RDWR)
link._socket.close()
time.sleep(60)


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
