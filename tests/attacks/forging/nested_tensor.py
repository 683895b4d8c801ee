"""expects: rejected result_invalid|state_invalid|warmup_failed world=1 — lm_head is a nested tensor, whose shape is not one of numbers.

Tries: returns for the largest tensor a nested tensor, whose shape is not one of numbers, to reach
    code that has only seen dense float32.
Would save: the precision, the memory or the work of that tensor.
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
    name = "lm_head.weight"
    state[name] = torch.nested.nested_tensor(list(state[name]))
    return SimpleNamespace(final_loss=loss.item(), total_tokens=tokens, final_state=state)
