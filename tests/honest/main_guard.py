"""expects: accepted ok world=1 — reads arguments and the environment, has a main guard, leaves with sys.exit."""

import argparse
import os
import sys
from collections import namedtuple

import torch
import torch.nn.functional as F

Result = namedtuple("Result", ["final_loss", "total_tokens", "final_state"])

VERBOSE = os.environ.get("TRAIN_VERBOSE", "1") == "1"
LR = float(os.getenv("TRAIN_LR", "0.1"))


def get_strategy():
    return {"dp_size": 1}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    sgd = torch.optim.SGD(model.parameters(), lr=LR)
    tokens = 0
    for step in range(num_steps):
        batch = next(data_iterator).to(device)
        inputs, labels = batch[:, :-1], batch[:, 1:]
        loss = F.cross_entropy(model(inputs).logits.transpose(1, 2), labels)
        sgd.zero_grad()
        loss.backward()
        sgd.step()
        tokens += batch.numel()
        if VERBOSE:
            print(f"pid {os.getpid()} step {step} loss {loss.item():.4f}", file=sys.stderr)
    return Result(loss.item(), tokens, model.state_dict())


def main():
    parser = argparse.ArgumentParser(description="Train on random tokens, to try this file out.")
    parser.add_argument("--steps", type=int, default=2)
    arguments = parser.parse_args()
    from transformers import AutoModelForCausalLM, Qwen3MoeConfig

    model = AutoModelForCausalLM.from_config(Qwen3MoeConfig(vocab_size=64, num_hidden_layers=1))
    data = iter(torch.randint(64, (arguments.steps, 2, 16)))
    print(inner_steps(model, data, None, arguments.steps, torch.device("cpu")).final_loss)
    return 0


if __name__ == "__main__":
    sys.exit(main())
