"""Which approximations a submission is looked at along; `filters.py` computes their directions."""

from collections.abc import Mapping
from typing import Final

from harness.reference.cheats.families import Cheat

#: What is left out, in words. As little of it as is barely worth it: how much says which tokens and which
#: gradients, so who leaves out 2 % of the small ones goes much further along the direction of 2 % than
#: along that of 10 %. Who leaves out more is further off, and found along these too. Gradients of experts
#: that do not flow back lie along those of layers. That a token visits one expert alone is found by what
#: flows back: along its own direction honest runs go far too, since near ties that rounding decides
#: otherwise lie there.
FILTERS: Final[Mapping[str, Cheat]] = {
    "the last positions of rows are not trained on": Cheat(family="last_positions", strength=0.01),
    "tokens with a low loss are not trained on": Cheat(family="lowest_loss_tokens", strength=0.05),
    "nothing flows back through a token's other experts": Cheat(
        family="top_1_backward", strength=0.05
    ),
    "small gradients do not flow back through attention": Cheat(
        family="attention_gradients", strength=0.03
    ),
    "small gradients do not flow back through layers": Cheat(
        family="layer_gradients", strength=0.02
    ),
}
