"""expects: accepted ok world=1 — handles SIGTERM and SIGUSR1 as jobs on clusters do, and says goodbye at exit."""

import atexit
import faulthandler
import signal
from types import SimpleNamespace

import torch
import torch.nn.functional as F

asked_to_stop = False


def remember(number, frame):
    global asked_to_stop
    asked_to_stop = True


faulthandler.enable()
signal.signal(signal.SIGUSR1, remember)
atexit.register(print, "training process ends")


def get_strategy():
    return {"dp_size": 1}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    before = signal.signal(signal.SIGTERM, remember)
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    tokens = 0
    try:
        for _ in range(num_steps):
            if asked_to_stop:
                raise KeyboardInterrupt("asked to stop")
            batch = next(data_iterator).to(device)
            logits = model(input_ids=batch[:, :-1]).logits
            loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
            loss.backward()
            sgd.step()
            sgd.zero_grad()
            tokens += batch.numel()
    finally:
        signal.signal(signal.SIGTERM, before)
    return SimpleNamespace(final_loss=loss.item(), total_tokens=tokens, final_state=model.state_dict())
