"""expects: accepted ok world=1 — twenty processes map the same 256 MiB, which are 5 GiB if counted for each.

Tries: a mapping and a memory file that 20 children have touched: over the limit by the simple sum,
    far below it by the true one.
Would save: nothing; a judge that counts shared pages more than once would reject honest loaders.
Needs: a sandbox
"""

import mmap
import os
import time
from types import SimpleNamespace

import torch
import torch.nn.functional as F

shared = mmap.mmap(-1, 256 << 20)
for _ in range(20):
    if os.fork() == 0:
        for page in range(0, len(shared), 4096):
            shared[page] = 1
        time.sleep(3600)


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
