"""How honest runs differ: sharding, micro-batches, kernels, near ties, precision as far as allowed."""

from dataclasses import dataclass
from typing import Final

from harness.benchmark.problem import Numerics
from harness.reference.task import Variant

TIES: Final = "near ties of the router"
#: Relative size of the noise that decides near ties in the variant that forces them. Some ten times
#: what float32 kernels differ by, so that every run has several; bfloat16 has its own without help.
NEAR_TIES: Final = 1e-5


@dataclass(frozen=True)
class NamedVariant:
    """One way to be honest. `counted` is False where the benchmark's compute dtype forbids it."""

    name: str
    variant: Variant
    counted: bool = True


def variants(base: Variant, global_batch: int, numerics: Numerics) -> list[NamedVariant]:
    """The ways in which honest submissions differ from the reference `base`, and that itself once more.

    Args:
        numerics: of the benchmark: a lower precision than the reference's is honest where it is allowed.
    """

    def differs(name: str, counted: bool = True, **changes: object) -> NamedVariant:
        return NamedVariant(name, base.model_copy(update=changes), counted)

    again, found = NamedVariant("the same again", base), []
    for world_size in (1, 2, 4):
        if world_size != base.world_size and global_batch % world_size == 0:
            found.append(differs(f"world {world_size}", world_size=world_size))
    rows = global_batch // base.world_size
    found += [differs(f"{n} micro-batches", micro_batches=n) for n in (2, 4) if n <= rows]
    found.append(differs("eager attention", attention="eager"))
    found.append(differs("sdpa attention", attention="sdpa"))
    found.append(differs("eager experts", experts="eager"))
    found.append(differs("grouped experts", experts="grouped_mm"))
    if global_batch % 2 == 0:
        found.append(
            differs("world 2, 2 micro-batches, all eager", world_size=2, micro_batches=2,
                    attention="eager", experts="eager")
        )  # fmt: skip
    bf16 = base.compute_dtype == "bfloat16"
    if not bf16:
        found.append(differs(TIES, near_ties=NEAR_TIES))
    # Whoever computes more exactly than allowed is honest; whoever computes in bfloat16 is only where
    # the benchmark says so.
    if bf16:
        found.append(differs("float32 compute", compute_dtype="float32"))
        # A train file has no others; the reference has faster ones where a CPU lacks instructions.
        found.append(differs("native products", native_products=True))
    found.append(differs("bfloat16 compute", counted=bf16, compute_dtype="bfloat16"))
    if numerics.reduce_dtype == "bfloat16":
        found.append(differs("bfloat16 reductions", reduce_dtype="bfloat16"))
    if numerics.state_dtype == "bfloat16":
        found.append(differs("bfloat16 optimizer state", state_dtype="bfloat16"))
    # What the reference itself does would be the same again, bit for bit.
    return [again, *(named for named in found if named.variant != base)]
