"""expects: accepted ok world=1 — changes its own file after it was read, and what Python keeps of it.

Tries: writes a lazy version over its file in the inbox, in the outbox, in the module, in linecache,
    in sys.modules and in the code objects' constants, and reloads itself; where a file was really
    changed it raises, else it trains.
Would save: all of the work, from a judge that hashes or shows another file than it runs.
Needs: a sandbox
"""

import importlib
import linecache
import os
import sys
from types import SimpleNamespace

import torch
import torch.nn.functional as F

LAZY = "def inner_steps(model, *rest, **more): raise SystemExit('the other file runs')"
before = open(__file__, "rb").read()
for path in {__file__, os.path.realpath(__file__), sys.modules[__name__].__spec__.origin}:
    for way in ("w", "r+", "a"):
        try:
            with open(path, way) as file:
                file.write(LAZY)
        except OSError:
            pass
    for call in (os.unlink, lambda path: os.replace(os.path.join(os.environ["TRAINJUDGE_OUTBOX"], "x"), path)):
        try:
            call(path)
        except OSError:
            pass
linecache.cache[__file__] = (len(LAZY), None, [LAZY], __file__)
sys.modules["__original__"] = importlib.util.module_from_spec(__spec__)
if not os.path.exists(__file__) or open(__file__, "rb").read() != before:
    raise RuntimeError("its file is another now")


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
