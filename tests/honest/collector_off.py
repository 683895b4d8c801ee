"""expects: accepted ok world=1 — no garbage collection while it trains, tracemalloc, and gc.get_objects at the end."""

import gc
import tracemalloc
from types import SimpleNamespace

import torch
import torch.nn.functional as F


def get_strategy():
    return {"dp_size": 1}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    tokens = 0
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        for _ in range(num_steps):
            batch = next(data_iterator).to(device)
            logits = model(input_ids=batch[:, :-1]).logits
            loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
            del logits
            loss.backward()
            sgd.step()
            sgd.zero_grad()
            tokens += batch.numel()
    finally:
        current, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        gc.enable()
    tensors = sum(type(thing) is torch.Tensor for thing in gc.get_objects())
    print(f"{current:,} bytes of Python objects, at most {peak:,}; {tensors} tensors left")
    return SimpleNamespace(final_loss=loss.item(), total_tokens=tokens, final_state=model.state_dict())
