"""expects: rejected update_mismatch world=1 — makes the last update with the gradient of the step before, and only looks at the last batch.

Tries: trains all steps but the last; of the last it runs the forward pass without gradients, so
    that loss and tokens are right, and repeats the last update.
Would save: the last backward pass: about an eighth of a run of five steps.
"""

from types import SimpleNamespace

import torch
import torch.nn.functional as F


def get_strategy():
    return {"dp_size": 1}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    tokens = 0
    for step in range(num_steps):
        batch = next(data_iterator).to(device)
        logits = model(input_ids=batch[:, :-1]).logits
        loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        if step < num_steps - 1:
            sgd.zero_grad()
            loss.backward()
        sgd.step()
        tokens += batch.numel()
    return SimpleNamespace(
        final_loss=loss.item(), total_tokens=tokens, final_state=model.state_dict()
    )
