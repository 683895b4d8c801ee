"""Pipeline parallelism: every rank holds some of the layers, and micro-batches pass through them.

    rank 0: embedding, layers 0 and 1        rank 1: layers 2 and 3, last norm, head, loss

The rows of a batch are cut into micro-batches, so that the ranks work at the same time: while rank 1
has the first micro-batch, rank 0 has the second. The schedule is 1F1B: as soon as a rank can, it
does one forward and one backward in turn, so it keeps activations of few micro-batches. A stage sends
its hidden states to the next one, and gets back their gradient.

1. No gradient is reduced over the ranks: every parameter lives on one rank, which sees all rows.
2. The gradient is the mean over the micro-batches. They have equally many tokens, so this is the mean
   over all tokens (`scale_grads` of the schedule divides the sum by the number of micro-batches).
3. The gradient norm is over all stages, so its squares are summed over the ranks.

Only the last stage knows the loss; the others report None. Each rank returns its own layers as whole
tensors under the names that they have in the whole model.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.pipelining import PipelineStage, Schedule1F1B

from env.benchmark import hparams  # what hparams.json says; hard-coding the values works too

COMPUTE = getattr(torch, hparams.numerics.compute_dtype)  # of matrix products; parameters: float32
MICRO_BATCHES = 4  # more keep the ranks busier, fewer give larger matrix products


def get_strategy() -> dict[str, int]:
    """Read from the source, never called: it must return a literal. Axes left out are 1."""
    return {"pp_size": 2}


@dataclass
class InnerStepsResult:
    final_loss: float | None  # mean loss of the last step over all rows; None but on the last stage
    total_tokens: int  # tokens that this rank was given
    final_state: dict[str, Tensor] | None  # names to the trained weights of this rank's layers
    final_logits: Tensor | None = None  # optional, never compared


class Stage(nn.Module):
    """One rank's part of the model. Its modules sit where the whole model has them: same names."""

    def __init__(self, whole: nn.Module, index: int, stages: int) -> None:
        super().__init__()
        decoder = whole.model
        layers = len(decoder.layers)
        mine = range(layers * index // stages, layers * (index + 1) // stages)
        self.model = nn.Module()
        self.model.layers = nn.ModuleDict({str(number): decoder.layers[number] for number in mine})
        self.model.rotary_emb = decoder.rotary_emb  # computed, not trained: every stage has it
        self.first, self.last = index == 0, index == stages - 1
        if self.first:
            self.model.embed_tokens = decoder.embed_tokens
        if self.last:
            self.model.norm = decoder.norm
            self.lm_head = whole.lm_head

    def forward(self, received: Tensor) -> Tensor:
        """Token ids [rows, length] or hidden states [rows, length, H] -> hidden states or logits."""
        device = received.device
        with torch.autocast(device.type, torch.bfloat16, enabled=COMPUTE is torch.bfloat16):
            hidden = self.model.embed_tokens(received) if self.first else received
            positions = torch.arange(hidden.shape[1], device=device).unsqueeze(0)
            rotary = self.model.rotary_emb(hidden, positions)
            for layer in self.model.layers.values():
                # No mask: without one, transformers' SDPA attention is causal.
                hidden = layer(hidden, attention_mask=None, position_embeddings=rotary)
            return self.lm_head(self.model.norm(hidden)) if self.last else hidden


def setup(model: nn.Module, device: torch.device, num_gpus: int) -> nn.Module:
    """Off the clock, called again for every run. The process group is already initialised."""
    return Stage(model, dist.get_rank(), num_gpus).to(device)


def mean_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of one micro-batch in float32; the schedule takes the mean over them."""
    return F.cross_entropy(logits.float().flatten(0, 1), labels.flatten())


def clip(parameters: list[nn.Parameter], max_norm: float) -> None:
    """Scale the gradients so that their norm over all stages is at most `max_norm` (rule 3)."""
    squared = nn.utils.get_total_norm([p.grad for p in parameters]).square()
    dist.all_reduce(squared)
    nn.utils.clip_grads_with_norm_(parameters, max_norm, squared.sqrt())


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
    stage = PipelineStage(model, dist.get_rank(), num_gpus, device)
    schedule = Schedule1F1B(stage, MICRO_BATCHES, loss_fn=mean_loss, scale_grads=True)  # rule 2
    parameters = list(model.parameters())
    optimizer = make_optimizer(parameters)
    losses: list[Tensor] = []
    total_tokens = 0
    for step in range(num_steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step)
        batch = next(data_iterator).to(device)  # int64 [rows, sequence_length], equal on all ranks
        if model.first:
            schedule.step(batch[:, :-1])  # forward and backward of all micro-batches
        elif model.last:
            losses.clear()
            schedule.step(target=batch[:, 1:], losses=losses, return_outputs=False)
        else:
            schedule.step()
        if hparams.optimizer.max_grad_norm is not None:
            clip(parameters, hparams.optimizer.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        total_tokens += batch.numel()
    loss = torch.stack(losses).mean().item() if model.last else None
    return InnerStepsResult(loss, total_tokens, model.state_dict())
