"""FSDP2 over tensor parallelism: a 2-D mesh, data parallel outside, tensor parallel inside.

    rank        0       1       2       3
    dp          0       0       1       1      each dp index has its own rows
    tp          0       1       0       1      each tp index has its own slice of every matrix

First every weight is cut over tp, as in `train_tp.py`: own heads, own slice of each expert, own part of
the vocabulary; hidden states cut along the sequence between the blocks. Then `fully_shard` cuts what a
rank has left over dp: a rank stores a quarter of the model. Before a layer runs, its slices are gathered
over dp (not over tp), and dropped after it. On a cluster tp stays within a machine: it sends activations
several times a layer, and waits for them; dp sends weights and gradients, beside the computation.

Which gradients are still to be reduced after backward: none, because FSDP2 does it all.

1. Over tp, the gradients of replicated weights (norms, router) are partial sums: `q_norm` and `k_norm` have
   seen the rank's own heads, the others its own tokens. Every parameter is a DTensor on the tp mesh, so
   FSDP2 sees the `Partial` placement and sums it. A plain parameter would be missed without an error.
2. Over dp they are averaged, straight into the shards: every dp index has equally many tokens, so the
   average of the gradients is the gradient of the mean over the global batch.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
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
TP_SIZE = 2  # as in get_strategy()
NO_LABEL = -100  # cross_entropy leaves these positions out of the sum and out of the count


def get_strategy() -> dict[str, int]:
    """Read from the source, never called: it must return a literal. Axes left out are 1."""
    return {"dp_size": 2, "tp_size": 2}


@dataclass
class InnerStepsResult:
    final_loss: float  # mean loss of the last step, over this dp index's rows
    total_tokens: int  # tokens that this rank was given
    final_state: dict[str, Tensor] | None  # names to this rank's shards of the trained weights
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
        # Hidden states and routing weights travel in one message: both need the same backward.
        routing = hidden.new_zeros(len(hidden), len(self.gate_up_proj))
        routing = routing.scatter(1, chosen, weight)
        packed = all_tokens(torch.cat([hidden, routing], dim=1), self.mesh)
        hidden, routing = packed.split([hidden.shape[1], routing.shape[1]], dim=1)

        # (expert, token) pairs, sorted by expert for the grouped products.
        expert, token = routing.T.nonzero(as_tuple=True)
        ends = expert.bincount(minlength=routing.shape[1]).cumsum(0).int()
        gate_up_proj = self.gate_up_proj.to_local()  # gathered over dp, in COMPUTE
        down_proj = self.down_proj.to_local()
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
    mesh = init_device_mesh(
        device.type, (num_gpus // TP_SIZE, TP_SIZE), mesh_dim_names=("dp", "tp")
    )
    cut_over_tp(model, mesh["tp"])
    policy = MixedPrecisionPolicy(param_dtype=COMPUTE, reduce_dtype=torch.float32)
    for layer in model.model.layers:
        fully_shard(layer, mesh=mesh["dp"], mp_policy=policy)  # one gather a layer
    # The root takes what is left: embedding, last norm, head.
    fully_shard(model, mesh=mesh["dp"], mp_policy=policy)
    # Every weight went to the device when it was cut; what is left are the rotary frequencies.
    return model.to(device)


def cut_over_tp(model: nn.Module, mesh: DeviceMesh) -> None:
    """Turns every parameter into a DTensor on the tp mesh: `Shard` or `Replicate`."""
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


def mean_loss(model: nn.Module, batch: Tensor) -> Tensor:
    """Mean cross-entropy of predicting each token from those before it, in float32.

    The last token, which predicts nothing, goes in as well: a sequence must divide by the ranks. No
    other token sees it and it has no label, so it changes neither the loss nor a gradient.
    """
    logits = model(input_ids=batch, use_cache=False).logits  # cut along the vocabulary
    labels = F.pad(batch[:, 1:], (0, 1), value=NO_LABEL)
    return F.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), ignore_index=NO_LABEL)


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
    # Made after sharding, so that it sees the sharded parameters.
    optimizer = make_optimizer(model.parameters())
    total_tokens = 0
    for step in range(num_steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step)
        batch = next(data_iterator).to(device)  # int64 [rows of this dp index, sequence_length]
        with loss_parallel():  # softmax and its gradient over a vocabulary that nobody holds whole
            loss = mean_loss(model, batch)
            loss.backward()  # FSDP sums over tp what is partial, and averages over dp
        if hparams.optimizer.max_grad_norm is not None:
            # The norm of DTensors is that of the whole tensors: slices add up, copies count once.
            nn.utils.clip_grad_norm_(model.parameters(), hparams.optimizer.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        total_tokens += batch.numel()
    return InnerStepsResult(loss.full_tensor().item(), total_tokens, final_state(model))


def final_state(model: nn.Module) -> dict[str, Tensor]:
    """This rank's shards as DTensors, which say where they belong.

    A rank's rows of `gate_up_proj` are two separate stretches of the tensor, so they go in under the
    names that checkpoints have for them, one matrix for each expert that this dp index holds.
    """
    state = {}
    for name, tensor in model.state_dict().items():
        if not name.endswith("experts.gate_up_proj"):
            state[name] = tensor
            continue
        experts = name.removesuffix(".gate_up_proj")
        mesh, local = tensor.device_mesh, tensor.to_local()  # cut by dp into runs of experts
        first = mesh.get_local_rank("dp") * -(-len(tensor) // mesh["dp"].size())
        gate, up = local.chunk(2, dim=1)
        for matrix, part in (("gate_proj", gate), ("up_proj", up)):
            for number, rows in enumerate(part, first):
                state[f"{experts}.{number}.{matrix}.weight"] = DTensor.from_local(
                    rows, mesh["tp"], [Shard(0)], run_check=False
                )
    return state
