"""Which honest runs a calibration trains."""

from harness.benchmark.problem import Numerics
from harness.calibrate.variants import NamedVariant, variants
from harness.reference.task import Variant

BASE = Variant(world_size=1, micro_batches=1, compute_dtype="float32")
FLOAT32 = Numerics(compute_dtype="float32")


def test_honest_variants_differ_in_sharding_micro_batches_kernels_and_dtype() -> None:
    found = {named.name: named.variant for named in variants(BASE, 8, FLOAT32)}
    assert {v.world_size for v in found.values()} == {1, 2, 4}
    assert {v.micro_batches for v in found.values()} >= {1, 2}
    assert {v.attention for v in found.values()} >= {"eager", "sdpa"}
    assert {v.experts for v in found.values()} >= {"eager", "grouped_mm"}
    assert {v.compute_dtype for v in found.values()} == {"float32", "bfloat16"}


def test_what_the_reference_does_itself_is_trained_once_more_and_not_twice() -> None:
    kernels = {"attention": "sdpa", "experts": "grouped_mm"}
    for base in (BASE, BASE.model_copy(update=kernels | {"compute_dtype": "bfloat16"})):
        equal = [named.name for named in variants(base, 8, FLOAT32) if named.variant == base]
        assert equal == ["the same again"]


def test_bfloat16_counts_as_honest_only_where_the_benchmark_computes_in_it() -> None:
    def counted(base: Variant) -> dict[str, bool]:
        return {named.name: named.counted for named in variants(base, 8, FLOAT32)}

    assert not counted(BASE)["bfloat16 compute"]
    # bfloat16 has near ties enough of its own; float32 has them so rarely that they must be forced.
    assert "near ties of the router" in counted(BASE)
    in_bf16 = counted(BASE.model_copy(update={"compute_dtype": "bfloat16"}))
    assert all(in_bf16.values())
    assert "float32 compute" in in_bf16


def test_what_the_benchmark_allows_to_be_less_exact_is_a_counted_variant() -> None:
    def added(**allowed: str) -> list[NamedVariant]:
        numerics = Numerics.model_validate({"compute_dtype": "float32", **allowed})
        plain = variants(BASE, 8, FLOAT32)
        return [named for named in variants(BASE, 8, numerics) if named not in plain]

    assert added() == []
    (reductions,) = added(reduce_dtype="bfloat16")
    assert reductions.variant == BASE.model_copy(update={"reduce_dtype": "bfloat16"})
    (state,) = added(state_dtype="bfloat16")
    assert state.variant == BASE.model_copy(update={"state_dtype": "bfloat16"})
    assert reductions.counted and state.counted


def test_a_variant_that_cannot_deal_the_rows_is_left_out() -> None:
    assert all(6 % named.variant.world_size == 0 for named in variants(BASE, 6, FLOAT32))
    assert all(named.variant.micro_batches <= 1 for named in variants(BASE, 1, FLOAT32))
