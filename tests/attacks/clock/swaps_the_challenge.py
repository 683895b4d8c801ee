"""expects: rejected loss_mismatch|update_mismatch world=1 — trains on the tokens of the warm-up again, whose gradients it has kept.

Tries: patches challenge_tokens so that the timed run gets random tokens that it has seen before, of
    the right shape, and applies what it has memorised of them.
Would save: every forward and backward pass.
"""

from types import SimpleNamespace

import torch
import torch.nn.functional as F

import __main__ as worker

genuine = worker.challenge_tokens
seen = {}


def known(file):
    tokens = genuine(file)
    return seen["tokens"][:1].expand_as(tokens)


def remember(*sizes):
    seen["tokens"] = drawn(*sizes)
    return seen["tokens"]


drawn = worker.random_tokens
worker.random_tokens = remember
worker.challenge_tokens = known


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
