"""What was measured of honest runs: in a file of its own, to be added to, or in a calibrated benchmark.

Whoever ends a calibration, or has one that cannot judge, keeps what was measured.
"""

from datetime import UTC, datetime
from pathlib import Path

from pydantic import Field

from harness.benchmark.hparams import LoadedHparams
from harness.benchmark.rules import CalibrationVariant
from harness.errors import Code, InputError
from harness.machine import Device, describe
from harness.measured_file import read_back
from harness.records import Record


class Evidence(Record):
    """Runs of one benchmark on one machine."""

    benchmark: str
    benchmark_sha256: str = Field(description="of the fields that shape the noise")
    date: str = Field(description="of the last run")
    torch: str
    transformers: str
    device: str
    variants: tuple[CalibrationVariant, ...] = ()


def nothing_yet(loaded: LoadedHparams, device: Device) -> Evidence:
    """Of that benchmark, on this machine."""
    described = describe(device, 1)
    return Evidence(
        benchmark=loaded.hparams.name,
        benchmark_sha256=loaded.hparams.noise_sha256(),
        date=_today(),
        torch=described.torch,
        transformers=described.transformers,
        device=described.devices[0],
    )


def of_calibration(loaded: LoadedHparams) -> Evidence:
    """What the tolerances of a benchmark rest on.

    Raises InputError(BAD_ARGUMENT): nothing was measured of it as it is, or but the worst written down.
    """
    known = loaded.hparams.verify.calibration
    if known is None or not loaded.hparams.calibrated:
        raise InputError(
            Code.BAD_ARGUMENT,
            f"nothing was measured of {loaded.hparams.name} as it is: calibrate it",
        )
    if not all(variant.values for variant in known.variants):
        raise InputError(
            Code.BAD_ARGUMENT,
            "this benchmark was calibrated before every run was written down: measure all of it anew",
        )
    return Evidence(
        benchmark=loaded.hparams.name,
        benchmark_sha256=known.benchmark_sha256,
        date=known.date,
        torch=known.torch,
        transformers=known.transformers,
        device=known.device,
        variants=known.variants,
    )


def read_evidence(file: Path, loaded: LoadedHparams) -> Evidence | None:
    """What a file holds already; None where it is not there.

    Raises InputError(BAD_ARGUMENT): it holds something else, or was measured on another benchmark.
    """
    found = read_back(file, Evidence, "validator calibrate")
    if found is not None and found.benchmark_sha256 != loaded.hparams.noise_sha256():
        raise InputError(
            Code.BAD_ARGUMENT,
            f"{file} was measured on {found.benchmark}, which trained in another way: name another file",
        )
    return found


def pooled(known: Evidence, variant: CalibrationVariant) -> Evidence:
    """With the runs of one more measurement."""
    variants = {each.name: each for each in known.variants}
    before = variants.get(variant.name)
    if before is not None:
        values = {
            name: (*before.values.get(name, ()), *variant.values.get(name, ()))
            for name in {**before.values, **variant.values}
        }
        variant = variant.model_copy(
            update={
                "runs": before.runs + variant.runs,
                "worst": {name: max(each) for name, each in values.items()},
                "values": values,
            }
        )
    variants[variant.name] = variant
    return known.model_copy(update={"date": _today(), "variants": tuple(variants.values())})


def _today() -> str:
    return datetime.now(UTC).date().isoformat()
