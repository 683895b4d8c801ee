"""Tensor parallelism with sequence parallelism: every rank holds a slice of every large matrix.

All ranks are given the same rows. Between the blocks each rank holds its own stretch of the sequence;
inside a block all ranks see all tokens, and each computes with its slice of the weights:

    norm (own tokens) -> all-gather -> own heads                    -> reduce-scatter -> own tokens
    norm, router      -> all-gather -> own slice of every expert    -> reduce-scatter -> own tokens
    norm              -> all-gather -> own part of the vocabulary   -> loss, never gathering the logits

The backward pass mirrors it: an all-gather becomes a reduce-scatter and the other way round. Who holds
what decides what is still to be done with a gradient:

1. Sliced weights (projections, experts, embedding, head) have seen every token: they are complete.
2. Replicated weights have seen only a part of the work on each rank, and are *summed* over the ranks:
   layer norms and router the rank's own tokens, `q_norm` and `k_norm` (one weight shared by all heads)
   the rank's own heads. Without this sum the loss looks right for a long time; the weights are wrong.
3. Nothing is averaged: the loss is the mean over all rows on every rank.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import (
    DTensor,
    Partial,
    Replicate,
    Shard,
    distribute_module,
    distribute_tensor,
)
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    PrepareModuleInput,
    RowwiseParallel,
    SequenceParallel,
    loss_parallel,
    parallelize_module,
)

from env.benchmark import hparams  # what hparams.json says; hard-coding the values works too

COMPUTE = getattr(torch, hparams.numerics.compute_dtype)
NO_LABEL = -100  # cross_entropy leaves these positions out of the sum and out of the count


def get_strategy() -> dict[str, int]:
    """Read from the source, never called: it must return a literal. Axes left out are 1."""
    return {"tp_size": 2}


@dataclass
class InnerStepsResult:
    final_loss: float  # mean loss of the last step, over all rows
    total_tokens: int  # tokens that this rank was given
    final_state: dict[str, Tensor] | None  # names to this rank's slices of the trained weights
    final_logits: Tensor | None = None  # optional, never compared


def all_tokens(own: Tensor, mesh: DeviceMesh) -> Tensor:
    """[n, ...] on each rank -> [ranks * n, ...]. Each rank computes only a part of what the tokens
    lead to, so on the way back their gradients are partial sums: a reduce-scatter adds them up."""
    tokens = DTensor.from_local(own, mesh, [Shard(0)], run_check=False)
    return tokens.redistribute(placements=[Replicate()]).to_local(grad_placements=[Partial()])


def own_tokens(partial: Tensor, mesh: DeviceMesh) -> Tensor:
    """[ranks * n, ...] on each rank -> [n, ...]: this rank's tokens of the sum over the ranks."""
    whole = DTensor.from_local(partial, mesh, [Partial()], run_check=False)
    return whole.redistribute(placements=[Shard(0)]).to_local()


