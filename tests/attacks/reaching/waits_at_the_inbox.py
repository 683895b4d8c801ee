"""expects: accepted ok world=1 — watches for the challenge from before READY on, to begin before the clock does.

Tries: a thread looks without a pause into inbox/ and private/ for the challenge, from the import
    on; if it is there before READY has been sent, the run could be done before the clock starts.
Would save: what lies between the drawing of the challenge and GO: all of the time, if it were
    written too early.
Needs: a sandbox
"""

import os
import threading
import time
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from harness.protocol.messages import Go, Ready
from harness.protocol.wire import RankSocket

EVALUATION = os.path.dirname(os.environ["TRAINJUDGE_OUTBOX"])
found, over = [], threading.Event()
sent = []
send, receive = RankSocket.send, RankSocket.receive


def look():
    while not over.is_set():
        for folder in ("inbox", "private"):
            path = f"{EVALUATION}/{folder}/challenge0.safetensors"
            if os.path.exists(path):
                found.append((folder, time.perf_counter()))
                return
        time.sleep(0)


def sending(self, message):
    if isinstance(message, Ready):
        sent.append(time.perf_counter())
    send(self, message)


def receiving(self):
    message = receive(self)
    if isinstance(message, Go):
        over.set()
    return message


RankSocket.send, RankSocket.receive = sending, receiving
threading.Thread(target=look, daemon=True).start()


def check():
    for folder, when in found:
        if folder == "private" or when < sent[0]:
            raise RuntimeError(f"the challenge lay in {folder} before READY")


def get_strategy():
    return {"dp_size": 1}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    if sent:
        check()
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
