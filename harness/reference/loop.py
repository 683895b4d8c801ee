"""The trusted training loop: `python -m harness.reference.loop TASK.json`, on one rank or by torchrun.

FSDP2 over any number of ranks, one included, written to be read: every rank takes its part of the
global batch, the gradients are averaged, the benchmark's optimizer makes a step. It leaves, for every
run, the final state as sharded safetensors, the loss of every row at every step, and the value of the
sampled coordinates before and after every step; where they are wanted, directions of approximations
(`filters.py`), and losses of tokens under final weights (`token_losses.py`). `launch.py` launches it.
"""

import gc
import os
import sys
from contextlib import nullcontext
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import nn
from torch.distributed.tensor import DTensor

from env.data import Rows, challenge_tokens
from env.result import ModelNames, local_boxes
from harness.protocol.opening import write_opened
from harness.reference.cheats.gradients import GradientCheats
from harness.reference.cheats.optimizer import change_state, cheated_settings
from harness.reference.filters import Filters
from harness.reference.products import fast_products
from harness.reference.recorder import Recorder
from harness.reference.step import (
    NearTies,
    backward,
    build,
    build_optimizer,
    exactly,
    round_state,
)
from harness.reference.task import DIRECTIONS, FINISHED, RECORD, STATE, ReferenceTask
from harness.reference.token_losses import measure


def main() -> None:
    task = ReferenceTask.model_validate_json(Path(sys.argv[1]).read_bytes())
    device = torch.device(task.device)
    if task.device == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    backend = "cpu:gloo,cuda:nccl" if task.device == "cuda" else "gloo"
    if task.variant.world_size == 1:
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)  # type: ignore[attr-defined]
    else:
        dist.init_process_group(backend)
    for run, wanted in enumerate(task.trains):
        if wanted:
            train(task, run, device)
    dist.barrier()
    if task.token_rows is not None:
        gc.collect()  # the last model that was trained
        measure(task, task.token_rows, build(exactly(task), device), device)
    (task.output / f"{FINISHED}{dist.get_rank()}").touch()
    sys.stdout.flush()
    os._exit(0)  # a correct run can still abort while the interpreter exits: the markers count


def train(task: ReferenceTask, run: int, device: torch.device) -> None:
    """One run from the initial weights; leaves the state and the record in the run's folder."""
    rank, settings = dist.get_rank(), task.optimizers[run]
    output = task.output / f"run{run}"
    torch.manual_seed(0)
    model = build(task, device)
    cheats = task.variant.cheats
    optimizer = build_optimizer(cheated_settings(cheats, settings), model)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda done: min(1.0, (done + 1) / max(1, settings.warmup_steps))
    )
    recorder = Recorder(model, load_file(task.coordinates))
    losses, values = [], [recorder.values()]
    ties = NearTies(task.variant, device)
    native = task.variant.native_products
    products = nullcontext() if native else fast_products(task.variant.compute_dtype, device)
    gradients = GradientCheats(cheats, model)
    looks = task.filter_steps[run] if task.filter_steps else ()
    filters = Filters(task, settings, model, optimizer, recorder, device) if looks else None
    served = Rows(challenge_tokens(task.challenges[run]), rank, dist.get_world_size())
    for step, batch in enumerate(served):
        if filters is not None and step in looks:
            filters.look(step, batch.to(device))
        with products, ties if task.variant.near_ties else nullcontext():
            losses.append(backward(model, batch.to(device), task.variant))
        gradients.change()
        if settings.max_grad_norm is not None:
            nn.utils.clip_grad_norm_(model.parameters(), settings.max_grad_norm)
        optimizer.step()
        round_state(optimizer, getattr(torch, task.variant.state_dtype))
        change_state(cheats, optimizer)
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        values.append(recorder.values())

    mine = {
        name: tensor
        for name, tensor in model.state_dict().items()
        if rank == 0 or isinstance(tensor, DTensor)
    }
    write_opened(output / STATE, local_boxes(mine, ModelNames({})), shard=rank + 1)
    rows = torch.cat(all_gather(torch.stack(losses)), dim=1)
    if rank == 0:
        save_file({"losses": rows, "values": torch.stack(values)}, output / RECORD)
        if filters is not None:
            save_file(filters.directions, output / DIRECTIONS)


def all_gather(losses: torch.Tensor) -> list[torch.Tensor]:
    """[steps, rows of a rank] of every rank, in rank order."""
    parts = [torch.empty_like(losses) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, losses)
    return parts


if __name__ == "__main__":
    main()
