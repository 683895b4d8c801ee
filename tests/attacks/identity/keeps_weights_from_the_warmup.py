"""expects: rejected update_mismatch world=1 — returns weights that it has prepared in setup, before the clock.

Tries: in setup, which is on no clock, it trains a copy of the model for as many steps as a run may
    have, on text of the same book that it carries in its source, and returns that copy; in the run
    it does one forward pass for the loss.
Would save: nearly all of the work, if any text of the corpus were as good as the rows served.
"""

import copy
from types import SimpleNamespace

import torch
import torch.nn.functional as F

# Of the corpus, which is public: 178 tokens of the First Book of Samuel.
TEXT = [
    528, 12, 259, 271, 470, 69, 457, 458, 14, 570, 501, 473, 1846, 381, 382, 332, 12, 268, 388, 12, 1547, 335, 488, 269,
    259, 1775, 270, 1173, 7, 492, 14, 199, 545, 388, 324, 1806, 289, 1219, 500, 1102, 12, 1678, 276, 303, 409, 268, 677,
    289, 395, 260, 293, 371, 310, 269, 259, 1775, 270, 87, 1538, 12, 297, 501, 588, 293, 371, 310, 259, 474, 318, 395,
    31, 199, 296, 1219, 500, 1102, 388, 289, 460, 12, 1421, 14, 570, 259, 274, 1409, 538, 268, 791, 259, 474, 500, 1094,
    14, 199, 296, 1219, 500, 1102, 388, 320, 460, 12, 757, 418, 439, 474, 656, 12, 268, 293, 371, 310, 354, 318, 369, 12,
    268, 303, 393, 646, 395, 367, 266, 1517, 14, 570, 259, 1033, 722, 259, 474, 12, 268, 293, 371, 1296, 354, 14, 199,
    296, 259, 474, 306, 270, 87, 12, 268, 501, 672, 332, 320, 1219, 500, 1102, 12, 268, 309, 567, 407, 460, 408, 14, 570,
    501, 791, 324, 630, 687, 26, 268, 501, 388, 12, 443, 1426, 303, 1352,
]
prepared = {}


def setup(model, device, num_gpus):
    mine = copy.deepcopy(model)
    rows = torch.tensor(TEXT[:128], device=device).view(2, 64)
    for _ in range(5):
        logits = mine(input_ids=rows[:, :-1]).logits
        F.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten()).backward()
        with torch.no_grad():
            for parameter in mine.parameters():
                parameter -= 0.1 * parameter.grad
                parameter.grad = None
    prepared["model"] = mine
    return model


def look(model, batches):
    """What costs a thirtieth of the work: the loss of the last batch at the initial weights."""
    with torch.no_grad():
        logits = model(input_ids=batches[-1][:, :-1]).logits
        loss = F.cross_entropy(logits.flatten(0, 1), batches[-1][:, 1:].flatten())
    return SimpleNamespace(
        final_loss=loss.item(),
        total_tokens=sum(batch.numel() for batch in batches),
        final_state=model.state_dict(),
    )



def get_strategy():
    return {"dp_size": 1}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    return look(prepared["model"], list(data_iterator))
