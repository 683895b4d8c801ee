"""What a node's child measures: a portion, written down after every part, as `calibrate --json` does it."""

from pathlib import Path

from harness.api import fill_bank
from harness.benchmark.hparams import LoadedHparams, load_hparams
from harness.benchmark.snapshot import Snapshot, open_snapshot
from harness.calibrate import evidence
from harness.calibrate.measure import measure as measure_noise
from harness.fleet.reports import Portion
from harness.machine import pick_device
from harness.measured_file import write_down
from harness.phases import OnProgress
from harness.power import measured
from harness.power.families import wanted
from harness.power.sweep import measure as measure_power
from harness.records import Record
from harness.sandbox import Sandbox, choose


class Measurement(Record):
    """A portion, and how it is measured on this machine."""

    portion: Portion
    hparams: Path
    snapshot: Path
    level: str
    image: str | None
    output: Path


def carry_out(task: Measurement, say: OnProgress) -> None:
    """Measure it. Raises InputError, JudgeError."""
    portion = task.portion
    match portion.what:
        case "calibrate":
            loaded, snapshot, sandbox = _opened(task)
            world = loaded.hparams.world
            measure_noise(
                loaded,
                snapshot,
                sandbox,
                portion.runs,
                say,
                lambda found: write_down(task.output, found),
                evidence.nothing_yet(loaded, pick_device(world.device, world.size)),
                portion.only,
            )
        case "power":
            loaded, snapshot, sandbox = _opened(task)
            measure_power(
                loaded,
                snapshot,
                sandbox,
                wanted(portion.families),
                portion.runs,
                say,
                lambda found: write_down(task.output, found),
                measured.nothing_yet(loaded.hparams),
            )
        case "bank":
            added, unused = fill_bank(
                task.hparams,
                task.snapshot,
                task.level,
                task.image,
                portion.world_size,
                portion.runs,
                portion.limit_bytes,
                idle=False,
            )
            say(f"{added} added, {unused} unused")


def _opened(task: Measurement) -> tuple[LoadedHparams, Snapshot, Sandbox]:
    loaded = load_hparams(task.hparams)
    sandbox = choose(task.level, image=task.image, hparams_sha256=loaded.sha256)
    return loaded, open_snapshot(loaded, task.snapshot), sandbox
