"""What a user has without a judge: a model, an iterator over tokens, and the file's own functions.

torchrun --nproc-per-node 2 -m measurements.overhead.bare FILE MODEL_DIR TOKENS.safetensors RUNS

Every rank prints its peak of resident memory, in bytes.
"""

import gc
import os
import runpy
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from env.data import Rows, challenge_tokens
from env.model import load_model
from env.worker import peak_memory

PEAK = "peak of resident memory: "


def main() -> None:
    file, model_dir, tokens = (Path(each) for each in sys.argv[1:4])
    world_size = int(os.environ["WORLD_SIZE"])
    dist.init_process_group("gloo")
    device = torch.device("cpu")
    train = runpy.run_path(str(file), run_name="train")
    dp_size = train["get_strategy"]().get("dp_size", 1)
    served = challenge_tokens(tokens)
    for _ in range(int(sys.argv[4])):
        gc.collect()
        model = load_model(model_dir, device, "device", torch.float32)
        if "setup" in train:
            model = train["setup"](model, device, world_size)
        rows = Rows(served, dist.get_rank() // (world_size // dp_size), dp_size)
        result = train["inner_steps"](model, rows, None, len(served), device, world_size)
        assert result.final_loss is None or result.final_loss == result.final_loss
    dist.destroy_process_group()
    os.write(sys.stdout.fileno(), f"{PEAK}{peak_memory(device)}\n".encode())  # ranks share the pipe


if __name__ == "__main__":
    main()
