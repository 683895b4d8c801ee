"""expects: accepted ok world=1 — the logging module with its own handler, and a log file among temporary files."""

import logging
import os
import tempfile
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.nn.functional as F

logger = logging.getLogger("train")
logger.setLevel(os.environ.get("LOG_LEVEL", "INFO"))
logger.propagate = False
logger.addHandler(logging.StreamHandler())


def get_strategy():
    return {"dp_size": 1}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    folder = Path(tempfile.mkdtemp(prefix="train-"))
    to_file = logging.FileHandler(folder / "train.log")
    to_file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger.addHandler(to_file)
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    tokens = 0
    for step in range(num_steps):
        batch = next(data_iterator).to(device)
        logits = model(input_ids=batch[:, :-1]).logits
        loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        loss.backward()
        norm = torch.nn.utils.get_total_norm([p.grad for p in model.parameters()])
        sgd.step()
        sgd.zero_grad()
        tokens += batch.numel()
        logger.info("step %d loss %.4f norm %.3f", step, loss, norm)
    logger.removeHandler(to_file)
    to_file.close()
    lines = (folder / "train.log").read_text().splitlines()
    assert len(lines) == num_steps, lines
    return SimpleNamespace(final_loss=loss.item(), total_tokens=tokens, final_state=model.state_dict())
