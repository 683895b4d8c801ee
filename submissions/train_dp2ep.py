"""Expert parallelism on the ranks of data parallelism (torchtitan's "dp2ep"): tokens go to experts.

Every rank has rows of its own, and the same ranks are used twice:

- embedding, attention, router, norms and head are sharded by FSDP2, as in `train_fsdp.py`;
- of each layer's experts every rank holds `total / world` whole ones, and computes with no others.

In an MoE layer a token is sent to the ranks that hold its experts, and its outputs come back:

    forward:  sort by expert -> all-to-all -> local experts -> all-to-all -> weight, add up
    backward: the same way in reverse (the backward of an all-to-all is the opposite all-to-all)

The loss of a rank is the mean over its own rows, so what is to be done with the gradients differs:

1. Dense parameters: averaged over the ranks. FSDP2 does it.
2. Experts: an expert has seen the tokens of all ranks, so its gradient is already a sum over the
   ranks' losses. It must be divided by the number of ranks, and must not be reduced again.
3. The router needs nothing of its own: routing weights stay where their token is, and only hidden
   states travel.

Parameters are DTensors on two meshes. The optimizer works on one tensor at a time and does not care;
the gradient norm is computed for each mesh and then combined.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed._functional_collectives import all_to_all_single_autograd
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Shard

from env.benchmark import hparams  # what hparams.json says; hard-coding the values works too

COMPUTE = getattr(torch, hparams.numerics.compute_dtype)  # of matrix products; parameters: float32


def get_strategy() -> dict[str, int | bool]:
    """Read from the source, never called: it must return a literal. Axes left out are 1.

    `ep_borrows_dp`: the ranks of ep are those of dp, so the world is 2, and every rank has own rows.
    """
    return {"dp_size": 2, "ep_size": 2, "ep_borrows_dp": True}


@dataclass
class InnerStepsResult:
    final_loss: float  # mean loss of the last step, over this rank's rows
    total_tokens: int  # tokens that this rank was given
    final_state: dict[str, Tensor] | None  # names to this rank's shards of the trained weights
    final_logits: Tensor | None = None  # optional, never compared


class DispatchedExperts(nn.Module):
    """This rank's slice of a layer's experts. Takes the place of transformers' `mlp.experts`."""

    def __init__(self, experts: nn.Module, mesh: DeviceMesh) -> None:
        super().__init__()
        self.group = mesh.get_group()
        self.ranks = mesh.size()
        self.count = len(experts.gate_up_proj) // self.ranks
        first = mesh.get_local_rank() * self.count
        for name, whole in experts.named_parameters():  # gate_up_proj, down_proj: [experts, ...]
            # clone(): a view would keep the other ranks' experts in memory.
            mine = whole.detach()[first : first + self.count].clone()
            sharded = DTensor.from_local(mine, mesh, [Shard(0)], run_check=False)
            self.register_parameter(name, nn.Parameter(sharded))

    def forward(self, hidden: Tensor, chosen: Tensor, weight: Tensor) -> Tensor:
        """hidden [tokens, H]; chosen experts (int64) and their weights, both [tokens, top_k]."""
        # One row for each pair of token and expert, sorted by expert: so also by receiving rank.
        expert, order = chosen.flatten().sort(stable=True)
        token = order // chosen.shape[1]
        rows = hidden.index_select(0, token).to(COMPUTE)

        # How many rows each of my experts gets from each rank: [ranks, count].
        outgoing = expert.bincount(minlength=self.ranks * self.count).view(self.ranks, self.count)
        incoming = torch.empty_like(outgoing)
        dist.all_to_all_single(incoming, outgoing, group=self.group)
        sent, received = outgoing.sum(1).tolist(), incoming.sum(1).tolist()

        rows = all_to_all_single_autograd(rows, received, sent, self.group)
        rows = self.local_experts(rows, incoming)
        rows = all_to_all_single_autograd(rows, sent, received, self.group)
        rows = rows * weight.flatten()[order].unsqueeze(1)
        return torch.zeros_like(hidden).index_add(0, token, rows.to(hidden.dtype))

    def local_experts(self, rows: Tensor, incoming: Tensor) -> Tensor:
        """Rows [n, H] ordered by sender, then by expert, as `incoming` [ranks, count] says.

        A rank may get none. Even then it calls everything: its part of the backward pass's all-to-all
        hangs on the graph that is built here, and without it the other ranks would wait forever.
        """
        ids = torch.arange(self.count, device=rows.device).repeat(self.ranks)
        by_expert = ids.repeat_interleave(incoming.flatten()).argsort(stable=True)
        ends = incoming.sum(0).cumsum(0).int()
        # to_local() gives the shard as a plain tensor, and makes a DTensor of its gradient. FSDP
        # leaves these parameters alone, so their cast to the compute type is done here.
        gate_up_proj = self.gate_up_proj.to_local().to(COMPUTE).transpose(1, 2)
        down_proj = self.down_proj.to_local().to(COMPUTE).transpose(1, 2)
        gate, up = F.grouped_mm(rows[by_expert], gate_up_proj, offs=ends).chunk(2, dim=-1)
        output = F.grouped_mm(F.silu(gate) * up, down_proj, offs=ends)
        return output[by_expert.argsort()]  # back to the order in which they came


