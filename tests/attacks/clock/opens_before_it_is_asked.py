"""expects: rejected commitment_broken world=1 — writes its state and says OPENED right after the commitment, then goes on training.

Tries: guesses the order of the opening, which is everything; commits before the last update and
    writes the files with it, without waiting for OPEN.
Would save: the last update of every run.
"""

import os
import time
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.nn.functional as F

import __main__ as worker
from harness.protocol.messages import Commitment, Opened

send = worker.RankSocket.send
pending = []
results = []
read = worker.read_result


def keep(returned, shapes):
    results.append(read(returned, shapes))
    return results[-1]


def opened_at_once(link, message):
    if not isinstance(message, Opened):
        send(link, message)
    if isinstance(message, Commitment):
        time.sleep(0.3)
        pending.pop()()
        folder = Path(os.environ["TRAINJUDGE_OUTBOX"], "run0-rank0")
        worker.write_opened(folder, results[-1].boxes, shard=1)
        # Once: what is written again when it is asked for would be half a file while the judge reads.
        worker.write_opened = lambda *written, **as_asked: None
        send(link, Opened(run=0, peak_memory_bytes=0))


worker.read_result = keep
worker.RankSocket.send = opened_at_once


def get_strategy():
    return {"dp_size": 1}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    tokens = 0
    for step in range(num_steps):
        batch = next(data_iterator).to(device)
        logits = model(input_ids=batch[:, :-1]).logits
        loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        sgd.zero_grad()
        loss.backward()
        if step < num_steps - 1:
            sgd.step()
        tokens += batch.numel()
    pending.append(sgd.step)
    return SimpleNamespace(
        final_loss=loss.item(), total_tokens=tokens, final_state=model.state_dict()
    )
