"""Active parameters and model FLOPs, counted by the judge from a model's config alone.

The model is built on the meta device (shapes without memory) and its parameters are counted where
they lie, so that dense first layers, shared experts, router biases and whatever else one layer has
and another lacks need no rule of their own. Two figures come out, both in every result:

- active_params: 6 · N_active per token, with N_active every parameter that a token uses; embeddings
  and norms included. (Published figures of active parameters may leave the embedding out.)
- matmul_flops: 6 · N_matmul + 12 · L · H · d · S per token: only parameters that multiply an
  activation, and the two attention products over the whole sequence of S tokens. No half for the
  causal mask and no cut at a sliding window: so PaLM's appendix B counts, and a kernel that skips
  masked blocks gains time instead of a smaller count. On an eager forward and backward it equals
  torch.utils.flop_counter.FlopCounterMode to the last FLOP.
"""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from harness.benchmark.experts import (
    expert_modules,
    experts_per_token,
    layer_of,
    routed_experts,
)
from harness.errors import Code, InputError

if TYPE_CHECKING:
    from rich.table import Table
    from torch import nn
    from transformers import PretrainedConfig

FORMULA_VERSION = "1"

Basis = Literal["active_params", "matmul_flops"]

# `layer_types` of a config: layers in which tokens attend to one another by two matrix products, and
# layers without them, whose recurrent state is not counted. Others (sparse indexers, hybrids) would
# need a formula of their own and are refused.
ATTENTION_LAYERS = frozenset({"full_attention", "sliding_attention", "chunked_attention"})
OTHER_LAYERS = frozenset({"linear_attention", "conv", "mlp", "moe"})


@dataclass(frozen=True)
class ParameterCount:
    """What a model has and what one token uses of it. Numbers of parameters unless said otherwise.

    Attributes:
        model_type: transformers' name of the architecture.
        total: all parameters; tied ones once.
        active: those that a token uses: of routed experts top_k/num_experts, all others in full.
        input_embedding: the input embedding, whether tied to the head or not.
        tied: the input embedding is the output head too.
        matmul_active: of the active ones, those that are a factor of a matrix product: neither
            biases, norms nor embeddings, but an embedding that is tied to the head.
        routed_experts: all routed experts of all layers, biases included.
        layers: decoder layers.
        moe_layers: layers with routed experts.
        num_experts: routed experts of a layer; 0 for a dense model.
        top_k: routed experts that a token visits; 0 for a dense model.
        attention_layers: layers in which tokens attend to one another by two matrix products.
        attention_heads: query heads.
        qk_head_dim, v_head_dim: width of a head in the score product and in the value product.
    """

    model_type: str
    total: int
    active: int
    input_embedding: int
    tied: bool
    matmul_active: int
    routed_experts: int
    layers: int
    moe_layers: int
    num_experts: int
    top_k: int
    attention_layers: int
    attention_heads: int
    qk_head_dim: int
    v_head_dim: int

    @property
    def active_without_embedding(self) -> int:
        """As many published figures count: a look-up is no work, a tied embedding is the head too."""
        return self.active if self.tied else self.active - self.input_embedding


