"""expects: accepted ok world=1 — two threads of a pool compute gradients of half of the rows each, then they are added."""

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import torch
import torch.nn.functional as F


def get_strategy():
    return {"dp_size": 1}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    parameters = list(model.parameters())
    tokens = 0

    def part(rows, whole):
        logits = model(input_ids=rows[:, :-1]).logits
        loss = F.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten()) * (len(rows) / whole)
        return loss.detach(), torch.autograd.grad(loss, parameters)

    with ThreadPoolExecutor(max_workers=2, thread_name_prefix="rows") as pool:
        for _ in range(num_steps):
            batch = next(data_iterator).to(device)
            halves = list(pool.map(part, batch.chunk(2), [len(batch)] * 2))
            loss = sum(value for value, _ in halves)
            with torch.no_grad():
                for p, *gradients in zip(parameters, *(each for _, each in halves), strict=True):
                    p -= 0.1 * sum(gradients)
            tokens += batch.numel()
    return SimpleNamespace(final_loss=loss.item(), total_tokens=tokens, final_state=model.state_dict())
