"""expects: accepted ok world=1 — an attention mask of its own, cached in a file among temporary files and by lru_cache."""

import functools
import pickle
import tempfile
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.nn.functional as F

CACHE = Path(tempfile.gettempdir()) / "masks"


def get_strategy():
    return {"dp_size": 1}


@functools.lru_cache(maxsize=None)
def causal_mask(length):
    """What is added to attention scores, [1, 1, length, length]; made once, then read from a file."""
    file = CACHE / f"causal-{length}.pkl"
    if file.exists():
        return pickle.loads(file.read_bytes())
    mask = torch.full((length, length), torch.finfo(torch.float32).min).triu(1)[None, None]
    CACHE.mkdir(exist_ok=True)
    file.write_bytes(pickle.dumps(mask))
    return mask


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    tokens = 0
    for _ in range(num_steps):
        batch = next(data_iterator).to(device)
        inputs = batch[:, :-1]
        mask = causal_mask(inputs.shape[1]).to(device).expand(len(inputs), -1, -1, -1)
        logits = model(input_ids=inputs, attention_mask=mask).logits
        loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        loss.backward()
        sgd.step()
        sgd.zero_grad()
        tokens += batch.numel()
    print(causal_mask.cache_info())
    return SimpleNamespace(final_loss=loss.item(), total_tokens=tokens, final_state=model.state_dict())
