"""expects: accepted ok world=1 — looks for sockets of other users on loopback and in the abstract namespace, and speaks to them.

Tries: reads /proc/net for listening TCP sockets of another user and for abstract Unix sockets, and
    connects to every port of loopback that answers: the leaderboard, its database, another
    evaluation's rendezvous store.
Would save: the leaderboard's database; another evaluation's ranks.
Needs: a sandbox
Gap at user: the network is the machine's.
"""

import os
import socket
from types import SimpleNamespace

import torch
import torch.nn.functional as F

me = os.getuid()
found = []
for table in ("tcp", "tcp6", "udp", "udp6", "raw"):
    try:
        with open(f"/proc/net/{table}") as lines:
            next(lines)
            for line in lines:
                fields = line.split()
                if fields[3] in ("0A", "07") and int(fields[7]) != me:
                    found.append(f"{table} {fields[1]} of user {fields[7]}")
    except OSError:
        pass
with open("/proc/net/unix") as lines:
    next(lines)
    for line in lines:
        words = line.split()
        if len(words) > 7 and words[7].startswith("@"):
            with socket.socket(socket.AF_UNIX) as door:
                door.settimeout(0.3)
                try:
                    door.connect("\0" + words[7][1:])
                    found.append(words[7])
                except OSError:
                    pass
for port in (22, 80, 443, 2375, 2376, 5432, 6379, 8000, 8080, 8443, 9000):
    with socket.socket() as door:
        door.settimeout(0.2)
        if door.connect_ex(("127.0.0.1", port)) == 0:
            found.append(f"port {port}")
if found:
    raise RuntimeError(f"somebody listens: {found}")


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
