"""Which approximations a submission is looked at along; `filters.py` computes their directions."""

from collections.abc import Mapping
from typing import Final

from harness.reference.cheats.families import Cheat

#: What is left out, in words. How much of it is nearly the same direction. That a token visits one expert
#: alone is found by what flows back: along its own direction honest runs go far too (z = 13 in bfloat16),
#: since near ties that rounding decides otherwise lie there.
FILTERS: Final[Mapping[str, Cheat]] = {
    "the last positions of rows are not trained on": Cheat(family="last_positions", strength=0.03),
    "tokens with a low loss are not trained on": Cheat(family="lowest_loss_tokens", strength=0.1),
    "nothing flows back through a token's other experts": Cheat(
        family="top_1_backward", strength=0.1
    ),
    "small gradients do not flow back through experts": Cheat(
        family="expert_gradients", strength=0.1
    ),
    "small gradients do not flow back through attention": Cheat(
        family="attention_gradients", strength=0.1
    ),
    "small gradients do not flow back through layers": Cheat(
        family="layer_gradients", strength=0.1
    ),
}
