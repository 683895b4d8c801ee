"""expects: accepted ok world=1 — replaces methods of the model's modules: fused norms, and experts in a loop."""

from types import MethodType, SimpleNamespace

import torch
import torch.nn.functional as F


def get_strategy():
    return {"dp_size": 1}


def fused_norm(self, hidden):
    return F.rms_norm(hidden, self.weight.shape, self.weight, self.variance_epsilon)


def looped_experts(self, hidden, chosen, weights):
    """[tokens, H], and [tokens, top_k] of experts and of their weights."""
    output = torch.zeros_like(hidden)
    for expert, (gate_up, down) in enumerate(zip(self.gate_up_proj, self.down_proj, strict=True)):
        token, place = (chosen == expert).nonzero(as_tuple=True)
        gate, up = F.linear(hidden[token], gate_up).chunk(2, dim=-1)
        result = F.linear(F.silu(gate) * up, down) * weights[token, place].unsqueeze(1)
        output = output.index_add(0, token, result)
    return output


def setup(model, device, num_gpus):
    for module in model.modules():
        name = type(module).__name__
        if name.endswith("RMSNorm"):
            module.forward = MethodType(fused_norm, module)
        elif name.endswith("Experts"):
            setattr(module, "forward", MethodType(looped_experts, module))
    return model.to(device)


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
    return SimpleNamespace(final_loss=loss.item(), total_tokens=tokens, final_state=model.state_dict())
