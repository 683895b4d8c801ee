"""expects: accepted ok world=1 — names, comments and strings with every word that a scanner looks for.

No os.system("rm -rf /"), no eval(input()), no __import__("socket"), no hparams.json, no reference.
"""

from types import SimpleNamespace

import torch
import torch.nn.functional as F

# eval(), exec(), compile(), globals(), ctypes, subprocess and pickle.loads are not used here.
NOTES = {
    "schedule": "the loss falls monotonically; time.monotonic() is not called",
    "todo": "monkeypatch torch.cuda.synchronize? No: perf_counter = lambda: 0 would be cheating",
    "paths": "/proc/self/mem, /etc/passwd, ../../reference/final_state.safetensors",
}


def get_strategy():
    return {"dp_size": 1}


def evaluate(model, batch):  # contains "eval("-like text
    """Mean loss. Not to be confused with eval(model)."""
    logits = model(input_ids=batch[:, :-1]).logits
    return F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())


def execute(optimizer, loss):  # exec(ute)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    reference, cheat, digest, secret = model, 0, 0, "answer"
    global_step = 0
    hacked_sgd = torch.optim.SGD(reference.parameters(), lr=0.1)
    for global_step in range(1, num_steps + 1):
        challenge = next(data_iterator).to(device)
        loss = evaluate(reference, challenge)
        execute(hacked_sgd, loss)
        digest += challenge.numel()
    print(f"__builtins__ {secret}: {NOTES['schedule']}; {global_step} steps, {cheat} skipped")
    return SimpleNamespace(
        final_loss=loss.item(), total_tokens=digest, final_state=reference.state_dict()
    )
