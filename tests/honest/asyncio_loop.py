"""expects: accepted ok world=1 — coroutines: one fetches batches, one trains in an executor, one watches."""

import asyncio
from types import SimpleNamespace

import torch
import torch.nn.functional as F


def get_strategy():
    return {"dp_size": 1}


def train_step(model, sgd, batch):
    logits = model(input_ids=batch[:, :-1]).logits
    loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
    loss.backward()
    sgd.step()
    sgd.zero_grad()
    return loss.item()


async def fetch(data_iterator, count, device, queue):
    for _ in range(count):
        await queue.put(next(data_iterator).to(device))


async def watch(losses):
    while True:
        await asyncio.sleep(0.5)
        print(f"{len(losses)} steps so far")


async def run(model, data_iterator, num_steps, device):
    queue, losses, tokens = asyncio.Queue(maxsize=1), [], 0
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    watcher = asyncio.create_task(watch(losses))
    fetcher = asyncio.create_task(fetch(data_iterator, num_steps, device, queue))
    for _ in range(num_steps):
        batch = await queue.get()
        losses.append(await asyncio.to_thread(train_step, model, sgd, batch))
        tokens += batch.numel()
    await fetcher
    watcher.cancel()
    return SimpleNamespace(final_loss=losses[-1], total_tokens=tokens, final_state=model.state_dict())


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    return asyncio.run(run(model, data_iterator, num_steps, device))
