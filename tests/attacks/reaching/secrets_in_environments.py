"""expects: accepted ok world=1 — looks for tokens, keys and paths of the judge in every environment and command line it can read.

Tries: reads the environment and the arguments of itself and of all processes that it may look at,
    and the first bytes of every file in /run/secrets and the like, for names of tokens, proxies,
    homes and data folders.
Would save: the judge's API keys, the place of the corpus.
Needs: a sandbox
"""

import glob
import os
import re
from types import SimpleNamespace

import torch
import torch.nn.functional as F

WANTED = re.compile(
    rb"(TOKEN|SECRET|PASSW|API_?KEY|AWS_|HF_HOME|HF_TOKEN|PROXY|SSH_|TRAINJUDGE_HOME|TRAINJUDGE_DATA|DATABASE|PGPASS|GITHUB_)",
    re.I,
)
ALLOWED = {b"TOKENIZERS_PARALLELISM"}
for path in glob.glob("/proc/[0-9]*/environ"):
    try:
        with open(path, "rb") as file:
            names = [word.partition(b"=")[0] for word in file.read().split(b"\0")]
    except OSError:
        continue
    found = [name for name in names if WANTED.search(name) and name not in ALLOWED]
    if found:
        raise RuntimeError(f"{path}: {found}")
homes = [os.path.expanduser(f"~{user}") for user in ("", "root")] + ["/home/" + name for name in (
    os.listdir("/home") if os.path.isdir("/home") else ())]
names = (".netrc", ".ssh/id_ed25519", ".docker/config.json", ".cache/huggingface/token", ".aws/credentials", ".bash_history",
         ".trainjudge", ".local/share/trainjudge", ".config/gh/hosts.yml", ".pypirc")
files = [f"{home}/{name}" for home in homes for name in names]
files += glob.glob("/run/secrets/*") + glob.glob("/var/run/secrets/*") + ["/etc/shadow", "/.dockerenv.inc"]
for path in files:
    if os.access(path, os.R_OK):
        raise RuntimeError(f"readable: {path}")


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
    return SimpleNamespace(
        final_loss=loss.item(), total_tokens=tokens, final_state=model.state_dict()
    )
