"""expects: rejected commitment_broken|outbox_invalid world=1 — tensors without data, digests made up for them, and files of zeros.

Tries: the state lies on the meta device: shapes and dtypes without a byte; patched functions commit
    to made-up digests and write zeros.
Would save: the memory, the hash and the training.
"""

from types import SimpleNamespace

import torch
import torch.nn.functional as F

import __main__ as worker

write = worker.write_opened


def zeros(folder, boxes, **options):
    return write(
        folder, [box._replace(tensor=torch.zeros(box.tensor.shape)) for box in boxes], **options
    )


worker.digest_many = lambda tensors, key, threads: [key.hex() for _ in tensors]
worker.write_opened = zeros


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
    state = model.state_dict()
    state = {name: tensor.to("meta") for name, tensor in state.items()}
    return SimpleNamespace(final_loss=loss.item(), total_tokens=tokens, final_state=state)
