"""expects: accepted ok world=2 — torch's replicate() for training, and a state of DTensors with a Replicate placement."""

from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch.distributed._composable.replicate import replicate
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate


def get_strategy():
    return {"dp_size": 2}


def setup(model, device, num_gpus):
    return replicate(model.to(device))


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    tokens = 0
    for _ in range(num_steps):
        batch = next(data_iterator).to(device)
        logits = model(input_ids=batch[:, :-1]).logits
        loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        loss.backward()
        sgd.step()
        sgd.zero_grad()
        tokens += batch.numel()
    mesh = init_device_mesh(device.type, (num_gpus,), mesh_dim_names=("dp",))
    state = {
        name: DTensor.from_local(tensor, mesh, [Replicate()], run_check=False)
        for name, tensor in model.state_dict().items()
    }
    return SimpleNamespace(final_loss=loss.item(), total_tokens=tokens, final_state=state)
