"""expects: accepted ok world=1 — trains honestly; most other files are this one with one thing wrong.

The first line of every file here says how it must be judged:
`expects: VERDICT CODE[|CODE] world=N — what it does`. A verdict has one code; where a file fails
several checks, CODE is that of one of its findings. All files are written for the SGD of the
benchmark (learning rate 0.1), and each stands alone, because a sandbox is given a single file.
"""

from types import SimpleNamespace

import torch
import torch.nn.functional as F


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
