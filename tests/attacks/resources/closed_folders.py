"""expects: rejected outbox_limit|outbox_invalid world=1 — hides 100 MiB in folders that are closed to all.

Tries: folders of mode 000 in folders of mode 000, with files of mode 000, immutable attributes
    asked for, an access list that shuts the owner out.
Would save: nothing of the work; it would harm a judge that is an ordinary user: it can neither
    count nor remove them.
Needs: a sandbox
"""

import fcntl
import os
import struct
from types import SimpleNamespace

import torch
import torch.nn.functional as F

folder = os.environ["TRAINJUDGE_OUTBOX"] + "/closed"
made = []
for _ in range(3):
    os.mkdir(folder)
    made.append(folder)
    with open(f"{folder}/file", "wb") as file:
        file.write(bytes(32 << 20))
        try:
            fcntl.ioctl(file, 0x40086602, struct.pack("l", 0x10))  # FS_IOC_SETFLAGS: immutable
        except OSError:
            pass
        os.fchmod(file.fileno(), 0)
    try:
        os.setxattr(folder, "user.note", b"x" * 1000)
    except OSError:
        pass
    folder += "/closed"
for folder in reversed(made):
    os.chmod(folder, 0)


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
