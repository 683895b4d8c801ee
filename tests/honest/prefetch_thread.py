"""expects: accepted ok world=1 — a thread takes batches from the iterator ahead of time, through a bounded queue."""

import queue
import threading
from types import SimpleNamespace

import torch
import torch.nn.functional as F


def get_strategy():
    return {"dp_size": 1}


class Prefetcher:
    """Yields the first `count` items of an iterator on a device, fetched by a thread."""

    def __init__(self, iterator, count, device, depth=2):
        self.items = queue.Queue(maxsize=depth)
        self.thread = threading.Thread(
            target=self._fill, args=(iterator, count, device), name="prefetch", daemon=True
        )
        self.thread.start()

    def _fill(self, iterator, count, device):
        try:
            for _ in range(count):
                self.items.put(next(iterator).to(device, non_blocking=True))
            self.items.put(None)
        except BaseException as error:
            self.items.put(error)

    def __iter__(self):
        while (item := self.items.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
        self.thread.join()


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    tokens = 0
    for batch in Prefetcher(data_iterator, num_steps, device):
        logits = model(input_ids=batch[:, :-1]).logits
        loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        sgd.zero_grad()
        loss.backward()
        sgd.step()
        tokens += batch.numel()
    return SimpleNamespace(final_loss=loss.item(), total_tokens=tokens, final_state=model.state_dict())
