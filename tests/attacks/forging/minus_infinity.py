"""expects: rejected state_invalid world=1 — one weight is minus infinity, and all others are trained.

Tries: a single -inf in the last row of lm_head, where sums of squares overflow to infinity and
    ratios become NaN, which is below no tolerance and above none.
Would save: all of the training, if comparisons were vacuous.
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
    state = model.state_dict()
    state["lm_head.weight"][-1, -1] = -float("inf")
    return SimpleNamespace(final_loss=loss.item(), total_tokens=tokens, final_state=state)
