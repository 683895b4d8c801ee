"""Where tolerances come from: the noise of honest runs, measured on this benchmark.

The trusted reference is run in the ways in which honest submissions differ (sharding, micro-batches,
kernels, compute dtype) on the same challenges, and each is compared with the benchmark's own reference
by the very functions that judge a submission. A tolerance is a stated multiple of the worst of it.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np

from harness import machine
from harness.benchmark import challenge as challenges
from harness.benchmark.challenge import Challenge
from harness.benchmark.hparams import (
    Calibration,
    CalibrationVariant,
    Hparams,
    LoadedHparams,
    Steps,
    Tolerances,
)
from harness.benchmark.snapshot import Snapshot
from harness.errors import Code, InputError
from harness.machine import Device
from harness.phases import OnProgress
from harness.reference.launch import ReferenceRun, Variant, default_variant, run_reference
from harness.sandbox import Sandbox
from harness.tensors.stored import trusted_state
from harness.timed.workspace import Workspace
from harness.verification import Truth, compare, secret_coordinates
from harness.verify.attribution import Coordinates
from harness.verify.metrics import RunMetrics, exceeds, metric_values

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
)
#: Above these a benchmark cannot tell a cheat from noise: a step that is missing has weight 0.
CEILINGS: Final = {
    "update_error": 0.5,
    "tensor_update_error": 0.9,
    "slice_update_error": 0.9,
    "step_weight": 0.5,
}
#: Relative size of the noise that decides near ties in the variant that forces them. Some ten times
#: what float32 kernels differ by, so that every run has several; bfloat16 has its own without help.
NEAR_TIES: Final = 1e-5


@dataclass(frozen=True)
class NamedVariant:
    """One way to be honest. `counted` is False where the benchmark's compute dtype forbids it."""

    name: str
    variant: Variant
    counted: bool = True


def variants(base: Variant, global_batch: int) -> list[NamedVariant]:
    """The ways in which honest submissions differ from the reference `base`."""

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
        found.append(differs("near ties of the router", near_ties=NEAR_TIES))
    # Whoever computes more exactly than allowed is honest; whoever computes in bfloat16 is only where
    # the benchmark says so.
    if bf16:
        found.append(differs("float32 compute", compute_dtype="float32"))
    found.append(differs("bfloat16 compute", counted=bf16, compute_dtype="bfloat16"))
    return found


def calibrate(
    loaded: LoadedHparams,
    snapshot: Snapshot,
    sandbox: Sandbox,
    runs: int,
    multiple: float,
    progress: OnProgress,
) -> tuple[Tolerances, Calibration]:
    """Measure every variant on `runs` challenges of the greatest length.

    Raises:
        JudgeError: a reference failed.
        InputError: the noise is so large that the benchmark cannot judge.
    """
    hparams = loaded.hparams
    device = machine.pick_device(hparams.world.device, hparams.world.size)
    longest = hparams.model_copy(
        update={"steps": Steps(min=hparams.steps.max, max=hparams.steps.max)}
    )
    corpus = snapshot.tokens()
    drawn = [challenges.draw(corpus, longest) for _ in range(runs)]
    coordinates = secret_coordinates(snapshot.layout, hparams)
    base = default_variant(hparams, hparams.world.size)
    with Workspace() as workspace:
        lab = _Lab(hparams, snapshot, sandbox, device, drawn, coordinates, workspace)
        progress(f"reference: {runs} runs of {hparams.steps.max} steps")
        reference = lab.run("reference", base)
        measured = []
        for number, named in enumerate(variants(base, hparams.global_batch)):
            worst = lab.worst(reference, lab.run(f"variant{number}", named.variant))
            lab.discard(f"variant{number}")
            measured.append(
                CalibrationVariant(
                    name=named.name, runs=runs, counted=named.counted, worst=worst.model_dump()
                )
            )
            progress(f"{named.name}: update error {worst.update_error:.2e}")
    return conclude(loaded, measured, multiple, device)


@dataclass(frozen=True)
class _Lab:
    """Runs variants on fixed challenges and measures how they differ."""

    hparams: Hparams
    snapshot: Snapshot
    sandbox: Sandbox
    device: Device
    challenges: Sequence[Challenge]
    coordinates: Coordinates
    workspace: Workspace

    def run(self, name: str, variant: Variant) -> list[ReferenceRun]:
        return run_reference(
            self.hparams,
            self.snapshot,
            self.challenges,
            self.coordinates,
            variant,
            self.sandbox,
            self.device,
            self.workspace.root / name,
        )

    def discard(self, name: str) -> None:
        """Free the disk: a dozen variants of a large model would fill it."""
        shutil.rmtree(self.workspace.root / name)

    def worst(self, reference: list[ReferenceRun], other: list[ReferenceRun]) -> RunMetrics:
        """The worst of every metric over the runs."""
        layout = self.snapshot.layout
        initial = trusted_state(self.snapshot.state_dir, layout)
        values = [
            noise(
                Truth(
                    initial,
                    truth,
                    self.coordinates,
                    layout,
                    challenge.occurrences,
                    self.hparams.optimizer,
                ),
                honest,
            )
            for challenge, truth, honest in zip(self.challenges, reference, other, strict=True)
        ]
        return RunMetrics(
            **{
                name: max(getattr(metrics, name) for metrics in values)
                for name in RunMetrics.model_fields
            }
        )


def noise(truth: Truth, honest: ReferenceRun) -> RunMetrics:
    """How far an honest run is from the reference, by the functions that judge a submission."""
    # A dp rank may report the mean of its rows alone: of one row, in the extreme.
    loss = float(np.abs(honest.losses[-1] - truth.reference.losses[-1]).max())
    return metric_values(*compare(truth, [honest.state]), loss)


def conclude(
    loaded: LoadedHparams, measured: Sequence[CalibrationVariant], multiple: float, device: Device
) -> tuple[Tolerances, Calibration]:
    """Tolerances from the worst counted noise."""
    counted = [variant for variant in measured if variant.counted]
    worst = {
        name: max(variant.worst[name] for variant in counted) for name in Tolerances.model_fields
    }
    wanted = {name: multiple * value for name, value in worst.items()}
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
    floors = {name: floor for name, floor in FLOORS.model_dump().items() if wanted[name] <= floor}
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
        variants=tuple(measured),
        benchmark_sha256=loaded.hparams.noise_sha256(),
    )


def _round_up(value: float) -> float:
    """Two significant digits, upwards."""
    digits = 10.0 ** (np.floor(np.log10(value)) - 1)
    return float(f"{np.ceil(value / digits) * digits:.2g}")


def write(path: Path, tolerances: Tolerances, calibration: Calibration) -> None:
    """Put the outcome into the hparams file; everything else in it stays as it was."""
    document = json.loads(path.read_bytes())
    document["verify"]["tolerances"] = tolerances.model_dump()
    document["verify"]["calibration"] = calibration.model_dump(mode="json")
    # In one step, so that whoever interrupts this still has a benchmark.
    new = path.with_name(path.name + ".new")
    new.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    shutil.copymode(path, new)
    new.replace(path)
