"""Which cheats are measured: all families at their strengths, or those that are named, alone or at once."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from harness.benchmark.hparams import Hparams
from harness.benchmark.problem import AdamW, Sgd
from harness.errors import Code, InputError
from harness.reference.cheats.families import FAMILIES, Cheat, Family
from harness.score.flops import ParameterCount

_SHARES: Final = (0.01, 0.02, 0.05, 0.1, 0.2)
_ALL: Final = (1.0,)
#: Parts that are left out, from what is surely worth nothing to what is surely seen.
STRENGTHS: Final[Mapping[Family, tuple[float, ...]]] = {
    "random_tokens": (0.001, 0.005, 0.01, 0.02, 0.05),
    "lowest_loss_tokens": (0.002, 0.005, 0.01, 0.02, 0.05),
    "last_positions": (0.004, 0.008, 0.016, 0.032),
    "rows": (0.125,),
    "top_1": _SHARES,
    "top_1_backward": _SHARES,
    "expert_gradients": _SHARES,
    "attention_gradients": _SHARES,
    "layer_gradients": _SHARES,
    "window": (0.1, 0.25, 0.5),
    "products_bf16": _ALL,
    "products_tf32": _ALL,
    "products_fp8": _ALL,
    "products_int8": _ALL,
    "forward_fp8": _ALL,
    "backward_bf16": _ALL,
    "backward_fp8": _ALL,
    "frozen_layers": (0.25, 0.5),
    "frozen_norms": _ALL,
    "frozen_routers": _ALL,
    "frozen_rows": (0.01, 0.1, 0.5),
    "stale_steps": (0.125, 0.25),
    "extrapolated_steps": (0.125, 0.25),
    "reductions_bf16": _ALL,
    "reductions_int8": _ALL,
    "reductions_sparse": (0.1, 0.3, 0.5),
    "local_sgd": (0.5, 0.75),
    "learning_rate": (0.001, 0.002, 0.005, 0.01),
    "weight_decay": (0.1, 0.5, 1.0),
    "epsilon": (0.1, 0.5),
    "bias_correction": (0.1, 1.0),
    "state_bf16": _ALL,
    "state_int8": _ALL,
    "state_shared": _ALL,
}
#: Several cheats at once, each left out to its own part.
Cheats = tuple[Cheat, ...]
ALONE, TOGETHER = "=", "+"


def wanted(names: Sequence[str]) -> list[Cheats]:
    """What a caller asks for; nothing: every family at every strength.

    Args:
        names: `FAMILY`, `FAMILY=PART`, or several of the second kind with + between them.

    Raises InputError(BAD_ARGUMENT): one of them is something else.
    """
    found: list[Cheats] = []
    for name in names or FAMILIES:
        family = next((each for each in FAMILIES if each == name), None)
        if family is not None:
            found += [(Cheat(family=family, strength=part),) for part in STRENGTHS[family]]
        else:
            found.append(tuple(_one(part) for part in name.split(TOGETHER)))
    return found


def _one(text: str) -> Cheat:
    name, _, part = text.partition(ALONE)
    family = next((each for each in FAMILIES if each == name), None)
    if family is None:
        raise InputError(
            Code.BAD_ARGUMENT, f"there is no family {name}; known: {', '.join(FAMILIES)}"
        )
    try:
        strength = float(part)
    except ValueError:
        strength = 0.0
    if not 0 < strength <= 1:
        raise InputError(
            Code.BAD_ARGUMENT,
            f"{text}: how much is left out? A part above 0, 1 at most: {name}{ALONE}0.1",
        )
    return Cheat(family=family, strength=strength)


def possible(asked: Sequence[Cheats], hparams: Hparams, count: ParameterCount) -> Iterator[Cheats]:
    """Of these, what is a cheat here: not what the benchmark allows, or what it has nothing of."""
    impossible = _impossible(hparams, count)
    for cheats in asked:
        if not any(cheat.family in impossible for cheat in cheats):
            yield cheats


def _impossible(hparams: Hparams, count: ParameterCount) -> set[Family]:
    numerics, optimizer = hparams.numerics, hparams.optimizer
    found: set[Family] = set()
    if numerics.compute_dtype == "bfloat16":
        found |= {"products_bf16", "products_tf32", "backward_bf16"}
    if numerics.reduce_dtype == "bfloat16":
        found.add("reductions_bf16")
    stateless = isinstance(optimizer, Sgd) and not optimizer.momentum
    if stateless or numerics.state_dtype == "bfloat16":
        found.add("state_bf16")
    if stateless:
        found.add("state_int8")
    if not isinstance(optimizer, AdamW):
        found |= {"state_shared", "epsilon", "bias_correction"}
    if not optimizer.weight_decay:
        found.add("weight_decay")
    if count.top_k < 2:
        found |= {"top_1", "top_1_backward"}
    if not count.num_experts:
        found |= {"expert_gradients", "frozen_routers"}
    return found
