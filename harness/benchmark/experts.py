"""Where a model's routed experts are: told by its structure, and by how many its config says there are."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn
    from transformers import PretrainedConfig

# What configs call the number of routed experts, and how many of them a token visits. transformers
# maps most spellings to the first ones itself.
EXPERTS_KEYS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
TOP_K_KEYS = ("num_experts_per_tok", "moe_top_k", "moe_topk", "moe_k")


def routed_experts(text: "PretrainedConfig") -> int:
    """How many routed experts a layer has, by a model's text config; 0 for a dense model."""
    number = _first(text, EXPERTS_KEYS) or 0
    return number if number > 1 else 0


def experts_per_token(text: "PretrainedConfig") -> int | None:
    """How many routed experts a token visits; None where the config does not say."""
    return _first(text, TOP_K_KEYS)


def _first(config: "PretrainedConfig", keys: tuple[str, ...]) -> int | None:
    values = (getattr(config, key, None) for key in keys)
    return next((value for value in values if isinstance(value, int)), None)


def expert_modules(model: "nn.Module", num_experts: int) -> dict[str, "nn.Module"]:
    """Modules that hold all routed experts of a layer, by name.

    Known by structure: stacked parameters [num_experts, ...], one of them at least a matrix for each
    expert, or a ModuleList of that length; and beside them, one or two levels up, a router: a matrix
    [num_experts, ...] of its own. A shared expert is neither stacked nor a list, and a list of layers
    that happens to have the right length has no router beside it.
    """
    modules = dict(model.named_modules())
    return {
        name: module
        for name, module in modules.items()
        if _is_stack(module, num_experts)
        and any(_has_router(above, module, num_experts) for above in _parents(modules, name))
    }


def expert_parameters(model: "nn.Module", num_experts: int) -> Iterator[str]:
    """Names of the parameters that hold all routed experts of a layer at once: [num_experts, ...]."""
    from torch import nn

    for prefix, module in expert_modules(model, num_experts).items():
        if not isinstance(module, nn.ModuleList):
            yield from (f"{prefix}.{name}" for name, _ in module.named_parameters(recurse=False))


def _is_stack(module: "nn.Module", num_experts: int) -> bool:
    from torch import nn

    if isinstance(module, nn.ModuleList):
        return len(module) == num_experts
    own = list(module.parameters(recurse=False))
    stacked = bool(own) and all(p.ndim >= 1 and p.shape[0] == num_experts for p in own)
    return stacked and any(p.ndim == 3 for p in own)


def _has_router(above: "nn.Module", container: "nn.Module", num_experts: int) -> bool:
    inside = {id(p) for p in container.parameters()}
    return any(
        p.ndim == 2 and p.shape[0] == num_experts and id(p) not in inside
        for p in above.parameters()
    )


def _parents(modules: dict[str, "nn.Module"], name: str) -> Iterator["nn.Module"]:
    """The modules one and two levels up, within a layer: a list of layers holds others' routers."""
    from torch import nn

    for _ in range(2):
        name = name.rpartition(".")[0]
        if not name or isinstance(modules[name], nn.ModuleList):
            return
        yield modules[name]


def layer_of(container: str) -> str:
    """The name up to the layer's number: a layer may hold its experts in several containers."""
    parts = container.split(".")
    numbers = [index for index, part in enumerate(parts) if part.isdigit()]
    return ".".join(parts[: numbers[0] + 1]) if numbers else container
