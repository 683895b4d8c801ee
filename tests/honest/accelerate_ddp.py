"""expects: accepted ok world=2 — Accelerate wraps model and optimizer, and gathers the loss over the ranks."""

from types import SimpleNamespace

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState


def get_strategy():
    return {"dp_size": 2}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    AcceleratorState._reset_state()
    PartialState._reset_state()
    accelerator = Accelerator(cpu=device.type == "cpu", mixed_precision="no")
    assert accelerator.num_processes == num_gpus
    model, sgd = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=0.1))
    tokens = 0
    for _ in range(num_steps):
        batch = next(data_iterator).to(accelerator.device)
        with accelerator.accumulate(model):
            logits = model(input_ids=batch[:, :-1]).logits
            loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
            accelerator.backward(loss)
            sgd.step()
            sgd.zero_grad()
        tokens += batch.numel()
    whole = accelerator.gather(loss.detach()).mean()
    state = accelerator.get_state_dict(model) if accelerator.is_main_process else None
    return SimpleNamespace(final_loss=whole, total_tokens=tokens, final_state=state)
