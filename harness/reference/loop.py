"""The trusted training loop: `python -m harness.reference.loop TASK.json`, on one rank or by torchrun.

FSDP2 over any number of ranks, one included, written to be read: every rank takes its part of the
global batch, the gradients are averaged, the benchmark's optimizer makes a step. It leaves, for every
run, the final state as sharded safetensors, the loss of every row at every step, and the value of the
sampled coordinates before and after every step; then, where they are wanted, losses of tokens under final
weights (`token_losses.py`). `harness/reference/launch.py` launches it.
"""

import gc
import os
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from env.data import Rows, challenge_tokens
from env.model import load_model
from env.result import ModelNames, local_boxes
from harness.benchmark.problem import AdamW, Sgd
from harness.protocol.opening import write_opened
from harness.reference.cheats.gradients import GradientCheats
from harness.reference.cheats.optimizer import change_state, cheated_settings
from harness.reference.cheats.passes import cheating
from harness.reference.cheats.tokens import token_weights
from harness.reference.products import fast_products
from harness.reference.task import FINISHED, RECORD, STATE, ReferenceTask, Variant
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
    for run, (challenge, settings) in enumerate(zip(task.challenges, task.optimizers, strict=True)):
        if task.trains[run]:
            train(task, challenge, settings, task.output / f"run{run}", device)
    dist.barrier()
    if task.token_rows is not None:
        gc.collect()  # the last model that was trained
        exact = task.variant.model_copy(update={"compute_dtype": "float32"})
        model = build(task.model_copy(update={"variant": exact}), device)
        measure(task, task.token_rows, model, device)
    (task.output / f"{FINISHED}{dist.get_rank()}").touch()
    sys.stdout.flush()
    os._exit(0)  # a correct run can still abort while the interpreter exits: the markers count


def train(
    task: ReferenceTask, challenge: Path, settings: Sgd | AdamW, output: Path, device: torch.device
) -> None:
    """One run from the initial weights; leaves the state and the record in `output`."""
    rank = dist.get_rank()
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
    for batch in Rows(challenge_tokens(challenge), rank, dist.get_world_size()):
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


def build(task: ReferenceTask, device: torch.device) -> nn.Module:
    """The model, sharded layer by layer."""
    variant = task.variant
    model = load_model(
        task.model_dir,
        device,
        # FSDP2 moves each shard to the GPU, so the whole model need never be there.
        "device" if device.type == "cpu" else "cpu",
        getattr(torch, task.param_dtype),
        attention=variant.attention,
        experts=variant.experts,
    )
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    policy = MixedPrecisionPolicy(
        param_dtype=getattr(torch, variant.compute_dtype),
        reduce_dtype=getattr(torch, variant.reduce_dtype),
    )
    blocks = set(getattr(model, "_no_split_modules", None) or ())
    for module in model.modules():
        if type(module).__name__ in blocks:
            fully_shard(module, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)
    return model


def build_optimizer(settings: Sgd | AdamW, model: nn.Module) -> torch.optim.Optimizer:
    """What the benchmark asks for, over all parameters in one group."""
    if isinstance(settings, Sgd):
        return torch.optim.SGD(
            model.parameters(),
            lr=settings.lr,
            weight_decay=settings.weight_decay,
            momentum=settings.momentum,
        )
    return torch.optim.AdamW(
        model.parameters(),
        lr=settings.lr,
        betas=(settings.beta1, settings.beta2),
        eps=settings.eps,
        weight_decay=settings.weight_decay,
    )


def round_state(optimizer: torch.optim.Optimizer, dtype: torch.dtype) -> None:
    """Momenta and second moments to the values that `dtype` has; counts of steps stay as they are."""
    if dtype is torch.float32:
        return
    for state in optimizer.state.values():
        for value in state.values():
            if isinstance(value, torch.Tensor) and value.ndim:
                value.copy_(value.to(dtype))


