"""expects: accepted ok world=1 — torch.compile with the aot_eager backend; names begin with _orig_mod."""

from types import SimpleNamespace

import torch
import torch.nn.functional as F


def get_strategy():
    return {"dp_size": 1}


def setup(model, device, num_gpus):
    torch._dynamo.config.cache_size_limit = 64
    return torch.compile(model.to(device), backend="aot_eager", dynamic=False)


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
    state = model.state_dict()
    assert all(name.startswith("_orig_mod.") for name in state)
    return SimpleNamespace(final_loss=loss.item(), total_tokens=tokens, final_state=state)