def setup(model: nn.Module, device: torch.device, num_gpus: int) -> nn.Module:
    """Off the clock, called again for every run. The process group is already initialised."""
    dense_mesh = init_device_mesh(device.type, (num_gpus,), mesh_dim_names=("dp",))
    expert_mesh = init_device_mesh(device.type, (num_gpus,), mesh_dim_names=("ep",))
    model.to(device)
    for layer in model.model.layers:
        layer.mlp.experts = DispatchedExperts(layer.mlp.experts, expert_mesh)
    experts = set(expert_parameters(model))
    policy = MixedPrecisionPolicy(param_dtype=COMPUTE, reduce_dtype=torch.float32)
    for module in (*model.model.layers, model):
        fully_shard(module, mesh=dense_mesh, mp_policy=policy, ignored_params=experts)
    return model


def expert_parameters(model: nn.Module) -> list[nn.Parameter]:
    return [p for name, p in model.named_parameters() if ".mlp.experts." in name]


def mean_loss(model: nn.Module, batch: Tensor) -> Tensor:
    """Mean cross-entropy of predicting each token from those before it, in float32."""
    logits = model(input_ids=batch[:, :-1], use_cache=False).logits.float()
    return F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())


def clip(groups: list[list[nn.Parameter]], max_norm: float) -> None:
    """Scale all gradients so that their norm over all parameters is at most `max_norm`.

    Each group's parameters are DTensors on one mesh. The norm of a group is one too (a partial one:
    `full_tensor` adds up the ranks' parts); one call for both groups would mix meshes and fail.
    """
    gradients = [[p.grad for p in group] for group in groups]
    norms = [nn.utils.get_total_norm(group).full_tensor() for group in gradients]
    total = torch.linalg.vector_norm(torch.stack(norms))
    for group in groups:
        nn.utils.clip_grads_with_norm_(group, max_norm, total)


def make_optimizer(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """The benchmark's: SGD or AdamW. One for both meshes."""
    settings = hparams.optimizer
    if settings.name == "sgd":
        return torch.optim.SGD(  # torch 2.13 has no fused SGD for DTensors
            parameters,
            lr=settings.lr,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
            foreach=True,
        )
    return torch.optim.AdamW(
        parameters,
        lr=settings.lr,
        betas=(settings.beta1, settings.beta2),
        eps=settings.eps,
        weight_decay=settings.weight_decay,
        fused=True,
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
    # Made after sharding, so that it sees the sharded parameters.
    optimizer = make_optimizer(model.parameters())
    experts = expert_parameters(model)
    dense = [p for name, p in model.named_parameters() if ".mlp.experts." not in name]
    total_tokens = 0
    for step in range(num_steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step)
        batch = next(data_iterator).to(device)  # int64 [rows of this rank, sequence_length]
        loss = mean_loss(model, batch)
        loss.backward()  # rule 1: FSDP averages the dense gradients
        for parameter in experts:
            parameter.grad.div_(num_gpus)  # rule 2
        if hparams.optimizer.max_grad_norm is not None:
            clip([dense, experts], hparams.optimizer.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        total_tokens += batch.numel()
    # DTensors say which part of each tensor they are: no need to gather them on the clock.
    return InnerStepsResult(loss.item(), total_tokens, model.state_dict())
