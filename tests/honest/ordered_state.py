"""expects: accepted ok world=1 — an OrderedDict of transposed copies, sorted by name, that went through torch.save."""

import io
from collections import OrderedDict
from types import SimpleNamespace

import torch
import torch.nn.functional as F


def get_strategy():
    return {"dp_size": 1}


def checkpoint_of(model):
    """As it would come back from a file. Matrices are stored by columns: not contiguous."""
    by_columns = {
        name: tensor.mT.contiguous().mT if tensor.ndim > 1 else tensor
        for name, tensor in model.state_dict().items()
    }
    buffer = io.BytesIO()
    torch.save({"model": by_columns}, buffer)
    buffer.seek(0)
    loaded = torch.load(buffer, map_location="cpu", weights_only=True)["model"]
    return OrderedDict(sorted(loaded.items(), reverse=True))


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
    state = checkpoint_of(model)
    assert not state["lm_head.weight"].is_contiguous()
    return SimpleNamespace(final_loss=loss.item(), total_tokens=tokens, final_state=state)
