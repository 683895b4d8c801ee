"""expects: accepted ok world=1 — transformers' gradient checkpointing, switched off again at the end."""

from types import SimpleNamespace

import torch
import torch.nn.functional as F


def get_strategy():
    return {"dp_size": 1}


def setup(model, device, num_gpus):
    model.gradient_checkpointing_enable({"use_reentrant": False, "preserve_rng_state": False})
    model.enable_input_require_grads()
    return model.to(device)


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    tokens = 0
    for _ in range(num_steps):
        batch = next(data_iterator).to(device)
        logits = model(input_ids=batch[:, :-1], use_cache=False).logits
        loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        loss.backward()
        sgd.step()
        sgd.zero_grad()
        tokens += batch.numel()
    model.gradient_checkpointing_disable()
    model.disable_input_require_grads()
    return SimpleNamespace(final_loss=loss.item(), total_tokens=tokens, final_state=model.state_dict())
