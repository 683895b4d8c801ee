"""Tolerances from noise. The launches of real variants are `validator calibrate`'s own business and
`tests/reference/test_loop.py`'s; here is what is made of their figures."""

import json
from pathlib import Path

import pytest

from harness.benchmark.hparams import LoadedHparams, load
from harness.benchmark.problem import Numerics
from harness.benchmark.rules import CalibrationVariant, Tolerances
from harness.calibrate import (
    CEILINGS,
    FLOORS,
    TIES,
    NamedVariant,
    conclude,
    pooled,
    variants,
    write,
)
from harness.errors import Code, InputError
from harness.reference.task import Variant

BASE = Variant(world_size=1, micro_batches=1, compute_dtype="float32")
FLOAT32 = Numerics(compute_dtype="float32")
NAMES = tuple(Tolerances.model_fields)


def measured(value: float, counted: bool = True, **worst: float) -> CalibrationVariant:
    return CalibrationVariant(
        name="variant", runs=4, counted=counted, worst={**dict.fromkeys(NAMES, value), **worst}
    )


def test_honest_variants_differ_in_sharding_micro_batches_kernels_and_dtype() -> None:
    found = {named.name: named.variant for named in variants(BASE, 8, FLOAT32)}
    assert {v.world_size for v in found.values()} == {1, 2, 4}
    assert {v.micro_batches for v in found.values()} >= {1, 2}
    assert {v.attention for v in found.values()} >= {"eager", "sdpa"}
    assert {v.experts for v in found.values()} >= {"eager", "grouped_mm"}
    assert {v.compute_dtype for v in found.values()} == {"float32", "bfloat16"}


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


def test_a_tolerance_is_the_multiple_of_the_worst_counted_noise_rounded_up(
    loaded: LoadedHparams,
) -> None:
    noise = [measured(1e-9, update_error=1.234e-3), measured(0.2, counted=False)]
    tolerances, calibration = conclude(loaded, noise, 10.0, "cpu")
    assert tolerances.update_error == 0.013
    assert "update_error" not in calibration.floors
    assert calibration.runs == 4


def test_a_tolerance_never_falls_below_its_floor_and_the_evidence_says_so(
    loaded: LoadedHparams,
) -> None:
    tolerances, calibration = conclude(loaded, [measured(0.0)], 3.0, "cpu")
    assert tolerances == FLOORS
    assert set(calibration.floors) == set(NAMES)


def test_what_is_in_standard_errors_is_left_behind_by_a_number_of_them(
    loaded: LoadedHparams,
) -> None:
    tolerances, _ = conclude(loaded, [measured(1e-9, token_group_shift=4.0)], 3.0, "cpu")
    assert tolerances.token_group_shift == 7.0


def test_what_is_added_keeps_the_worst_of_both_over_the_runs_of_both(loaded: LoadedHparams) -> None:
    old = CalibrationVariant(
        name="variant", runs=6, counted=True, worst={"loss": 0.2, "update_error": 1e-3}
    )
    other = CalibrationVariant(name="other", runs=6, counted=True, worst={"loss": 0.1})
    new = CalibrationVariant(
        name="variant",
        runs=4,
        counted=True,
        worst={"loss": 0.1, "update_error": 2e-3, "token_loss_shift": 0.5},
    )
    both = pooled([old, other], [new])
    assert [(each.name, each.runs) for each in both] == [("variant", 10), ("other", 6)]
    assert both[0].worst == {"loss": 0.2, "update_error": 2e-3, "token_loss_shift": 0.5}
    assert both[1] == other
    assert pooled([other], [new])[1] == new
    tolerances, calibration = conclude(loaded, [*both, measured(1e-9)], 3.0, "cpu")
    assert (tolerances.loss, tolerances.token_loss_shift) == (0.61, 1.5)
    assert calibration.runs == 20


def test_the_strict_bound_leaves_out_the_variant_that_forces_ties(loaded: LoadedHparams) -> None:
    honest = measured(1e-9, update_error=1e-4)
    ties = measured(1e-9, update_error=5e-3).model_copy(update={"name": TIES})
    assert conclude(loaded, [honest, ties], 3.0, "cpu")[1].strict_update_error == 3e-4
    close = measured(1e-9, update_error=1e-6)
    assert conclude(loaded, [close, ties], 3.0, "cpu")[1].strict_update_error == 1e-4  # the floor
    assert conclude(loaded, [honest], 3.0, "cpu")[1].strict_update_error is None, (
        "bfloat16 forces none"
    )


def test_the_strict_bound_is_of_the_benchmark_that_was_calibrated(
    loaded: LoadedHparams, tmp_path: Path
) -> None:
    ties = measured(1e-9).model_copy(update={"name": TIES})
    copy = tmp_path / "hparams.json"
    copy.write_bytes(loaded.path.read_bytes())
    write(copy, *conclude(loaded, [measured(1e-9), ties], 3.0, "cpu"))
    assert load(copy).hparams.strict_update_error == 1e-4
    raw = json.loads(copy.read_bytes())
    raw["steps"]["max"] += 1
    copy.write_text(json.dumps(raw))
    assert load(copy).hparams.strict_update_error is None


def test_what_was_not_measured_has_no_tolerance(loaded: LoadedHparams) -> None:
    """A benchmark that compares no tokens' losses."""
    known = {name: 1e-3 for name in NAMES if not name.startswith("token_")}
    variant = CalibrationVariant(name="variant", runs=4, counted=True, worst=known)
    tolerances, calibration = conclude(loaded, [variant], 3.0, "cpu")
    assert tolerances.token_loss_shift is None and tolerances.token_group_shift is None
    assert "token_loss_shift" not in calibration.floors


@pytest.mark.parametrize("name", list(CEILINGS))
def test_a_benchmark_whose_noise_hides_cheats_is_refused(loaded: LoadedHparams, name: str) -> None:
    with pytest.raises(InputError) as caught:
        conclude(loaded, [measured(1e-6, True, **{name: 0.2})], 10.0, "cpu")
    assert caught.value.code is Code.HPARAMS_INVALID
    assert name in caught.value.message


def test_what_is_written_loads_as_calibrated_and_changes_nothing_else(
    loaded: LoadedHparams, tmp_path: Path
) -> None:
    copy = tmp_path / "hparams.json"
    copy.write_bytes(loaded.path.read_bytes())
    write(copy, *conclude(loaded, [measured(1e-7)], 10.0, "cpu"))
    before, after = (json.loads(path.read_bytes()) for path in (loaded.path, copy))
    assert load(copy).hparams.calibrated
    assert {k: v for k, v in before.items() if k != "verify"} == {
        k: v for k, v in after.items() if k != "verify"
    }


def test_a_changed_benchmark_is_no_longer_calibrated(loaded: LoadedHparams, tmp_path: Path) -> None:
    copy = tmp_path / "hparams.json"
    copy.write_bytes(loaded.path.read_bytes())
    write(copy, *conclude(loaded, [measured(1e-7)], 10.0, "cpu"))
    raw = json.loads(copy.read_bytes())
    raw["optimizer"]["lr"] = 0.2
    copy.write_text(json.dumps(raw))
    assert not load(copy).hparams.calibrated


def test_the_shipped_benchmark_is_calibrated(loaded: LoadedHparams) -> None:
    assert loaded.hparams.calibrated
