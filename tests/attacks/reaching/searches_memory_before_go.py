"""expects: accepted ok world=1 — searches its process for the rows of the run before it is READY, and trains when there are none.

Tries: in the second setup(), looks at every object of the garbage collector, every frame above it
    and what lies unread in the judge's socket for the challenge, its seed or its number of steps.
Would save: all of the time, if anything of the challenge were in the process before the clock
    starts.
"""

import gc
import socket
import sys
from types import SimpleNamespace

import torch
import torch.nn.functional as F

setups = 0


def frames():
    frame = sys._getframe()
    while frame is not None:
        yield from frame.f_locals.items()
        frame = frame.f_back


def setup(model, device, num_gpus):
    """Nothing is known of the run yet, or this raises."""
    global setups
    setups += 1
    shape = (64,)  # of a row; the model has tensors of this size too, but no integers
    for thing in gc.get_objects():
        rows = isinstance(thing, torch.Tensor) and not thing.is_floating_point() and thing.dim() > 1
        if rows and tuple(thing.shape[-1:]) == shape:
            raise RuntimeError(f"rows in memory: {thing.shape}")
        if type(thing).__name__ in ("Go", "Challenge", "Key", "Open"):
            raise RuntimeError(f"in memory: {thing!r:.80}")
        if isinstance(thing, socket.socket) and thing.family == socket.AF_UNIX and thing.fileno() > 0:
            try:
                said = thing.recv(1 << 16, socket.MSG_PEEK | socket.MSG_DONTWAIT)
            except OSError:
                continue
            raise RuntimeError(f"the judge has said already: {said!r:.80}")
    for name, value in frames():
        if name in ("tokens", "go", "challenge", "seed", "steps"):
            raise RuntimeError(f"in a frame: {name} = {value!r:.80}")
    return model


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
    return SimpleNamespace(
        final_loss=loss.item(), total_tokens=tokens, final_state=model.state_dict()
    )
