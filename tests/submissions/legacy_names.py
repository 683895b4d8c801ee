"""expects: accepted ok world=1 — returns the per-expert names of older transformers."""

from types import SimpleNamespace

import torch
import torch.nn.functional as F


def older_names(state):
    for name, tensor in state.items():
        layer, experts, matrix = name.partition(".experts.")
        if not experts:
            yield name, tensor
        elif matrix == "down_proj":
            yield from ((f"{layer}.experts.{i}.down_proj.weight", w) for i, w in enumerate(tensor))
        else:
            for i, both in enumerate(tensor):
                gate, up = both.chunk(2)
                yield f"{layer}.experts.{i}.gate_proj.weight", gate
                yield f"{layer}.experts.{i}.up_proj.weight", up


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
        final_loss=loss.item(),
        total_tokens=tokens,
        final_state=dict(older_names(model.state_dict())),
    )
