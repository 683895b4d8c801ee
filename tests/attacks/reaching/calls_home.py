"""expects: accepted ok world=1 — tries every way out to a network, by name, by address, by neighbour and by tunnel.

Tries: TCP and UDP over IPv4 and IPv6 to public resolvers, the metadata service, documentation
    addresses and likely gateways, raw, packet, netlink, vsock and Bluetooth sockets, names through
    every resolver.
Would save: the corpus, or ready gradients, from a machine of the author's; a channel for what was
    read.
Needs: a sandbox
Gap at user: the network is the machine's.
"""

import errno
import socket
from types import SimpleNamespace

import torch
import torch.nn.functional as F

ADDRESSES = ("1.1.1.1", "8.8.8.8", "169.254.169.254", "192.0.2.1", "10.0.0.1", "172.17.0.1", "192.168.0.1")
SIXES = ("2606:4700:4700::1111", "fd00:ec2::254", "fe80::1", "ff02::1")
out = []
for family, hosts in ((socket.AF_INET, ADDRESSES), (socket.AF_INET6, SIXES)):
    for host in hosts:
        for kind, port in ((socket.SOCK_DGRAM, 53), (socket.SOCK_STREAM, 80), (socket.SOCK_STREAM, 443)):
            try:
                with socket.socket(family, kind) as door:
                    door.settimeout(0.3)
                    door.connect((host, port))
                    door.send(b"x")
                    out.append(f"{host}:{port}")
            except OSError as error:
                if error.errno == errno.ECONNREFUSED and not host.startswith("127."):
                    out.append(f"{host}:{port} (refused by somebody)")
for name in ("huggingface.co", "host.docker.internal", "gateway.docker.internal", "postgres", "validator"):
    try:
        out.append(f"{name} is {socket.gethostbyname(name)}")
    except OSError:
        pass
for family, kind, number in ((socket.AF_INET, socket.SOCK_RAW, 1), (socket.AF_PACKET, socket.SOCK_RAW, 3)):
    try:
        socket.socket(family, kind, number).close()
        out.append(f"a raw socket of family {family}")
    except OSError:
        pass
try:
    with socket.socket(40, socket.SOCK_STREAM) as door:  # AF_VSOCK: the hypervisor
        door.settimeout(0.3)
        door.connect((2, 1024))
        out.append("vsock to the host")
except OSError:
    pass
if out:
    raise RuntimeError(f"reached: {out}")


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
