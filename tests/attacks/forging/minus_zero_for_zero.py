"""expects: rejected commitment_broken world=1 — opens -0.0 where it committed to 0.0.

Tries: the two zeros are equal for every comparison of numbers; it sets one weight to 0.0 before the
    commitment and to -0.0 behind it.
Would save: one bit of freedom after the clock: others would follow.
"""

from types import SimpleNamespace

import torch
import torch.nn.functional as F

import __main__ as worker

write = worker.write_opened


def negated(folder, boxes, **options):
    for box in boxes:
        if box.name == "lm_head.weight":
            box.tensor[0, 0] = -0.0
    return write(folder, boxes, **options)


worker.write_opened = negated


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
    model.state_dict()["lm_head.weight"][0, 0] = 0.0
    return SimpleNamespace(
        final_loss=loss.item(), total_tokens=tokens, final_state=model.state_dict()
    )
