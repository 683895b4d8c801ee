"""Context parallelism: every rank holds the whole model and a part of every sequence.

For sequences that are too long for one device. All layers but attention treat each token alone, so
they just run on the rank's own tokens. In attention a rank has the queries of its own tokens, and
gathers the keys and values of all:

    forward:  all-gather keys and values  -> attention of own queries
    backward: attention's gradients       -> sum over the ranks, keep those of own keys and values

In causal attention late tokens have more to look at than early ones. So the sequence is cut into
2 * ranks chunks, and rank r takes chunks r and 2 * ranks - 1 - r: all ranks have the same work.

    2 ranks, chunks 0 1 2 3:   rank 0 has 0 and 3, rank 1 has 1 and 2

1. Positions (for the rotary embedding) and labels are those in the whole sequence.
2. The loss is the sum over own tokens divided by the number of labels of the *whole* batch; gradients
   are summed over the ranks. The last token of a row has no label, so ranks have different numbers
   of labels, and a mean of the ranks' means would be wrong.
3. Keys' and values' gradients come from the queries of all ranks: the sum in the backward of the
   all-gather. Gradients of parameters then need nothing but rule 2.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface

from env.benchmark import hparams  # what hparams.json says; hard-coding the values works too

COMPUTE = getattr(torch, hparams.numerics.compute_dtype)  # of matrix products; parameters: float32
NO_LABEL = -100  # what cross_entropy leaves out


def get_strategy() -> dict[str, int]:
    """Read from the source, never called: it must return a literal. Axes left out are 1."""
    return {"cp_size": 2}


@dataclass
class InnerStepsResult:
    final_loss: float  # mean loss of the last step, over all rows
    total_tokens: int  # tokens that this rank was given
    final_state: dict[str, Tensor] | None  # names to the trained weights, on rank 0
    final_logits: Tensor | None = None  # optional, never compared


class GatherRanks(torch.autograd.Function):
    """[...] on each rank -> [ranks, ...]. Every rank uses it, so gradients are summed backward."""

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        whole = own.new_empty(dist.get_world_size() * len(own), *own.shape[1:])
        dist.all_gather_single(whole, own.contiguous())
        return whole.unflatten(0, (-1, len(own)))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        own = torch.empty_like(gradient[0])
        dist.reduce_scatter_single(own, gradient.flatten(0, 1).contiguous())
        return own


def own_chunks() -> tuple[int, int]:
    rank, ranks = dist.get_rank(), dist.get_world_size()
    return rank, 2 * ranks - 1 - rank


def own_part(tokens: Tensor) -> Tensor:
    """[rows, length] -> [rows, length / ranks]: this rank's two chunks, all of equal length."""
    chunks = tokens.chunk(2 * dist.get_world_size(), dim=1)
    return torch.cat([chunks[chunk] for chunk in own_chunks()], dim=1)


def in_sequence_order(gathered: Tensor) -> Tensor:
    """[ranks, ..., own length, D] -> [..., length, D]: undo `own_part` along the last but one."""
    early, late = gathered.chunk(2, dim=-2)  # rank r's chunks r and 2 * ranks - 1 - r
    return torch.cat([*early, *late.flip(0)], dim=-2)


def context_parallel_attention(
    module: nn.Module,
    query: Tensor,  # [rows, heads, own length, D]
    key: Tensor,  # [rows, key heads, own length, D]
    value: Tensor,  # as key
    attention_mask: None,  # transformers makes none for an attention that it does not know
    scaling: float,
    **_: object,
) -> tuple[Tensor, None]:
    """Causal attention of own queries to the keys of the whole sequence."""
    # Under autocast q and k come from their norms in float32; no need to send them like that.
    query, key = query.to(value.dtype), key.to(value.dtype)
    whole = GatherRanks.apply(torch.stack([key, value]))  # one message, [ranks, 2, rows, ...]
    key, value = in_sequence_order(whole)
    outputs = []
    for chunk, part in zip(own_chunks(), query.chunk(2, dim=2), strict=True):
        length = part.shape[2]
        seen = (chunk + 1) * length  # no later keys: this is what makes early chunks cheap
        mask = torch.ones(length, seen, dtype=torch.bool, device=part.device)
        output = F.scaled_dot_product_attention(
            part,
            key[:, :, :seen],
            value[:, :, :seen],
            attn_mask=mask.tril(diagonal=seen - length),  # the last query sees all of them
            scale=scaling,
            enable_gqa=True,  # several query heads share one key head
        )
        outputs.append(output)
    return torch.cat(outputs, dim=2).transpose(1, 2), None


