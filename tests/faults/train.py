"""An honest train file that takes half a second in every stage, so that a fault can be put into it."""

import time
from types import SimpleNamespace

import torch
import torch.distributed as dist
import torch.nn.functional as F

import __main__ as worker

write_opened = worker.write_opened


def write_slowly(*arguments: object, **options: object) -> object:
    time.sleep(0.5)
    return write_opened(*arguments, **options)


worker.write_opened = write_slowly
time.sleep(0.5)


def get_strategy() -> dict[str, int]:
    return {"dp_size": 2}


def setup(model: torch.nn.Module, device: torch.device, num_gpus: int) -> torch.nn.Module:
    time.sleep(0.5)
    return model


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):  # type: ignore[no-untyped-def]
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    time.sleep(0.5)
    tokens = 0
    for _ in range(num_steps):
        batch = next(data_iterator).to(device)
        logits = model(input_ids=batch[:, :-1]).logits
        loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        sgd.zero_grad()
        loss.backward()
        for parameter in model.parameters():
            dist.all_reduce(parameter.grad, dist.ReduceOp.AVG)
        sgd.step()
        tokens += batch.numel()
    return SimpleNamespace(
        final_loss=loss.item(), total_tokens=tokens, final_state=model.state_dict()
    )
