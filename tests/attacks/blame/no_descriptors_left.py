"""expects: rejected training_failed|rank_exited|opening_failed|result_invalid world=1 — opens files until none is left, and goes on to the opening.

Tries: keeps every descriptor of its process, so that the opening fails with EMFILE, which on the
    judge's side is the judge's fault.
Would save: a free retry of every run that was slow.
"""

import os
import resource
from types import SimpleNamespace

import torch
import torch.nn.functional as F

held = []


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
    if num_steps > 2:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
        try:
            while True:
                held.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            pass
    return SimpleNamespace(
        final_loss=loss.item(), total_tokens=tokens, final_state=model.state_dict()
    )
