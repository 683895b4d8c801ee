"""expects: accepted ok world=1 — looks for the judge's and the reference's code in its own process, to know what is checked.

Tries: imports every module of the judge by name, by path, from sys.modules, from frozen and zipped
    packages and from the packages' metadata; whatever is there beyond env and harness.protocol
    would tell what is compared.
Would save: nothing by itself: the code is public. It must not be there to be patched.
Needs: a sandbox
Gap at user: the machine's files are there, and with them the judge's code, to be read and not to be changed.
"""

import importlib
import pkgutil
import sys
from types import SimpleNamespace

import harness
import torch
import torch.nn.functional as F

NAMES = ("harness.evaluate", "harness.reference.loop", "harness.verify.compare", "harness.timed.session", "harness.benchmark.challenge",
         "harness.sandbox.supervisor", "harness.board.store", "harness.cli", "tests.corpus", "local_test")
found = [name for name in sys.modules if name.startswith("harness.") and not name.startswith("harness.protocol")]
for name in NAMES:
    try:
        importlib.import_module(name)
        found.append(name)
    except ImportError:
        pass
found += [each.name for each in pkgutil.iter_modules(harness.__path__) if each.name != "protocol"]
if found:
    raise RuntimeError(f"the judge is in here: {found}")


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