class SlicedExperts(nn.Module):
    """A slice of every expert: column-wise gate and up, row-wise down. Replaces `mlp.experts`."""

    def __init__(self, experts: nn.Module, mesh: DeviceMesh) -> None:
        super().__init__()
        self.mesh = mesh
        gate_up = experts.gate_up_proj.detach()  # [E, 2I, H]: all gates, then all ups
        total, width, hidden = gate_up.shape
        # Reordered so that cutting dimension 1 gives a rank the same rows of gate as of up.
        parts = gate_up.view(total, 2, mesh.size(), width // 2 // mesh.size(), hidden)
        gate_up = parts.transpose(1, 2).reshape(total, width, hidden)
        self.gate_up_proj = shard(gate_up, mesh, dim=1)
        self.down_proj = shard(experts.down_proj.detach(), mesh, dim=2)

    def forward(self, hidden: Tensor, chosen: Tensor, weight: Tensor) -> Tensor:
        """Own tokens: hidden [n, H]; chosen experts (int64) and their weights, both [n, top_k]."""
        hidden = hidden.to(COMPUTE)
        # Hidden states and routing weights travel in one message: both need the same backward.
        routing = hidden.new_zeros(len(hidden), len(self.gate_up_proj))
        routing = routing.scatter(1, chosen, weight.to(COMPUTE))
        packed = all_tokens(torch.cat([hidden, routing], dim=1), self.mesh)
        hidden, routing = packed.split([hidden.shape[1], routing.shape[1]], dim=1)

        # (expert, token) pairs, sorted by expert for the grouped products.
        expert, token = routing.T.nonzero(as_tuple=True)
        ends = expert.bincount(minlength=routing.shape[1]).cumsum(0).int()
        gate_up_proj = self.gate_up_proj.to_local().to(COMPUTE)
        down_proj = self.down_proj.to_local().to(COMPUTE)
        gate_up = F.grouped_mm(
            hidden.index_select(0, token), gate_up_proj.transpose(1, 2), offs=ends
        )
        gate, up = gate_up.chunk(2, dim=-1)
        output = F.grouped_mm(F.silu(gate) * up, down_proj.transpose(1, 2), offs=ends)
        output = output * routing[token, expert].unsqueeze(1)
        return own_tokens(torch.zeros_like(hidden).index_add(0, token, output), self.mesh)


def shard(tensor: Tensor, mesh: DeviceMesh, dim: int) -> nn.Parameter:
    """Every rank has the whole tensor and keeps its slice: nothing is sent."""
    return nn.Parameter(distribute_tensor(tensor, mesh, [Shard(dim)], src_data_rank=None))


class RouterOnOwnTokens(ParallelStyle):
    """The router's weight on every rank, applied to the rank's own tokens [n, H]."""

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        def wrap(module: nn.Module, inputs: Any, mesh: DeviceMesh) -> DTensor:
            return DTensor.from_local(inputs[0], mesh, [Shard(0)], run_check=False)

        def unwrap(module: nn.Module, outputs: Any, mesh: DeviceMesh) -> tuple[Tensor, ...]:
            return tuple(output.to_local() for output in outputs)

        return distribute_module(module, device_mesh, input_fn=wrap, output_fn=unwrap)


def setup(model: nn.Module, device: torch.device, num_gpus: int) -> nn.Module:
    """Off the clock, called again for every run. The process group is already initialised."""
    mesh = init_device_mesh(device.type, (num_gpus,))
    layer_plan = {
        "input_layernorm": SequenceParallel(use_local_output=True),
        "self_attn": PrepareModuleInput(
            input_kwarg_layouts={"hidden_states": Shard(1)},
            desired_input_kwarg_layouts={"hidden_states": Replicate()},
        ),
        "self_attn.q_proj": ColwiseParallel(),
        "self_attn.k_proj": ColwiseParallel(),
        "self_attn.v_proj": ColwiseParallel(),
        # [rows, sequence, heads, head_dim]: it is the heads that are cut here, not the sequence.
        "self_attn.q_norm": SequenceParallel(sequence_dim=2, use_local_output=True),
        "self_attn.k_norm": SequenceParallel(sequence_dim=2, use_local_output=True),
        "self_attn.o_proj": RowwiseParallel(output_layouts=Shard(1)),
        "post_attention_layernorm": SequenceParallel(use_local_output=True),
        "mlp.gate": RouterOnOwnTokens(),
    }
    for layer in model.model.layers:
        layer.mlp.experts = SlicedExperts(layer.mlp.experts, mesh)
        parallelize_module(layer, mesh, layer_plan)
    model_plan = {
        # Whole at first, because the model derives positions and mask from it; then cut.
        "model.embed_tokens": RowwiseParallel(input_layouts=Replicate()),
        "model.layers.0": PrepareModuleInput(
            input_layouts=(Replicate(),),
            desired_input_layouts=(Shard(1),),
            use_local_output=True,
        ),
        "model.norm": SequenceParallel(),
        "lm_head": ColwiseParallel(input_layouts=Shard(1), use_local_output=False),
    }
    parallelize_module(model, mesh, model_plan)
    # Every weight went to the device when it was cut; what is left are the rotary frequencies.
    return model.to(device)


def mean_loss(model: nn.Module, batch: Tensor, device: torch.device) -> Tensor:
    """Mean cross-entropy of predicting each token from those before it, in float32.

    The last token, which predicts nothing, goes in as well: a sequence must divide by the ranks. No
    other token sees it and it has no label, so it changes neither the loss nor a gradient.
    """
    with torch.autocast(device.type, torch.bfloat16, enabled=COMPUTE is torch.bfloat16):
        logits = model(input_ids=batch, use_cache=False).logits  # cut along the vocabulary
    labels = F.pad(batch[:, 1:], (0, 1), value=NO_LABEL)
    return F.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), ignore_index=NO_LABEL)


def sum_partial_gradients(model: nn.Module) -> None:
    """Rule 2. DTensor knows which gradients are partial sums: those of the replicated weights."""
    for parameter in model.parameters():
        parameter.grad = parameter.grad.redistribute(placements=parameter.placements)


def make_optimizer(parameters: Any) -> torch.optim.Optimizer:
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
    """Linear warm-up; steps count from 0."""
    settings = hparams.optimizer
    return settings.lr * min(1.0, (step + 1) / max(1, settings.warmup_steps))


def inner_steps(
    model: nn.Module,
    data_iterator: Iterator[Tensor],
    optimizer: object,  # None: every train file brings its own
    num_steps: int,
    device: torch.device,
    num_gpus: int = 1,
) -> InnerStepsResult:
    optimizer = make_optimizer(model.parameters())
    total_tokens = 0
    for step in range(num_steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step)
        batch = next(data_iterator).to(device)  # int64 [rows, sequence_length], equal on all ranks
        with loss_parallel():  # softmax and its gradient over a vocabulary that nobody holds whole
            loss = mean_loss(model, batch, device)
            loss.backward()
        sum_partial_gradients(model)
        if hparams.optimizer.max_grad_norm is not None:
            # The norm of DTensors is that of the whole tensors: slices add up, copies count once.
            nn.utils.clip_grad_norm_(model.parameters(), hparams.optimizer.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        total_tokens += batch.numel()
    return InnerStepsResult(loss.full_tensor().item(), total_tokens, final_state(model))


def final_state(model: nn.Module) -> dict[str, Tensor]:
    """This rank's slices as DTensors, which say where they belong.

    A rank's rows of `gate_up_proj` are two separate stretches of the tensor, so they go in under the
    names that checkpoints have for them, one matrix for each expert.
    """
    state = {}
    for name, tensor in model.state_dict().items():
        if not name.endswith("experts.gate_up_proj"):
            state[name] = tensor
            continue
        experts = name.removesuffix(".gate_up_proj")
        gate, up = tensor.to_local().chunk(2, dim=1)
        for matrix, local in (("gate_proj", gate), ("up_proj", up)):
            for number, rows in enumerate(local):
                state[f"{experts}.{number}.{matrix}.weight"] = DTensor.from_local(
                    rows, tensor.device_mesh, [Shard(0)], run_check=False
                )
    return state
