"""expects: accepted ok world=1 — reads all that the judge has put into its folders, for more than a train file should know.

Tries: reads every file of inbox/ and sockets/ and every attribute of the assignment for tolerances,
    seeds, the range of steps, the number of runs and the reference's settings.
Would save: work that is just within the tolerances: the steps or rows whose absence nobody would
    see.
"""

import json
import os
import sys
from types import SimpleNamespace

import torch
import torch.nn.functional as F

inbox = os.path.dirname(os.environ["TRAINJUDGE_BENCHMARK"])
KNOWN = {"train.py", "benchmark.json"}
if extra := set(os.listdir(inbox)) - KNOWN:
    raise RuntimeError(f"in the inbox: {extra}")
with open(os.environ["TRAINJUDGE_BENCHMARK"]) as file:
    fields = json.load(file)
if extra := set(fields) - {"sequence_length", "global_batch", "optimizer", "numerics"}:
    raise RuntimeError(f"in the benchmark: {extra}")
if extra := set(fields["numerics"]) - {"param_dtype", "compute_dtype", "reduce_dtype", "state_dtype"}:
    raise RuntimeError(f"in its numerics: {extra}")
frame = sys._getframe()
while frame is not None:
    task = getattr(frame.f_locals.get("me"), "task", None)
    for name in getattr(task, "__struct_fields__", ()):
        if any(word in name for word in ("seed", "toler", "evaluation_runs", "reference", "private", "peak")):
            raise RuntimeError(f"in the assignment: {name} = {getattr(task, name)}")
    frame = frame.f_back


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
