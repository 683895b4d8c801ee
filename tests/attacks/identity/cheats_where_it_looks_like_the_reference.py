"""expects: rejected update_mismatch world=1 — does nothing where it believes to be the reference's process, and makes that believe itself.

Tries: sets itself up as if it were the reference: its arguments, the name of the main module, its
    rank and size, the marker of the end, a task file in the outbox's place and a state in the
    reference's form, and does no step, so that its own state would be taken as the truth.
Would save: all of the work, from a judge that takes the reference from where the submission can
    write.
"""

import json
import os
import sys
import tempfile
from types import SimpleNamespace

import torch
import torch.nn.functional as F

folder = tempfile.mkdtemp(prefix="trainjudge-")
task = {"model_dir": folder, "challenges": [], "output": folder, "device": "cpu", "param_dtype": "float32"}
with open(f"{folder}/task.json", "w") as file:
    json.dump(task, file)
for rank in range(2):
    open(f"{folder}/finished{rank}", "w").close()
sys.argv = ["harness.reference.loop", f"{folder}/task.json"]
os.environ |= {"RANK": "0", "WORLD_SIZE": "1", "OMP_WAIT_POLICY": "passive"}
print("finished", flush=True)


def get_strategy():
    return {"dp_size": 1}


@torch.no_grad()
def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    batches = [batch.to(device) for batch in data_iterator]
    logits = model(input_ids=batches[-1][:, :-1]).logits
    loss = F.cross_entropy(logits.flatten(0, 1), batches[-1][:, 1:].flatten())
    return SimpleNamespace(
        final_loss=loss.item(),
        total_tokens=sum(batch.numel() for batch in batches),
        final_state=model.state_dict(),
    )
