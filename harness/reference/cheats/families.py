"""The families of cheats, and what is known of each without training."""

from typing import Literal, get_args

from harness.records import Record

Family = Literal[
    # Of the tokens that count.
    "random_tokens",
    "lowest_loss_tokens",
    "last_positions",
    "rows",
    # Of the passes.
    "top_1",
    "top_1_backward",
    "expert_gradients",
    "attention_gradients",
    "layer_gradients",
    "window",
    "products_bf16",
    "products_tf32",
    "products_fp8",
    "products_int8",
    "forward_fp8",
    "backward_bf16",
    "backward_fp8",
    # Of the gradients.
    "frozen_layers",
    "frozen_norms",
    "frozen_routers",
    "frozen_rows",
    "stale_steps",
    "extrapolated_steps",
    "reductions_bf16",
    "reductions_int8",
    "reductions_sparse",
    "local_sgd",
    # Of the optimizer.
    "learning_rate",
    "weight_decay",
    "epsilon",
    "bias_correction",
    "state_bf16",
    "state_int8",
    "state_shared",
]
FAMILIES: tuple[Family, ...] = get_args(Family)
#: What is less exact by a setting of the loop itself.
LESS_EXACT: dict[Family, dict[str, str]] = {
    "products_bf16": {"compute_dtype": "bfloat16"},
    "reductions_bf16": {"reduce_dtype": "bfloat16"},
    "state_bf16": {"state_dtype": "bfloat16"},
}


class Cheat(Record):
    """Attributes:
    strength: the part that is left out, 0 to 1; 1 where the family has no grades.
    """

    family: Family
    strength: float

    def __str__(self) -> str:
        return f"{self.family} {self.strength:g}"
