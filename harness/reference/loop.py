"""The trusted training loop: `python -m harness.reference.loop TASK.json`, on one rank or by torchrun.

FSDP2 over any number of ranks, one included, written to be read: every rank takes its part of the
global batch, the gradients are averaged, the benchmark's optimizer makes a step. It leaves, for every
run, the final state as sharded safetensors, the loss of every row at every step, and the value of the
sampled coordinates before and after every step; where they are wanted, directions of approximations
(`filters.py`) and losses of tokens under final weights (`token_losses.py`). `launch.py` launches it.
"""

import gc
import os
import sys
from collections import defaultdict
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
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
from harness.reference.cheats.local import turns
from harness.reference.cheats.optimizer import change_state, step_settings
from harness.reference.filters import Filters
from harness.reference.lanes import in_lanes
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
from harness.reference.task import (
    DIRECTIONS,
    FINISHED,
    RECORD,
    STATE,
    ReferenceTask,
)
from harness.reference.token_losses import measure


def main() -> None:
    task = ReferenceTask.model_validate_json(Path(sys.argv[1]).read_bytes())
    device = torch.device(task.device)
    if task.device == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    runs = range(len(task.challenges))
    if task.lanes > 1:
        in_lanes(lambda lane: work(task, runs[lane :: task.lanes], device), task.lanes)
    else:
        work(task, runs, device)
    rank = dist.get_rank() if task.variant.world_size > 1 else 0
    (task.output / f"{FINISHED}{rank}").touch()
    sys.stdout.flush()
    os._exit(0)  # a correct run can still abort while the interpreter exits: the markers count


def work(task: ReferenceTask, runs: Sequence[int], device: torch.device) -> None:
    """All that is asked for of these runs, on this rank."""
    backend = "cpu:gloo,cuda:nccl" if task.device == "cuda" else "gloo"
    if task.variant.world_size == 1:
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)  # type: ignore[attr-defined]
    else:
        dist.init_process_group(backend)
    trained = [run for run in runs if task.trains[run]]
    twin = build(exactly(task), device) if task.filter_steps and trained else None
    for run in trained:
        train(task, run, device, twin)
    dist.barrier()
    if task.token_rows is not None:
        gc.collect()  # the last model that was trained
        measure(task, runs, task.token_rows, twin or build(exactly(task), device), device)


def train(task: ReferenceTask, run: int, device: torch.device, twin: nn.Module | None) -> None:
    """One run; leaves state and record in its folder, and directions where there is a twin to find them."""
    trained = fit(task, run, device, twin)
    output = task.output / f"run{run}"
    save(trained, output)
    if dist.get_rank() == 0 and trained.directions:
        save_file(trained.directions, output / DIRECTIONS)


@dataclass(frozen=True)
class Trained:
    """What came of a run.

    Attributes:
        losses: float32 [steps, rows of all ranks].
        values: float32 [steps + 1, samples], of the sampled coordinates.
        directions: float32 [steps looked at, samples] by what is left out.
    """

    model: nn.Module
    losses: torch.Tensor
    values: torch.Tensor
    directions: dict[str, torch.Tensor]


def fit(task: ReferenceTask, run: int, device: torch.device, twin: nn.Module | None) -> Trained:
    """Train from the initial weights; in some steps directions are computed, if there is a twin."""
    settings, cheats = task.optimizers[run], task.variant.cheats
    torch.manual_seed(0)
    model = build(task, device)
    optimizer = build_optimizer(settings, model)
    recorder = Recorder(model, load_file(task.coordinates))
    losses, values = defaultdict[int, list[torch.Tensor]](list), {0: recorder.values()}
    ties = NearTies(task.variant, device)
    native = task.variant.native_products
    products = nullcontext() if native else fast_products(task.variant.compute_dtype, device)
    gradients = GradientCheats(cheats, model)
    filters = Filters(task.variant, settings, model, optimizer, recorder, twin) if twin else None
    served = Rows(challenge_tokens(task.challenges[run]), dist.get_rank(), dist.get_world_size())
    for step, batch in turns(cheats, served, model, optimizer):
        with products, ties if task.variant.near_ties else nullcontext():
            losses[step].append(backward(model, batch.to(device), task.variant))
        if filters is not None and step in task.filter_steps[run]:
            filters.look(step, batch.to(device))
        gradients.change()
        if settings.max_grad_norm is not None:
            nn.utils.clip_grad_norm_(model.parameters(), settings.max_grad_norm)
        for group in optimizer.param_groups:
            group.update(step_settings(cheats, settings, step))
        optimizer.step()
        round_state(optimizer, getattr(torch, task.variant.state_dtype))
        change_state(cheats, optimizer)
        optimizer.zero_grad(set_to_none=True)
        values[step + 1] = recorder.values()
    mine = torch.stack([torch.cat(parts) for parts in losses.values()])
    rows = torch.cat(all_gather(mine), dim=1)
    found = filters.directions.items() if filters is not None else ()
    directions = {words: torch.stack(steps) for words, steps in found if steps}
    return Trained(model, rows, torch.stack(list(values.values())), directions)


def save(trained: Trained, output: Path) -> None:
    """The final state, every rank its shards, and the record."""
    rank = dist.get_rank()
    mine = {
        name: tensor
        for name, tensor in trained.model.state_dict().items()
        if rank == 0 or isinstance(tensor, DTensor)
    }
    write_opened(output / STATE, local_boxes(mine, ModelNames({})), shard=rank + 1)
    if rank == 0:
        save_file({"losses": trained.losses, "values": trained.values}, output / RECORD)


def all_gather(losses: torch.Tensor) -> list[torch.Tensor]:
    """[steps, rows of a rank] of every rank, in rank order."""
    parts = [torch.empty_like(losses) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, losses)
    return parts


if __name__ == "__main__":
    main()
