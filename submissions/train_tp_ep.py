"""Tensor parallel attention and expert parallelism on one mesh, and data parallelism outside it.

    rank        0       1       2       3
    ep          0       0       1       1      each ep index has its own half of the experts
    tp          0       1       0       1      each tp index has its own slice of every matrix

All ranks are given the same rows. The dense part (embedding, attention, router, head) is cut over tp as
in `train_tp.py`, hidden states along the sequence between the blocks, and copied over ep: each ep index
takes its share of the rows through it. In an MoE layer the tokens of all four ranks meet:

    forward:  gather over ep and tp  -> own experts, own slice of each -> reduce-scatter over ep and tp
    backward: gather the gradients   -> own experts, own slice of each -> reduce-scatter

so a rank's slices of experts see every token that chose them. With `"dp_size": 2` in get_strategy() and
eight ranks, two such squares stand side by side, each with its half of the rows. What is left for the
gradients:

1. The loss is divided by the number of tokens of the *whole* batch, not of the rank's rows.
2. Replicated weights (norms, router) are summed over tp: `q_norm` and `k_norm` have seen the rank's own
   heads, the others its own tokens.
3. Then the whole dense part is summed over ep and dp: each index has seen only its own rows.
4. Gradients of the experts are complete within their square: they are summed over dp alone. Nothing
   is averaged anywhere.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
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
TP_SIZE, EP_SIZE = 2, 2  # as in get_strategy(); dp takes the ranks that are left
NO_LABEL = -100  # cross_entropy leaves these positions out of the sum and out of the count


def get_strategy() -> dict[str, int]:
    """Read from the source, never called: it must return a literal. Axes left out are 1."""
    return {"tp_size": 2, "ep_size": 2}


@dataclass
class InnerStepsResult:
    final_loss: float  # mean loss of the last step, over all rows
    total_tokens: int  # tokens that this rank was given
    final_state: dict[str, Tensor] | None  # names to this rank's slices of the trained weights
    final_logits: Tensor | None = None  # optional, never compared


def all_tokens(own: Tensor, mesh: DeviceMesh) -> Tensor:
    """[n, ...] on each rank -> [ranks * n, ...]. Each rank computes only a part of what the tokens
    lead to, so on the way back their gradients are partial sums: reduce-scatters add them up."""
    tokens = DTensor.from_local(own, mesh, [Shard(0), Shard(0)], run_check=False)
    whole = tokens.redistribute(placements=[Replicate(), Replicate()])
    return whole.to_local(grad_placements=[Partial(), Partial()])


def own_tokens(partial: Tensor, mesh: DeviceMesh) -> Tensor:
    """[ranks * n, ...] on each rank -> [n, ...]: this rank's tokens of the sum over the ranks."""
    whole = DTensor.from_local(partial, mesh, [Partial(), Partial()], run_check=False)
    return whole.redistribute(placements=[Shard(0), Shard(0)]).to_local()


