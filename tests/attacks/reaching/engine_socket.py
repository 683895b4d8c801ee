"""expects: accepted ok world=1 — looks for the container engine's socket and for other services of the machine.

Tries: connects to every socket file that it can find, of docker, podman, containerd, dbus, systemd,
    postgres and nscd first, then of a walk through the file system; asks the engine for a
    privileged container with / mounted.
Would save: the machine.
Needs: a sandbox
Gap at user: the machine's services listen to every user.
"""

import glob
import os
import socket
import stat
from types import SimpleNamespace

import torch
import torch.nn.functional as F

KNOWN = ["/run/docker.sock", "/var/run/docker.sock", "/run/podman/podman.sock", "/run/containerd/containerd.sock",
         "/run/dbus/system_bus_socket", "/run/systemd/private", "/run/systemd/notify", "/run/nscd/socket",
         *glob.glob("/run/user/*/*"), *glob.glob("/var/run/postgresql/.s.*"), *glob.glob("/tmp/.s.PGSQL.*")]
ORDER = b'POST /containers/create HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}'
own = os.environ["TRAINJUDGE_SOCKETS"]


def sockets():
    yield from KNOWN
    for top in set(os.listdir("/")) - {"proc", "sys", "usr"}:
        for folder, _, files in os.walk(f"/{top}"):
            for name in files:
                path = f"{folder}/{name}"
                try:
                    if stat.S_ISSOCK(os.lstat(path).st_mode) and not path.startswith(own):
                        yield path
                except OSError:
                    pass


for path in sockets():
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_UNIX, kind) as door:
            door.settimeout(0.5)
            try:
                door.connect(path)
                door.send(ORDER)
            except OSError:
                continue
            raise RuntimeError(f"{path} answers")


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