def backward(model: nn.Module, batch: torch.Tensor, variant: Variant) -> torch.Tensor:
    """Gradients of one step on this rank's rows, averaged over the ranks by FSDP2.

    Args:
        batch: int64 [rows, sequence_length].
        variant: says in how many micro-batches; the gradient is the mean over all rows.

    Returns:
        float32 [rows] on the CPU: mean cross-entropy of each row, nats per token.
    """
    losses = []
    for rows in batch.tensor_split(variant.micro_batches):
        with cheating(variant.cheats, model):
            logits = model(input_ids=rows[:, :-1], use_cache=False).logits.float()
        tokens = F.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten(), reduction="none")
        tokens = tokens.view(len(rows), -1)
        counted = (tokens * token_weights(variant.cheats, tokens)).mean(dim=1)
        (counted.sum() / len(batch)).backward()
        losses.append(tokens.detach().mean(dim=1).cpu())
    return torch.cat(losses)


class NearTies(TorchFunctionMode):
    """Decides near ties of every top-k choice at random, as rounding does once in a while.

    Two experts whose scores differ by less than the rounding of a kernel are chosen by that rounding,
    so two honest runs send such a token to different experts. It is rare enough in float32 to be
    missing from a calibration, and large enough to reject an honest run that meets it. Only the
    choice is disturbed; the scores that are used are the true ones.
    """

    def __init__(self, variant: Variant, device: torch.device) -> None:
        super().__init__()
        self._size = variant.near_ties
        self._generator = torch.Generator(device).manual_seed(dist.get_rank())

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func not in (torch.topk, torch.Tensor.topk):
            return func(*args, **(kwargs or {}))
        scores, *rest = args
        noise = torch.randn(
            scores.shape, generator=self._generator, device=scores.device, dtype=scores.dtype
        )
        chosen = func(scores.detach() * (1 + self._size * noise), *rest, **(kwargs or {})).indices
        dim = (kwargs or {}).get("dim", rest[1] if len(rest) > 1 else -1)
        return torch.return_types.topk((scores.gather(dim, chosen), chosen))


class Recorder:
    """Reads sampled coordinates of a sharded model, the same values on every rank."""

    def __init__(self, model: nn.Module, coordinates: dict[str, torch.Tensor]) -> None:
        """`coordinates` maps a tensor's name to int64 flat indices, row-major."""
        self._model = model
        self._samples = sum(len(indices) for indices in coordinates.values())
        self._parts: list[tuple[str, torch.Tensor, torch.Tensor]] = []
        boxes = {box.name: box for box in local_boxes(model.state_dict(), ModelNames({}))}
        base = 0
        for name, indices in sorted(coordinates.items()):
            if name in boxes:
                box = boxes[name]
                # FSDP2 shards the first dimension, so a shard is one range of flat indices.
                start = box.offset[0] * box.tensor[0].numel() if box.offset else 0
                mine = (indices >= start) & (indices < start + box.tensor.numel())
                positions = base + mine.nonzero().flatten()
                self._parts.append((name, (indices[mine] - start), positions))
            base += len(indices)

    def values(self) -> torch.Tensor:
        """float32 [samples], in the order of the sorted names."""
        state = self._model.state_dict()
        values = torch.zeros(self._samples)
        for name, indices, positions in self._parts:
            tensor = state[name]
            if isinstance(tensor, DTensor):
                tensor = tensor.to_local()
            elif dist.get_rank() > 0:
                continue  # every rank holds it whole
            values[positions] = tensor.flatten()[indices.to(tensor.device)].float().cpu()
        dist.all_reduce(values)  # each coordinate comes from one rank: a sum with zeros is exact
        return values


def all_gather(losses: torch.Tensor) -> list[torch.Tensor]:
    """[steps, rows of a rank] of every rank, in rank order."""
    parts = [torch.empty_like(losses) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, losses)
    return parts


if __name__ == "__main__":
    main()