class OwnExperts(nn.Module):
    """Some of the experts (ep), and of these a slice each (tp): column-wise gate and up, row-wise
    down. Takes the place of transformers' `mlp.experts`."""

    def __init__(self, experts: nn.Module, mesh: DeviceMesh) -> None:
        super().__init__()
        self.mesh = mesh
        gate_up = experts.gate_up_proj.detach()  # [E, 2I, H]: all gates, then all ups
        total, width, hidden = gate_up.shape
        self.count = total // mesh["ep"].size()
        self.first = mesh.get_local_rank("ep") * self.count
        # Reordered so that cutting dimension 1 gives a rank the same rows of gate as of up.
        parts = gate_up.view(total, 2, TP_SIZE, width // 2 // TP_SIZE, hidden)
        gate_up = parts.transpose(1, 2).reshape(total, width, hidden)
        self.gate_up_proj = shard(gate_up, mesh, dim=1)
        self.down_proj = shard(experts.down_proj.detach(), mesh, dim=2)

    def forward(self, hidden: Tensor, chosen: Tensor, weight: Tensor) -> Tensor:
        """Own tokens: hidden [n, H]; chosen experts (int64) and their weights, both [n, top_k]."""
        hidden = hidden.to(COMPUTE)
        # Hidden states and routing weights travel in one message: both need the same backward.
        routing = hidden.new_zeros(len(hidden), len(self.gate_up_proj))  # all experts
        routing = routing.scatter(1, chosen, weight.to(COMPUTE))
        packed = all_tokens(torch.cat([hidden, routing], dim=1), self.mesh)
        hidden, routing = packed.split([hidden.shape[1], routing.shape[1]], dim=1)
        routing = routing.narrow(1, self.first, self.count)

        # What this rank has to do, sorted by expert for the grouped products. It may be nothing:
        # then the sums below are zero but still part of the graph, so the backward's collectives
        # find their counterparts.
        expert, token = routing.T.nonzero(as_tuple=True)
        ends = expert.bincount(minlength=self.count).cumsum(0).int()
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
    """Experts over ep, `dim` over tp. Every rank has the whole and keeps its part: nothing is sent."""
    return nn.Parameter(distribute_tensor(tensor, mesh, [Shard(0), Shard(dim)], src_data_rank=None))


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
    sizes = (num_gpus // (EP_SIZE * TP_SIZE), EP_SIZE, TP_SIZE)
    mesh = init_device_mesh(device.type, sizes, mesh_dim_names=("dp", "ep", "tp"))
    model.squares = mesh["dp"]
    model.rows = mesh["dp", "ep"]._flatten("rows")  # the ranks that have different rows
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
        layer.mlp.experts = OwnExperts(layer.mlp.experts, mesh["ep", "tp"])
        parallelize_module(layer, mesh["tp"], layer_plan)
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
    parallelize_module(model, mesh["tp"], model_plan)
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


def by_part(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The dense part, whose mesh is tp, and the experts, whose mesh is ep x tp."""
    named = list(model.named_parameters())
    dense = [parameter for name, parameter in named if ".mlp.experts." not in name]
    return dense, [parameter for name, parameter in named if ".mlp.experts." in name]


def sum_gradients(model: nn.Module, dense: list[nn.Parameter], experts: list[nn.Parameter]) -> None:
    """Rules 2 to 4."""
    for parameter in dense:
        # DTensor knows which gradients are partial sums over tp; it knows nothing of ep and dp.
        parameter.grad = parameter.grad.redistribute(placements=parameter.placements)
    all_reduce(dense, model.rows)
    if model.squares.size() > 1:
        all_reduce(experts, model.squares)


def all_reduce(parameters: list[nn.Parameter], mesh: DeviceMesh) -> None:
    """Sum gradients over a mesh, in one message: many small ones would each cost a round trip."""
    gradients = [parameter.grad.to_local() for parameter in parameters]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat, group=mesh.get_group())
    parts = flat.split([gradient.numel() for gradient in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view_as(gradient))


def clip(parts: tuple[list[nn.Parameter], ...], max_norm: float) -> None:
    """Scale all gradients so that their norm, every element counted once, is at most `max_norm`.

    The norm of DTensors is that of the whole tensors: slices add up, copies count once. But no
    operation may mix DTensors of different meshes, hence one norm for each part.
    """
    norms = [nn.utils.get_total_norm([p.grad for p in part]).full_tensor() for part in parts]
    for part in parts:
        nn.utils.clip_grads_with_norm_(part, max_norm, torch.stack(norms).norm())


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
    dense, experts = by_part(model)
    # Two groups, because on a GPU an optimizer treats the tensors of a group as one (foreach).
    optimizer = make_optimizer([{"params": dense}, {"params": experts}])
    ep = experts[0].device_mesh["ep"]
    total_tokens = 0
    for step in range(num_steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step)
        # int64 [rows, sequence_length], equal on all ranks of a square
        batch = next(data_iterator).to(device)
        own = batch.chunk(ep.size())[ep.get_local_rank()]
        with loss_parallel():  # softmax and its gradient over a vocabulary that nobody holds whole
            loss = mean_loss(model, own, device) / model.rows.size()  # rule 1: shares of equal size
            loss.backward()
        sum_gradients(model, dense, experts)
        if hparams.optimizer.max_grad_norm is not None:
            clip((dense, experts), hparams.optimizer.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        total_tokens += batch.numel()
    final_loss = loss.detach().full_tensor()
    dist.all_reduce(final_loss, group=model.rows.get_group())
    return InnerStepsResult(final_loss.item(), total_tokens, final_state(model))


def final_state(model: nn.Module) -> dict[str, Tensor]:
    """This rank's slices as DTensors, which say where they belong.

    A rank's rows of `gate_up_proj` are two separate stretches of the tensor, so they go in under the
    names that checkpoints have for them, one matrix for each of the rank's experts.
    """
    state = {}
    for name, tensor in model.state_dict().items():
        if not name.endswith("experts.gate_up_proj"):
            state[name] = tensor
            continue
        experts = model.get_submodule(name.removesuffix(".gate_up_proj"))
        gate, up = tensor.to_local().chunk(2, dim=1)
        for matrix, local in (("gate_proj", gate), ("up_proj", up)):
            for number, rows in enumerate(local, experts.first):
                key = name.replace("gate_up_proj", f"{number}.{matrix}.weight")
                state[key] = DTensor.from_local(
                    rows, experts.mesh["tp"], [Shard(0)], run_check=False
                )
    return state
