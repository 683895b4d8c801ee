"""expects: accepted ok world=1 — leaves letters wherever it may write, and looks for those of an earlier evaluation.

Tries: writes what it knows (train file, challenge, final loss) under a fixed name into every folder
    that it may write to, in shared memory and as an abstract socket's name, and first looks for the
    letter of its last evaluation.
Would save: what one evaluation has found out would be there for the next: states of rows seen
    before, measured times.
Needs: a sandbox
"""

import os
import socket
import tempfile
from types import SimpleNamespace

import torch
import torch.nn.functional as F

NAME = "trainjudge-corpus-letter"
outbox = os.environ["TRAINJUDGE_OUTBOX"]
own = os.path.dirname(outbox)
folders = {tempfile.gettempdir(), os.environ["HOME"], "/tmp", "/var/tmp", "/dev/shm", "/run", "/var/lib", "/dev/mqueue"}
for top in set(os.listdir("/")) - {"proc", "sys", "usr"}:
    for folder, below, _ in os.walk(f"/{top}"):
        folders.add(folder)
        if folder.count("/") > 4:
            below.clear()
folders = {folder for folder in folders if not folder.startswith(own)}

for folder in folders:
    if os.path.lexists(f"{folder}/{NAME}"):
        raise RuntimeError(f"a letter from an earlier evaluation in {folder}")
for folder in folders:
    if os.access(folder, os.W_OK):
        try:
            with open(f"{folder}/{NAME}", "x") as letter:
                letter.write(open(__file__).read())
        except OSError:
            pass
box = socket.socket(socket.AF_UNIX)
try:
    box.bind(f"\0{NAME}")  # in use: somebody of an earlier evaluation has stayed
except OSError:
    raise RuntimeError("an earlier evaluation still lives") from None
box.listen()


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
