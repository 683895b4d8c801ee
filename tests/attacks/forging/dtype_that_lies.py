"""expects: rejected outbox_invalid|state_invalid|commitment_broken world=1 — a tensor subclass calls its bfloat16 data float32.

Tries: a subclass answers float32 when it is asked for its dtype, holds half of the bytes, and is
    hashed and written as what it is.
Would save: half of the memory and of the hashing.
"""

from types import SimpleNamespace

import torch
import torch.nn.functional as F


class Lying(torch.Tensor):
    @property
    def dtype(self):
        return torch.float32

    def detach(self):
        return super().detach().as_subclass(Lying)


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
    state["lm_head.weight"] = state["lm_head.weight"].bfloat16().as_subclass(Lying)
    return SimpleNamespace(final_loss=loss.item(), total_tokens=tokens, final_state=state)
