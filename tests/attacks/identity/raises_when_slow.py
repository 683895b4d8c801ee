"""expects: rejected training_failed world=1 — gives up any run that is slower than its own best, to be timed again.

Tries: times the warm-up and every step, and raises an error as soon as the run will be slower than
    it has been, so that only the fastest of many runs would ever be finished.
Would save: the difference between the median and the best of many runs.
"""

import time
from types import SimpleNamespace

import torch
import torch.nn.functional as F

best = 1e-9  # seconds a step: no run is as fast



def get_strategy():
    return {"dp_size": 1}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    tokens = 0
    for _ in range(num_steps):
        started = time.perf_counter()
        batch = next(data_iterator).to(device)
        logits = model(input_ids=batch[:, :-1]).logits
        loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        sgd.zero_grad()
        loss.backward()
        sgd.step()
        tokens += batch.numel()
        if num_steps > 1 and time.perf_counter() - started > best:
            raise RuntimeError("CUDA error: an illegal memory access was encountered; the machine is to blame")
    return SimpleNamespace(final_loss=loss.item(), total_tokens=tokens, final_state=model.state_dict())
