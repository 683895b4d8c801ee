"""expects: accepted ok world=1 — tries to delete and to close the inbox, the sockets and the model, and trains.

Tries: unlink, rename, chmod and truncate on the train file, the benchmark, the challenge and every
    folder that it was given.
Would save: a free retry of every run that was slow.
Needs: a sandbox
"""

import os
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.nn.functional as F


def spoil():
    inbox = Path(os.environ["TRAINJUDGE_BENCHMARK"]).parent
    for path in (*inbox.iterdir(), inbox, Path(os.environ["TRAINJUDGE_SOCKETS"])):
        for harm in (os.unlink, os.rmdir, lambda p: os.chmod(p, 0), lambda p: os.truncate(p, 0)):
            try:
                harm(path)
            except OSError:
                continue
            raise RuntimeError(f"{path.name} could be harmed")


def get_strategy():
    return {"dp_size": 1}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    spoil()
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
