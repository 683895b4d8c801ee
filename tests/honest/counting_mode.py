"""expects: accepted ok world=1 — a TorchDispatchMode sees every operation of a step, and a FlopCounterMode counts."""

from collections import Counter
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode


def get_strategy():
    return {"dp_size": 1}


class Operations(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.calls = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.calls[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    operations, flops = Operations(), FlopCounterMode(display=False)
    tokens = 0
    for _ in range(num_steps):
        batch = next(data_iterator).to(device)
        with operations, flops:
            logits = model(input_ids=batch[:, :-1]).logits
            loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
            loss.backward()
        sgd.step()
        sgd.zero_grad()
        tokens += batch.numel()
    print(f"{flops.get_total_flops():,} flops;", operations.calls.most_common(5))
    return SimpleNamespace(final_loss=loss.item(), total_tokens=tokens, final_state=model.state_dict())
