"""expects: accepted ok world=1 — asks the installed package where the repository is, and looks for the corpus there.

Tries: follows every trace of where the judge lies (the editable installation's .pth files,
    direct_url.json, sys.path, the environment's paths, names of mounts) and opens the corpus, its
    tokens and the snapshot's manifest below each.
Would save: the text of every run: gradients of all windows could be computed at home.
Needs: a sandbox
Gap at user: every user may read the files of a checkout.
"""

import glob
import json
import os
import re
import site
import sys
from types import SimpleNamespace

import torch
import torch.nn.functional as F

SECRETS = ("assets/kjv.txt.gz", "kjv.txt.gz", "tokens.bin", "manifest.json", "data/tokens.bin",
           "harness/evaluate.py", "hparams.json")


def places():
    """Folders in which the judge or a snapshot may lie."""
    yield from (path for path in sys.path if path)
    for folder in {*site.getsitepackages(), *sys.path}:
        for file in glob.glob(f"{folder}/*.pth") + glob.glob(f"{folder}/__editable__*"):
            if os.path.isfile(file):
                with open(file, errors="replace") as text:
                    yield from re.findall(r"/[\w./-]+", text.read())
        for file in glob.glob(f"{folder}/*.dist-info/direct_url.json"):
            with open(file) as text:
                yield json.load(text).get("url", "").removeprefix("file://")
    with open("/proc/self/mountinfo") as mounts:
        for line in mounts:
            yield from line.split()[3:5]
    for value in os.environ.values():
        yield from (path for path in value.split(":") if path.startswith("/"))


code = os.environ["PYTHONPATH"].split(":")[0]
seen = set()
for place in places():
    folder = os.path.abspath(place)
    while folder not in seen and folder != "/":
        seen.add(folder)
        for name in SECRETS:
            path = f"{folder}/{name}"
            if os.access(path, os.R_OK) and not path.startswith(code):
                raise RuntimeError(f"readable: {path}")
        folder = os.path.dirname(folder)


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