AttentionInterface.register("context_parallel", context_parallel_attention)


def setup(model: nn.Module, device: torch.device, num_gpus: int) -> nn.Module:
    """Off the clock, called again for every run. The process group is already initialised."""
    model.set_attn_implementation("context_parallel")
    return model.to(device)


def share_of_loss(model: nn.Module, batch: Tensor) -> Tensor:
    """Sum of own tokens' cross-entropies in float32, over the number of the whole batch's labels.

    The whole row is the input, although its last token predicts nothing: nobody looks back at it, and
    the length of a row is easier to divide than that length minus one.
    """
    labels = F.pad(batch[:, 1:], (0, 1), value=NO_LABEL)
    positions = torch.arange(batch.shape[1], device=batch.device).unsqueeze(0)
    with torch.autocast(batch.device.type, torch.bfloat16, enabled=COMPUTE is torch.bfloat16):
        logits = model(
            input_ids=own_part(batch), position_ids=own_part(positions), use_cache=False
        ).logits
    own = own_part(labels).flatten()
    total = F.cross_entropy(
        logits.float().flatten(0, 1), own, ignore_index=NO_LABEL, reduction="sum"
    )
    return total / (labels != NO_LABEL).sum()  # rule 2


def sum_over_ranks(parameters: list[nn.Parameter]) -> None:
    """Sum gradients in place, as one message: many small ones would each cost a round trip."""
    gradients = [parameter.grad for parameter in parameters]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    parts = flat.split([gradient.numel() for gradient in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view_as(gradient))


def make_optimizer(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """The benchmark's: SGD or AdamW."""
    settings = hparams.optimizer
    if settings.name == "sgd":
        return torch.optim.SGD(
            parameters,
            lr=settings.lr,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
        )
    return torch.optim.AdamW(
        parameters,
        lr=settings.lr,
        betas=(settings.beta1, settings.beta2),
        eps=settings.eps,
        weight_decay=settings.weight_decay,
    )


def learning_rate(step: int) -> float:
    """Linear warm-up; `step` counts from 0."""
    settings = hparams.optimizer
    return settings.lr * min(1.0, (step + 1) / max(1, settings.warmup_steps))


def inner_steps(
    model: nn.Module,
    data_iterator: Iterator[Tensor],
    optimizer: torch.optim.Optimizer | None,  # None: every train file brings its own
    num_steps: int,
    device: torch.device,
    num_gpus: int = 1,
) -> InnerStepsResult:
    parameters = list(model.parameters())
    optimizer = make_optimizer(parameters)
    total_tokens = 0
    for step in range(num_steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step)
        batch = next(data_iterator).to(device)  # int64 [rows, sequence_length], equal on all ranks
        loss = share_of_loss(model, batch)
        loss.backward()
        sum_over_ranks(parameters)
        if hparams.optimizer.max_grad_norm is not None:
            # The summed gradients are the same on every rank, and so is their norm.
            nn.utils.clip_grad_norm_(parameters, hparams.optimizer.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        total_tokens += batch.numel()
    dist.all_reduce(loss.detach_())
    # All ranks hold the same weights, so one full state dict is enough.
    state = None
    if dist.get_rank() == 0:
        state = {name: tensor.cpu() for name, tensor in model.state_dict().items()}
    return InnerStepsResult(loss.item(), total_tokens, state)
