"""Where tolerances come from: the noise of honest runs, measured on this benchmark.

The trusted reference is run in the ways in which honest submissions differ (sharding, micro-batches,
kernels, compute dtype) on the same challenges, and each is compared with the benchmark's own reference
by the very functions that judge a submission. A tolerance is a stated multiple of the worst of it.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np

from harness import machine
from harness.benchmark.hparams import LoadedHparams
from harness.benchmark.problem import Numerics
from harness.benchmark.rules import Calibration, CalibrationVariant, Tolerances
from harness.benchmark.snapshot import Snapshot
from harness.errors import Code, InputError
from harness.files import write_whole
from harness.lab import Lab, worst
from harness.machine import Device
from harness.phases import OnProgress
from harness.reference.task import Variant, default_variant
from harness.sandbox import Sandbox
from harness.verify.metrics import exceeds

#: A tolerance is never below these, whatever little noise was measured: they reject every cheat that
#: we know of, and leave room for what a handful of runs need not contain (docs/tolerances.md).
FLOORS: Final = Tolerances(
    loss=1e-4,
    update_error=1e-3,
    tensor_update_error=0.02,
    slice_update_error=0.02,
    norm_ratio=1e-3,
    tensor_norm_ratio=0.02,
    step_weight=0.02,
    token_loss_shift=1e-5,
    token_group_shift=6.0,
)
#: Above these a benchmark cannot tell a cheat from noise: a step that is missing has weight 0.
CEILINGS: Final = {
    "update_error": 0.5,
    "tensor_update_error": 0.9,
    "slice_update_error": 0.9,
    "step_weight": 0.5,
}
#: Measured in standard errors: a tail that falls so fast is left behind by so many more, not by a factor.
STANDARD_ERRORS: Final = ("token_group_shift",)
#: Honest float32 runs without a flipped tie stay far below it; it leaves room for other machines' kernels.
STRICT_FLOOR: Final = 1e-4
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
    """The ways in which honest submissions differ from the reference `base`.

    Args:
        numerics: of the benchmark: a lower precision than the reference's is honest where it is allowed.
    """

    def differs(name: str, counted: bool = True, **changes: object) -> NamedVariant:
        return NamedVariant(name, base.model_copy(update=changes), counted)

    found = [NamedVariant("the same again", base)]
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
    found.append(differs("bfloat16 compute", counted=bf16, compute_dtype="bfloat16"))
    if numerics.reduce_dtype == "bfloat16":
        found.append(differs("bfloat16 reductions", reduce_dtype="bfloat16"))
    if numerics.state_dtype == "bfloat16":
        found.append(differs("bfloat16 optimizer state", state_dtype="bfloat16"))
    return found


def calibrate(
    loaded: LoadedHparams,
    snapshot: Snapshot,
    sandbox: Sandbox,
    runs: int,
    multiple: float,
    progress: OnProgress,
    *,
    only: str = "",
    add: bool = False,
) -> tuple[Tolerances, Calibration]:
    """Measure every variant on `runs` challenges of the greatest length.

    Args:
        only: measure the variants whose names contain this.
        add: to what the benchmark's calibration has already measured.

    Raises:
        JudgeError: a reference failed.
        InputError: the noise is so large that the benchmark cannot judge.
    """
    hparams = loaded.hparams
    base = default_variant(hparams, hparams.world.size)
    with Lab.opened(hparams, snapshot, sandbox, runs) as lab:
        progress(f"reference: {runs} runs of {hparams.steps.max} steps")
        reference = lab.run("reference", base)
        measured = []
        wanted = [
            v for v in variants(base, hparams.global_batch, hparams.numerics) if only in v.name
        ]
        for number, named in enumerate(wanted):
            noise = worst(lab.measure(reference, lab.run(f"variant{number}", named.variant)))
            lab.discard(f"variant{number}")
            measured.append(
                CalibrationVariant(
                    name=named.name,
                    runs=runs,
                    counted=named.counted,
                    worst=noise.model_dump(exclude_none=True),
                )
            )
            progress(f"{named.name}: update error {noise.update_error:.2e}")
    known = hparams.verify.calibration if add and hparams.calibrated else None
    everything = measured if known is None else pooled(known.variants, measured)
    return conclude(loaded, everything, multiple, lab.device)


def pooled(
    known: Sequence[CalibrationVariant], new: Sequence[CalibrationVariant]
) -> list[CalibrationVariant]:
    """The worst of both for every variant, over the runs of both.

    A metric that was not measured before has what was measured now.
    """
    found = {variant.name: variant for variant in known}
    for variant in new:
        before = found.get(variant.name)
        if before is not None:
            names = {**before.worst, **variant.worst}
            worst = {
                name: max(each.worst[name] for each in (before, variant) if name in each.worst)
                for name in names
            }
            runs = before.runs + variant.runs
            variant = variant.model_copy(update={"runs": runs, "worst": worst})
        found[variant.name] = variant
    return list(found.values())


def conclude(
    loaded: LoadedHparams, measured: Sequence[CalibrationVariant], multiple: float, device: Device
) -> tuple[Tolerances, Calibration]:
    """Tolerances from the worst counted noise."""
    counted = [variant for variant in measured if variant.counted]
    noise = {
        name: max(variant.worst[name] for variant in counted if name in variant.worst)
        for name in Tolerances.model_fields
        if any(name in variant.worst for variant in counted)
    }
    wanted = {
        name: value + multiple if name in STANDARD_ERRORS else multiple * value
        for name, value in noise.items()
    }
    blind = [
        f"{name} would be {wanted[name]:.2g}, and a cheat shows at {ceiling:g}"
        for name, ceiling in CEILINGS.items()
        if exceeds(wanted[name], ceiling)  # NaN: the reference's steps cannot be told apart
    ]
    if blind:
        raise InputError(
            Code.HPARAMS_INVALID,
            "honest noise is too large for this benchmark to judge anything; take fewer steps, "
            "float32 compute or a smaller multiple:\n" + "\n".join(blind),
        )
    floors = {
        name: floor
        for name, floor in FLOORS.model_dump().items()
        if wanted.get(name, math.inf) <= floor
    }
    tolerances = Tolerances(
        **{
            name: floors[name] if name in floors else _round_up(value)
            for name, value in wanted.items()
        }
    )
    described = machine.describe(device, 1)
    return tolerances, Calibration(
        date=datetime.now(UTC).date().isoformat(),
        torch=described.torch,
        transformers=described.transformers,
        device=described.devices[0],
        multiple=multiple,
        runs=sum(variant.runs for variant in counted),
        floors=floors,
        strict_update_error=_strict(counted, multiple),
        variants=tuple(measured),
        benchmark_sha256=loaded.hparams.noise_sha256(),
    )


def _strict(counted: Sequence[CalibrationVariant], multiple: float) -> float | None:
    """What one of several honest runs stays below: the worst that is without forced ties.

    None where ties are not forced, since noise as large as a flip is in every run there.
    """
    if all(variant.name != TIES for variant in counted):
        return None
    worst = max(variant.worst["update_error"] for variant in counted if variant.name != TIES)
    return max(STRICT_FLOOR, _round_up(multiple * worst))


def _round_up(value: float) -> float:
    """Two significant digits, upwards."""
    if not value:
        return 0.0
    digits = 10.0 ** (np.floor(np.log10(value)) - 1)
    return float(f"{np.ceil(value / digits) * digits:.2g}")


def write(path: Path, tolerances: Tolerances, calibration: Calibration) -> None:
    """Put the outcome into the hparams file; everything else in it stays as it was."""
    document = json.loads(path.read_bytes())
    document["verify"]["tolerances"] = tolerances.model_dump(exclude_none=True)
    document["verify"]["calibration"] = calibration.model_dump(mode="json")
    write_whole(path, json.dumps(document, indent=2, ensure_ascii=False) + "\n")