def count_parameters(config: "PretrainedConfig") -> ParameterCount:
    """Count a model by building it on the meta device.

    Args:
        config: a transformers config of a causal language model.

    Raises InputError(BAD_ARGUMENT) where the count would be a guess: a model that cannot be built,
    experts that are not where the config says that they are, an unknown kind of attention.
    """
    model = _build(config)
    text = config.get_text_config()
    num_experts, top_k = _routing(text)
    containers = expert_modules(model, num_experts) if num_experts else {}
    if num_experts and not containers:
        raise _uncountable(
            config, f"the config says {num_experts} experts, but no module holds that many"
        )
    expert_ids = {id(p): p.numel() for m in containers.values() for p in m.parameters()}
    embedding = model.get_input_embeddings().weight
    head = model.get_output_embeddings()
    tied = head is not None and head.weight is embedding
    factors = _matmul_factors(model, containers, tied)
    total = sum(p.numel() for p in model.parameters())
    routed = sum(expert_ids.values())
    routed_factors = sum(n for key, n in factors.items() if key in expert_ids)
    heads = _heads(config, text)
    return ParameterCount(
        model_type=str(config.model_type),
        total=total,
        active=total - _idle(routed, num_experts, top_k),
        input_embedding=embedding.numel(),
        tied=tied,
        matmul_active=sum(factors.values()) - _idle(routed_factors, num_experts, top_k),
        routed_experts=routed,
        layers=text.num_hidden_layers,
        moe_layers=len({layer_of(name) for name in containers}),
        num_experts=num_experts,
        top_k=top_k,
        attention_layers=_attention_layers(config, text),
        attention_heads=heads.number,
        qk_head_dim=heads.qk_dim,
        v_head_dim=heads.v_dim,
    )


def attention_flops_per_token(count: ParameterCount, sequence_length: int) -> int:
    """FLOPs of the score and value products, forward and backward: 6 · L · H · (d_qk + d_v) · S.

    Two FLOPs a multiply-add, three passes (forward, gradient of each factor). With d_qk = d_v = d
    it is PaLM's 12 · L · H · d · S; with latent attention (DeepSeek) the two widths differ.
    """
    width = count.qk_head_dim + count.v_head_dim
    return 6 * count.attention_layers * count.attention_heads * width * sequence_length


def flops_per_token(count: ParameterCount, sequence_length: int, basis: Basis) -> int:
    """Model FLOPs of one token in one training step (forward and backward, no recomputation).

    Args:
        count: of the model.
        sequence_length: tokens in a row; each attends to as many.
        basis: which of the two formulas of this module.
    """
    if basis == "active_params":
        return 6 * count.active
    return 6 * count.matmul_active + attention_flops_per_token(count, sequence_length)


def mfu(
    flops_per_token: float, tokens: int, seconds: float, world_size: int, peak_tflops: float
) -> float:
    """Model FLOPs utilisation: the share of the devices' peak that model FLOPs alone account for.

    Args:
        flops_per_token: FLOPs.
        tokens: of all ranks together, as the judge served them.
        seconds: wall time.
        world_size: devices.
        peak_tflops: TFLOP/s of one device.

    Returns a fraction: 0.4 is 40 %.
    """
    return flops_per_token * tokens / (seconds * world_size * peak_tflops * 1e12)


# --- building and looking ---------------------------------------------------------------------


def _build(config: "PretrainedConfig") -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except Exception as error:  # whatever a config can provoke in a model's constructor
        raise _uncountable(config, f"{type(error).__name__}: {error}") from None


def _uncountable(config: "PretrainedConfig", why: str) -> InputError:
    lines = why.strip().splitlines() or [""]
    return InputError(
        Code.BAD_ARGUMENT, f"cannot count the parameters of a {config.model_type} model: {lines[0]}"
    )


def _routing(text: "PretrainedConfig") -> tuple[int, int]:
    """Routed experts of a layer and how many a token visits; (0, 0) for a dense model."""
    num_experts = routed_experts(text)
    if not num_experts:
        return 0, 0
    top_k = experts_per_token(text)
    if top_k is None or not 1 <= top_k <= num_experts:
        raise _uncountable(
            text, f"{num_experts} experts, but it is unclear how many a token visits"
        )
    return num_experts, top_k


def _matmul_factors(
    model: "nn.Module", containers: dict[str, "nn.Module"], tied: bool
) -> dict[int, int]:
    """id -> size of the parameters that multiply an activation.

    Matrices, and of stacked experts those with a matrix for each (their biases are [experts, width]).
    An embedding is a look-up, unless the head multiplies by the very same tensor.
    """
    from torch import nn

    stacked = {
        id(p)
        for module in containers.values()
        if not isinstance(module, nn.ModuleList)
        for p in module.parameters(recurse=False)
    }
    look_ups = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    factors = {
        id(p): p.numel()
        for p in model.parameters()
        if p.ndim >= (3 if id(p) in stacked else 2) and id(p) not in look_ups
    }
    if tied:
        embedding = model.get_input_embeddings().weight  # type: ignore[operator]
        factors[id(embedding)] = embedding.numel()
    return factors


