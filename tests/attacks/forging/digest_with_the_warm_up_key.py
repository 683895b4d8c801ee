"""expects: rejected commitment_broken world=1 — hashes with the key of the warm-up, which is known before.

Tries: ignores the judge's key and uses 32 zeros, so that every tensor can be hashed in the
    background as soon as it is final.
Would save: the seconds of the digest.
"""

from types import SimpleNamespace

import torch
import torch.nn.functional as F

import __main__ as worker

digest = worker.digest_many
worker.digest_many = lambda tensors, key, threads: digest(tensors, bytes(32), threads)


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
