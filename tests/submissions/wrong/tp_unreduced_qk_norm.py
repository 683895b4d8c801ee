"""expects: rejected update_mismatch world=2 — gradients of q_norm and k_norm are not summed over the ranks.

Heads are split over the ranks. The weights of q_norm and k_norm serve all heads, so each rank has only
its own heads' part of their gradients.
"""

from types import SimpleNamespace

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard


def get_strategy():
    return {"tp_size": 2}


class Enter(torch.autograd.Function):
    """Into the split part: every rank uses the same input, so gradients are summed."""

    @staticmethod
    def forward(ctx, tensor):
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx, gradient):
        gradient = gradient.contiguous()
        dist.all_reduce(gradient)
        return gradient


class Leave(torch.autograd.Function):
    """Out of the split part: the sum of the ranks' outputs."""

    @staticmethod
    def forward(ctx, tensor):
        tensor = tensor.clone()
        dist.all_reduce(tensor)
        return tensor

    @staticmethod
    def backward(ctx, gradient):
        return gradient


def enter(module, inputs, keywords):
    return inputs, keywords | {"hidden_states": Enter.apply(keywords["hidden_states"])}


def leave(module, inputs, output):
    return Leave.apply(output[0]), *output[1:]


def setup(model, device, num_gpus):
    for layer in model.model.layers:
        attention = layer.self_attn
        for name, dim in {"q_proj": 0, "k_proj": 0, "v_proj": 0, "o_proj": 1}.items():
            linear = getattr(attention, name)
            own = linear.weight.detach().chunk(num_gpus, dim)[dist.get_rank()]
            linear.weight = nn.Parameter(own.clone())
        attention.register_forward_pre_hook(enter, with_kwargs=True)
        attention.register_forward_hook(leave)
    return model


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
    mesh = init_device_mesh(device.type, (num_gpus,))
    state = {}
    for name, tensor in model.state_dict().items():
        dim = {"q_proj": 0, "k_proj": 0, "v_proj": 0, "o_proj": 1}.get(name.split(".")[-2])
        if dim is not None:
            state[name] = DTensor.from_local(tensor, mesh, [Shard(dim)])
        elif dist.get_rank() == 0:
            state[name] = tensor
    return SimpleNamespace(final_loss=loss.item(), total_tokens=tokens, final_state=state)