def _idle(parameters: int, num_experts: int, top_k: int) -> int:
    """Of the parameters of routed experts, those that a token does not use."""
    return parameters // num_experts * (num_experts - top_k) if num_experts else 0


@dataclass(frozen=True)
class _Heads:
    number: int
    qk_dim: int
    v_dim: int


def _heads(config: "PretrainedConfig", text: "PretrainedConfig") -> _Heads:
    """Query heads, and the width of a head in the score product and in the value product."""
    try:
        number = text.num_attention_heads
        if getattr(text, "kv_lora_rank", None) and getattr(text, "v_head_dim", None):
            qk_dim = text.qk_nope_head_dim + text.qk_rope_head_dim
            return _Heads(number, qk_dim, text.v_head_dim)
        head_dim = getattr(text, "head_dim", None) or text.hidden_size // number
    except Exception as error:  # no such attribute, or one that differs from layer to layer
        raise _uncountable(config, f"attention heads of no known kind ({error})") from None
    return _Heads(number, head_dim, head_dim)


def _attention_layers(config: "PretrainedConfig", text: "PretrainedConfig") -> int:
    kinds = getattr(text, "layer_types", None)
    if kinds is None:
        return int(text.num_hidden_layers)
    unknown = set(kinds) - ATTENTION_LAYERS - OTHER_LAYERS
    if unknown:
        raise _uncountable(
            config, f"no formula for layers of the kind {', '.join(sorted(unknown))}"
        )
    return sum(kind in ATTENTION_LAYERS for kind in kinds)


def document(count: ParameterCount, sequence_length: int) -> dict[str, int | str | bool]:
    """The same for programs: the fields of `ParameterCount`, and both FLOPs of a token."""
    return asdict(count) | {
        "active_without_embedding": count.active_without_embedding,
        "sequence_length": sequence_length,
        "attention_flops_per_token": attention_flops_per_token(count, sequence_length),
        "active_params_flops_per_token": flops_per_token(count, sequence_length, "active_params"),
        "matmul_flops_per_token": flops_per_token(count, sequence_length, "matmul_flops"),
        "formula_version": FORMULA_VERSION,
    }


def render(count: ParameterCount, sequence_length: int) -> "Table":
    """The table of `validator flops`."""
    from rich.table import Table

    def size(parameters: int) -> str:
        unit, name = (1e9, "B") if parameters >= 1e9 else (1e6, "M")
        return f"{parameters:,}  ({parameters / unit:.3g} {name})"

    experts = f"{count.num_experts} experts, {count.top_k} a token, {count.moe_layers} layers"
    attention = attention_flops_per_token(count, sequence_length)
    rows = [
        ("parameters, total", size(count.total)),
        ("parameters, active", size(count.active)),
        ("of them without input embedding", size(count.active_without_embedding)),
        ("input embedding", size(count.input_embedding) + (", tied" if count.tied else "")),
        ("routed experts", experts if count.num_experts else "none"),
        ("routed experts, total", size(count.routed_experts)),
        ("in matrix products, active", size(count.matmul_active)),
        ("attention, FLOPs a token", f"{attention:.4g}"),
    ]
    for basis in ("active_params", "matmul_flops"):
        flops = flops_per_token(count, sequence_length, basis)
        rows.append((f"{basis}, FLOPs a token", f"{flops:.4g}"))
    table = Table(
        "quantity",
        "value",
        title=f"{count.model_type}, {count.layers} layers, rows of {sequence_length} tokens",
        caption=f"formula version {FORMULA_VERSION}; forward and backward, no recomputation",
    )
    for row in rows:
        table.add_row(*row)
    return table
