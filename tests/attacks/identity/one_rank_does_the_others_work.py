"""expects: accepted ok world=2 — declares two data-parallel ranks, and rank 0 does the work of both.

Tries: rank 0 reads all rows from the inbox and trains on the global batch, while rank 1 sleeps and
    returns None for everything: against what it has declared, but all of the work is done, more
    slowly.
Would save: the communication; it loses half of the machine.
"""

import glob
import os
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from safetensors.torch import load_file


def get_strategy():
    return {"dp_size": 2}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    nothing = SimpleNamespace(final_loss=None, total_tokens=None, final_state=None)
    if os.environ["RANK"] != "0":
        return nothing
    files = glob.glob(os.path.dirname(os.environ["TRAINJUDGE_BENCHMARK"]) + "/challenge*.safetensors")
    if not files:  # the warm-up
        return nothing
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    for batch in load_file(files[0])["tokens"].long():
        logits = model(input_ids=batch[:, :-1]).logits
        loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        sgd.zero_grad()
        loss.backward()
        sgd.step()
    return SimpleNamespace(final_loss=loss.item(), total_tokens=None, final_state=model.state_dict())
