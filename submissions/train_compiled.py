"""Data parallelism with a compiled model: fewer passes over memory, the same gradients.

As in `train_ddp.py`, every rank holds the whole model and its own rows, and DDP averages the gradients.
What torch.compile adds here:

- It compiles one decoder layer, not the model. All layers have the same code, so they share what was
  compiled once ("regional compilation"): seconds instead of minutes.
- The experts run as grouped products. Their cost does not depend on which expert a token chose, so
  nothing in the compiled code depends on the data, and nothing is compiled again on new tokens.
- Compilation happens at the first call. `setup` makes that call, on random tokens: it is not timed.

Inductor, torch.compile's own backend, generates Triton kernels for a GPU and C++ for a CPU. On a CPU it
gives the same weights, but needs a C++ compiler. Without one, torch 2.13 raises

    InvalidCxxCompiler: No working C++ compiler found in torch._inductor.config.cpp.cxx: (None, 'g++')

and with one, `setup` took 35 s for both ranks on two idle cores and 107 s on busy ones: the benchmark's
limit is 120 s. So on a CPU this file uses `aot_eager`, which traces forward and backward in the same way
and then runs torch's own kernels: it shows that the model can be compiled, and is no faster.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from env.benchmark import hparams  # what hparams.json says; hard-coding the values works too

COMPUTE = getattr(torch, hparams.numerics.compute_dtype)  # of matrix products; parameters: float32
CPU_BACKEND = "aot_eager"  # "inductor" works too where there is g++ and time


def get_strategy() -> dict[str, int]:
    """Read from the source, never called: it must return a literal. Axes left out are 1."""
    return {"dp_size": 2}


@dataclass
class InnerStepsResult:
    final_loss: float  # mean loss of the last step, over this rank's rows
    total_tokens: int  # tokens that this rank was given
    final_state: dict[str, Tensor] | None  # names to the trained weights, on rank 0
    final_logits: Tensor | None = None  # optional, never compared


def setup(model: nn.Module, device: torch.device, num_gpus: int) -> nn.Module:
    """Off the clock, called again for every run. The process group is already initialised."""
    model.set_experts_implementation("grouped_mm")
    for layer in model.model.layers:
        # In place: names stay as they are.
        layer.compile(backend="inductor" if device.type == "cuda" else CPU_BACKEND)
    model = DistributedDataParallel(
        model.to(device),
        forward_sync_buffers=False,  # rotary frequencies: the same everywhere, and never trained
        gradient_as_bucket_view=True,  # saves a copy of all gradients
    )
    shape = (hparams.global_batch // num_gpus, hparams.sequence_length)
    vocabulary = model.module.config.vocab_size
    mean_loss(model, torch.randint(vocabulary, shape, device=device)).backward()
    model.zero_grad()
    return model


def mean_loss(model: nn.Module, batch: Tensor) -> Tensor:
    """Mean cross-entropy of predicting each token from those before it, in float32."""
    with torch.autocast(batch.device.type, torch.bfloat16, enabled=COMPUTE is torch.bfloat16):
        logits = model(input_ids=batch[:, :-1], use_cache=False).logits
    return F.cross_entropy(logits.float().flatten(0, 1), batch[:, 1:].flatten())


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
    optimizer = make_optimizer(model.parameters())
    total_tokens = 0
    for step in range(num_steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step)
        batch = next(data_iterator).to(device)  # int64 [rows of this rank, sequence_length]
        loss = mean_loss(model, batch)
        loss.backward()  # DDP averages the gradients while backward still runs
        if hparams.optimizer.max_grad_norm is not None:
            # The averaged gradients are the same on every rank, and so is their norm.
            nn.utils.clip_grad_norm_(model.parameters(), hparams.optimizer.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        total_tokens += batch.numel()
    # All ranks hold the same weights, so one full state dict is enough.
    state = None
    if dist.get_rank() == 0:
        state = {name: tensor.cpu() for name, tensor in model.state_dict().items()}
    return InnerStepsResult(loss.item(), total_tokens, state)
