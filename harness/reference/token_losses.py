"""The losses of sampled tokens under final weights, in float32: the reference's own, and submitted ones.

Part of the reference's launch, after all training: what was trained is written by then. A submitted state
is numbers in files that the judge has checked; they are copied into a model that trusted code has built,
and nothing else is done with them. With the reference's own losses go how sure its routers are.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Final

import numpy as np
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.nn import functional as F

from env.data import challenge_tokens
from env.result import ModelNames, local_boxes
from harness.reference.margins import Margins
from harness.reference.task import (
    MARGINS,
    REFERENCE,
    STATE,
    SUBMITTED,
    SUBMITTED_LOSSES,
    TOKEN_LOSSES,
    ReferenceTask,
    WeightFile,
    WeightPiece,
)
from harness.tensors.boxes import Box
from harness.tensors.shards import read_shard

#: By the name of a version.
Weights = Mapping[str, Iterable[WeightPiece]]
#: Rows of one forward pass.
ROWS_AT_ONCE: Final = 4


def measure(
    task: ReferenceTask, runs: Iterable[int], rows: Path, model: nn.Module, device: torch.device
) -> None:
    """For every one of these runs files with the losses, float32 [sampled rows, T], under each state.

    Args:
        rows: safetensors of int64 indices into the served rows, "run0", "run1", ...
        model: computes in float32; its weights are replaced.
    """
    sampled = load_file(rows)
    for run in runs:
        output = task.output / f"run{run}"
        served = challenge_tokens(task.challenges[run]).flatten(0, 1)
        tokens = served[sampled[f"run{run}"]].long()
        output.mkdir(exist_ok=True)
        own: Weights = {REFERENCE: trained(output / STATE)} if task.trains[run] else {}
        submitted: Weights = {
            f"{SUBMITTED}{number}": WeightFile.model_validate_json(file.read_bytes()).pieces
            for number, file in enumerate(task.submitted[run] if task.submitted else ())
        }
        for name, states in ((TOKEN_LOSSES, own), (SUBMITTED_LOSSES, submitted)):
            found = {}
            for version, weights in states.items():
                load(model, weights)
                own_state = version == REFERENCE
                found[version], margins = token_losses(model, tokens, device, own_state)
                if margins is not None:
                    found[MARGINS] = margins
            if dist.get_rank() == 0 and found:
                save_file(found, output / name)


def trained(folder: Path) -> list[WeightPiece]:
    """The final state that the ranks of this launch have written."""
    return [
        WeightPiece.of(entry)
        for file in sorted(folder.glob("*.safetensors"))
        for entry in read_shard(file, file.stat().st_size)
    ]


@torch.no_grad()
def load(model: nn.Module, weights: Iterable[WeightPiece]) -> None:
    """Put a state into the model: of every piece what lies in this rank's shards.

    Memory: that of the largest piece.
    """
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()  # the root keeps its weights gathered after a forward pass
    pieces = defaultdict(list)
    for piece in weights:
        pieces[piece.name].append(piece)
    for shard in local_boxes(model.state_dict(), ModelNames({})):
        box = Box(shard.offset, tuple(shard.tensor.shape))
        for piece in pieces[shard.name]:
            place = Box(piece.offset, piece.shape)
            if (common := box.intersect(place)) is not None:
                shard.tensor[common.within(box)] = _read(piece)[common.within(place)].to(
                    shard.tensor.device
                )


def _read(piece: WeightPiece) -> torch.Tensor:
    data = np.fromfile(piece.file, np.uint8, piece.size, offset=piece.start)
    return torch.from_numpy(data).view(getattr(torch, piece.dtype)).reshape(piece.shape)


@torch.no_grad()
def token_losses(
    model: nn.Module, rows: torch.Tensor, device: torch.device, with_margins: bool
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Cross-entropy of every token after the first of its row, nats; ranks share the rows.

    Args:
        rows: int64 [R, T + 1], the same on every rank.
        with_margins: listen to the routers too.

    Returns:
        Losses and the routers' margins, float32 [R, T] on the CPU, on every rank; None for margins where
        nobody listened, or there are no routers.
    """
    rank, world = dist.get_rank(), dist.get_world_size()
    # Every rank makes as many forward passes, since each gathers the weights of all.
    share = rows[torch.arange(rank, rank + -(-len(rows) // world) * world, world) % len(rows)]
    losses, margins = [], []
    with Margins.listening(model) if with_margins else nullcontext(Margins()) as routers:
        for some in share.to(device).split(ROWS_AT_ONCE):
            logits = model(input_ids=some[:, :-1], use_cache=False).logits.float()
            loss = F.cross_entropy(logits.flatten(0, 1), some[:, 1:].flatten(), reduction="none")
            losses.append(loss.view(len(some), -1).cpu())
            if (margin := routers.taken(losses[-1].shape)) is not None:
                margins.append(margin.cpu())
    return _of_all(losses, len(rows)), _of_all(margins, len(rows)) if margins else None


def _of_all(parts: list[torch.Tensor], rows: int) -> torch.Tensor:
    """[rows, T], of all ranks: row r is on rank r mod world size."""
    mine = torch.cat(parts)
    gathered = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(gathered, mine)
    return torch.stack(gathered, dim=1).flatten(0, 1)[:rows].contiguous()
