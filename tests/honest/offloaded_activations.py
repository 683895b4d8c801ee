"""expects: accepted ok world=1 — saved_tensors_hooks pack every saved activation into numpy and unpack it again."""

from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch.autograd.graph import saved_tensors_hooks


def get_strategy():
    return {"dp_size": 1}


class Offload:
    """Keeps activations as numpy arrays; parameters stay where they are."""

    def __init__(self, parameters):
        self.kept = {p.untyped_storage().data_ptr() for p in parameters}
        self.bytes = 0

    def pack(self, tensor):
        if tensor.untyped_storage().data_ptr() in self.kept or not tensor.is_floating_point():
            return tensor
        array = tensor.detach().cpu().numpy().copy()
        self.bytes += array.nbytes
        return tensor.device, array

    def unpack(self, packed):
        if isinstance(packed, torch.Tensor):
            return packed
        device, array = packed
        return torch.from_numpy(array).to(device)


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    offload = Offload(model.parameters())
    tokens = 0
    for _ in range(num_steps):
        batch = next(data_iterator).to(device)
        with saved_tensors_hooks(offload.pack, offload.unpack):
            logits = model(input_ids=batch[:, :-1]).logits
            loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        loss.backward()
        sgd.step()
        sgd.zero_grad()
        tokens += batch.numel()
    print(f"{offload.bytes:,} bytes were packed")
    return SimpleNamespace(final_loss=loss.item(), total_tokens=tokens, final_state=model.state_dict())
