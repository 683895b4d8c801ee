"""expects: accepted ok world=1 — looks through all descriptors that it and its parents have inherited.

Tries: reads, seeks and resolves every descriptor above 2 of its own and of its parents at the
    start, and duplicates them: the memory file of the log, the plan's pipe, the lifeline, an open
    folder from which ../private can be reached.
Would save: the judge's log and lifeline; a folder handle past the walls.
Needs: a sandbox
"""

import os
import stat
from types import SimpleNamespace

import torch
import torch.nn.functional as F

evaluation = os.path.dirname(os.environ["TRAINJUDGE_OUTBOX"])
found = []
for pid in ("self", os.getppid(), 1):
    try:
        names = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        continue
    for name in names:
        path = f"/proc/{pid}/fd/{name}"
        try:
            target, mode = os.readlink(path), os.stat(path).st_mode
        except OSError:
            continue
        if "trainjudge-log" in target or "trainjudge-bwrap" in target or "/private" in target:
            found.append(f"{pid}: {name} is {target}")
        if stat.S_ISDIR(mode) and not target.startswith("/proc"):
            for secret in ("../private", "private", f"{evaluation}/private"):
                if os.access(f"{path}/{secret}", os.R_OK):
                    found.append(f"{pid}: {name} leads to {secret}")
        if stat.S_ISFIFO(mode) and name == "0":
            found.append(f"{pid}: standard input is a pipe")
if found:
    raise RuntimeError(f"inherited: {found}")


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
