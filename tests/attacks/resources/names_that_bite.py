"""expects: rejected outbox_invalid world=1 — trains, and leaves files whose names are orders, bytes and lines.

Tries: beside its state lie files whose names are no UTF-8, 255 bytes long, newlines, escapes,
    options, spaces, dots and a shell's words.
Would save: nothing of the work; it would harm whoever lists, prints or removes them: scripts,
    terminals, logs.
Needs: a sandbox
"""

import os
from types import SimpleNamespace

import torch
import torch.nn.functional as F

outbox = os.fsencode(os.environ["TRAINJUDGE_OUTBOX"])
NAMES = (b"\xff\xfe\xff", b"n" * 255, b"\xc3" * 255, b"a\nACCEPTED\nb", b"\x1b[2J\x1b[H", b"-rf", b"--", b" ", b"...",
         b"$(reboot)", b"`id`", b"*", b"\xe2\x80\xae", b"run0-rank0 ", b"run0-rank00", b"run-1-rank0", b"CON")
for name in NAMES:
    with open(outbox + b"/" + name, "wb") as file:
        file.write(name)


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
