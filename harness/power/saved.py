"""What a train file gains by a cheat, at best."""

from collections.abc import Iterable
from typing import Final

from harness.reference.cheats.families import Cheat, Family
from harness.score.flops import ParameterCount, attention_flops_per_token

#: Of a product's three passes, those that go backwards.
BACKWARD: Final = 2 / 3
#: Of the bytes that ranks reduce in float32.
REDUCED: Final[dict[Family, float]] = {"reductions_bf16": 0.5, "reductions_int8": 0.75}

#: What is left out of these are reductions.
NOT_SENT: Final[tuple[Family, ...]] = ("reductions_sparse", "local_sgd")


def saved_flops(cheats: Iterable[Cheat], count: ParameterCount, sequence_length: int) -> float:
    """The part of the timed FLOPs that is left out; a product in fewer bits counts half.

    A dropped token saves the products of head and last layer (of the tokens with the lowest loss only
    backwards: the loss has to be known), a dropped position or row all of its work, and so does a step with
    another's gradient; a second expert that is not visited its products; a gradient that is not computed
    the backward products below it; a window the products of positions that it does not see. What one cheat
    leaves out another cannot.
    """
    left = 1.0
    for cheat in cheats:
        left *= 1 - _saved(cheat, count, sequence_length)
    return 1 - left


def saved_bytes(cheats: Iterable[Cheat]) -> float:
    """The part of the bytes between ranks that is not sent."""
    left = 1.0
    for cheat in cheats:
        part = cheat.strength if cheat.family in NOT_SENT else 0.0
        left *= 1 - REDUCED.get(cheat.family, part)
    return 1 - left


def _saved(cheat: Cheat, count: ParameterCount, sequence_length: int) -> float:
    scores = attention_flops_per_token(count, sequence_length)
    total = 6 * count.matmul_active + scores
    head = 6 * count.input_embedding / total  # of the same size as the head
    experts = 6 * count.routed_experts * count.top_k / max(1, count.num_experts) / total
    second = experts * (1 - 1 / max(1, count.top_k))
    layers = 1 - head
    last = head + (layers - scores / total) / max(1, count.layers)
    products = 1 - scores / total
    share = cheat.strength
    flops: dict[Family, float] = {
        "random_tokens": last * share,
        "lowest_loss_tokens": last * share * BACKWARD,
        "last_positions": share,
        "rows": share,
        "stale_steps": share,
        "extrapolated_steps": share,
        "top_1": second * share,
        "top_1_backward": second * share * BACKWARD,
        "expert_gradients": experts * share * BACKWARD,
        "attention_gradients": (layers - experts) * share * BACKWARD,
        "layer_gradients": layers * share * BACKWARD,
        "frozen_layers": layers * share * BACKWARD,
        # Counted are T² pairs of positions; a window that lacks w of T leaves out about w²/2.
        "window": scores / total * share**2 / 2,
        "products_bf16": 0.5,
        "products_tf32": products / 2,
        "products_fp8": products / 2,
        "products_int8": products / 2,
        "forward_fp8": products * (1 - BACKWARD) / 2,
        "backward_bf16": products * BACKWARD / 2,
        "backward_fp8": products * BACKWARD / 2,
    }
    return flops.get(cheat.family, 0.0)
