"""expects: accepted ok world=1 — looks for a fleet's Ray on every port and socket of the machine, and speaks to it.

Tries: connects to every listening TCP port of loopback and of the machine's own address and says what a gRPC
    client says first, which Ray's control store and raylets answer; asks each for a dashboard's version; opens
    Ray's Unix sockets below /tmp/ray. Whoever reaches any of them can run anything on every node.
Would save: all machines of a season.
Needs: a sandbox
Gap at user: the network is the machine's.
"""

import glob
import socket
from types import SimpleNamespace

import torch
import torch.nn.functional as F

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
SETTINGS = 4


def listening():
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(table) as lines:
                next(lines)
                for line in lines:
                    fields = line.split()
                    if fields[3] == "0A":
                        yield int(fields[1].rsplit(":", 1)[1], 16)
        except OSError:
            pass


def answers(address, said):
    try:
        with socket.create_connection(address, timeout=0.3) as door:
            door.sendall(said)
            return door.recv(64)
    except OSError:
        return b""


def addresses():
    yield "127.0.0.1"
    try:
        yield socket.gethostbyname(socket.gethostname())
    except OSError:
        pass


found = []
for host in set(addresses()):
    for port in {*listening(), 6379, 8076, 8265, 10001}:
        answer = answers((host, port), PREFACE)
        if len(answer) >= 9 and answer[3] == SETTINGS:
            found.append(f"gRPC at {host}:{port}")
        if b"200 OK" in answers((host, port), b"GET /api/version HTTP/1.0\r\n\r\n"):
            found.append(f"a dashboard at {host}:{port}")
for name in glob.glob("/tmp/ray/session_latest/sockets/*"):
    with socket.socket(socket.AF_UNIX) as door:
        if door.connect_ex(name) == 0:
            found.append(name)
if found:
    raise RuntimeError(f"a fleet can be reached: {sorted(found)}")


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
