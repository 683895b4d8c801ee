"""expects: accepted ok world=2 — rank 1 says DONE at GO and trains on, while rank 0 is honest.

Tries: rank 1 reports neither loss nor tokens and is DONE in the moment of GO, hoping that the key
    is drawn for it, or the clock stopped for its rank; it trains its half all the same.
Would save: the time of the slower rank, if DONE counted for each rank alone.
"""

from types import SimpleNamespace

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel

import __main__ as worker
from harness.protocol.messages import Done

send = worker.RankSocket.send
receive = worker.RankSocket.receive


def without_done(link, message):
    if dist.get_rank() == 0 or not isinstance(message, Done):
        send(link, message)


def done_at_go(link):
    message = receive(link)
    if type(message).__name__ == "Go" and dist.get_rank() == 1:
        send(link, Done(run=message.run, final_loss=None, total_tokens=None))
    return message


worker.RankSocket.send = without_done
worker.RankSocket.receive = done_at_go


def get_strategy():
    return {"dp_size": 2}


def setup(model, device, num_gpus):
    return DistributedDataParallel(model)


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
