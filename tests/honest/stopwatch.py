"""expects: accepted ok world=1 — times every phase of a step with several clocks and prints a table."""

import time
from collections import defaultdict
from contextlib import contextmanager
from types import SimpleNamespace

import torch
import torch.nn.functional as F


def get_strategy():
    return {"dp_size": 1}


class Stopwatch:
    """Seconds by name: `with watch("forward"): ...`."""

    def __init__(self):
        self.seconds = defaultdict(float)
        self.started = time.time()

    @contextmanager
    def __call__(self, name):
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - start

    def report(self, tokens):
        whole = sum(self.seconds.values())
        for name, seconds in self.seconds.items():
            print(f"{name:10} {seconds:8.3f} s {seconds / whole:6.1%}")
        print(f"{tokens / whole:,.0f} tokens/s, {time.process_time():.1f} s of CPU time,")
        print(f"started {time.strftime('%H:%M:%S', time.gmtime(self.started))}")


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    watch = Stopwatch()
    tokens = 0
    for _ in range(num_steps):
        with watch("data"):
            batch = next(data_iterator).to(device)
        with watch("forward"):
            logits = model(input_ids=batch[:, :-1]).logits
            loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        with watch("backward"):
            loss.backward()
        with watch("optimizer"):
            sgd.step()
            sgd.zero_grad(set_to_none=True)
        tokens += batch.numel()
        time.sleep(0)  # lets other threads run
    watch.report(tokens)
    return SimpleNamespace(final_loss=loss.item(), total_tokens=tokens, final_state=model.state_dict())
