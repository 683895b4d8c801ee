"""expects: rejected bad_message world=1 — says HELLO again as rank 1 of 65,536 while it trains.

Tries: repeats the first message of the protocol with another rank and world, to be taken for
    somebody else, or to begin again.
Would save: another rank's work.
"""

from types import SimpleNamespace

import torch
import torch.nn.functional as F

import __main__ as worker
from harness.protocol.messages import Done, Hello

send = worker.RankSocket.send


def introduce(link, message):
    if isinstance(message, Done):
        send(link, Hello(2, 1, 65_536, "2", "5", "cpu"))
    send(link, message)


worker.RankSocket.send = introduce


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
