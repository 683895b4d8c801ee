"""expects: accepted ok world=2 — knocks at the judge's sockets, its own and the other rank's, after all have connected.

Tries: rank 0 connects to every socket below sockets/ again and sends DONE and a commitment in the
    name of rank 1; it looks for a listener under other names, as datagram socket and in the
    abstract namespace too.
Would save: all of rank 1's work, if the judge took a second connection.
"""

import os
import socket
from types import SimpleNamespace

import torch
import torch.distributed as dist
import torch.nn.functional as F
from harness.protocol.messages import Done
from harness.protocol.wire import frame

folder = os.environ["TRAINJUDGE_SOCKETS"]
rank = int(os.environ["RANK"])
word = frame(Done(run=0, final_loss=1.0, total_tokens=1))


def knock(address, kind):
    with socket.socket(socket.AF_UNIX, kind) as door:
        door.settimeout(1.0)
        try:
            door.connect(address)
            door.sendall(word)
            return True
        except OSError:
            return False


names = {*os.listdir(folder), *(f"rank{number}.sock" for number in range(-1, 4)), "judge.sock"}
for name in names:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET):
        for address in (f"{folder}/{name}", f"\0{folder}/{name}", f"\0{name}"):
            if knock(address, kind):
                raise RuntimeError(f"a second connection to {address!r}")


def get_strategy():
    return {"dp_size": 2}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    tokens = 0
    for _ in range(num_steps):
        batch = next(data_iterator).to(device)
        logits = model(input_ids=batch[:, :-1]).logits
        loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        sgd.zero_grad()
        loss.backward()
        for parameter in model.parameters():
            dist.all_reduce(parameter.grad)
            parameter.grad /= num_gpus
        sgd.step()
        tokens += batch.numel()
    return SimpleNamespace(
        final_loss=loss.item(), total_tokens=tokens, final_state=model.state_dict()
    )
