"""expects: accepted ok world=1 — writes its update step as source text, one line a parameter, and runs it by exec."""

from types import SimpleNamespace

import torch
import torch.nn.functional as F


def get_strategy():
    return {"dp_size": 1}


def generate_update(count, lr):
    """A function without a loop: `p0.sub_(p0.grad, alpha=...)` and so on."""
    names = [f"p{number}" for number in range(count)]
    lines = [f"def update({', '.join(names)}):"]
    for name in names:
        lines += [f"    {name}.sub_({name}.grad, alpha={lr!r})", f"    {name}.grad = None"]
    space = {}
    exec(compile("\n".join(lines), "<generated>", "exec"), space)
    return torch.no_grad()(space["update"])


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    parameters = list(model.parameters())
    update = generate_update(len(parameters), eval("1 / 10"))
    tokens = 0
    for _ in range(num_steps):
        batch = next(data_iterator).to(device)
        logits = model(input_ids=batch[:, :-1]).logits
        loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        loss.backward()
        update(*parameters)
        tokens += batch.numel()
    return SimpleNamespace(final_loss=loss.item(), total_tokens=tokens, final_state=model.state_dict())
