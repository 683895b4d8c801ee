"""One rank of a launch: every file trains on the same tokens in turn, and rank 0 writes the seconds down.

torchrun --nproc-per-node N -m measurements.train_files.rank MODEL_DIR TOKENS OUTPUT REPEATS FILE ...
"""

import gc
import json
import os
import runpy
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from env.data import Rows, challenge_tokens
from env.model import load_model

WARMUP = 2


def main() -> None:
    model_dir, tokens, output = (Path(argument) for argument in sys.argv[1:4])
    dist.init_process_group("gloo")
    served = challenge_tokens(tokens)
    files = {name: runpy.run_path(name, run_name="train") for name in sys.argv[5:]}
    for train in files.values():
        trained(train, model_dir, served[:WARMUP])
    turns = [
        {Path(name).stem: trained(train, model_dir, served) for name, train in files.items()}
        for _ in range(int(sys.argv[4]))
    ]
    if dist.get_rank() == 0:
        output.write_text(json.dumps(turns), encoding="utf-8")
    dist.barrier()
    os._exit(0)  # process groups of a dozen files end in no order that gloo likes


def trained(train: dict[str, Any], model_dir: Path, served: torch.Tensor) -> float:
    """Seconds from the first batch until every rank is done."""
    world_size = dist.get_world_size()
    dp_size = min(world_size, train["get_strategy"]().get("dp_size", 1))  # rivals take any number
    gc.collect()
    device = torch.device("cpu")
    model = load_model(model_dir, device, "device", torch.float32)
    if "setup" in train:
        model = train["setup"](model, device, world_size)
    rows = Rows(served, dist.get_rank() // (world_size // dp_size), dp_size)
    dist.barrier()
    started = time.perf_counter()
    result = train["inner_steps"](model, rows, None, len(served), device, world_size)
    dist.barrier()
    seconds = time.perf_counter() - started
    if not (result.final_loss is None or result.final_loss == result.final_loss):
        raise ValueError("a loss that is no number: that was no training")
    return seconds


if __name__ == "__main__":
    main()
