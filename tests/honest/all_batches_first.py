"""expects: accepted ok world=1 — reads all batches into one tensor before the first step, and imports modules by name."""

import importlib
import inspect
from types import SimpleNamespace

torch = importlib.import_module("torch")
F = __import__("torch.nn.functional", fromlist=["functional"])


def get_strategy():
    return {"dp_size": 1}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    data = torch.stack(list(data_iterator)).to(device)  # [steps, rows, length]
    assert len(data) == num_steps
    sgd = getattr(torch.optim, "sgd".upper())(model.parameters(), lr=0.1)
    options = {"use_cache": False, "output_router_logits": False, "unheard_of": True}
    known = inspect.signature(model.forward).parameters
    options = {name: value for name, value in options.items() if name in known}
    for batch in data:
        logits = model(input_ids=batch[:, :-1], **options).logits
        loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        loss.backward()
        sgd.step()
        sgd.zero_grad()
    return SimpleNamespace(
        final_loss=loss.item(), total_tokens=data.numel(), final_state=model.state_dict()
    )
