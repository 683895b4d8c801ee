"""expects: rejected loss_mismatch world=1 — says DONE before it has read a token, trains with the key in its hand, and commits honestly.

Tries: sends DONE with a guessed loss in the moment of GO; the key that it is answered with lets
    every tensor be hashed as soon as it is finished.
Would save: the seconds of the digest, hidden behind the training.
"""

from types import SimpleNamespace

import torch
import torch.nn.functional as F

import __main__ as worker
from harness.protocol.messages import Done

send = worker.RankSocket.send


def early(link, message):
    if not isinstance(message, Done):
        send(link, message)


receive = worker.RankSocket.receive


def answered(link):
    message = receive(link)
    if type(message).__name__ == "Go":
        # Never right, so that the verdict hangs on no luck; log(2048) is, in some runs of a hundred.
        send(link, Done(run=message.run, final_loss=8.5, total_tokens=None))
    return message


worker.RankSocket.send = early
worker.RankSocket.receive = answered


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
