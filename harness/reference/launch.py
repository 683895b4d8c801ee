"""Runs the trusted reference in a sandbox of its own and reads what it leaves.

The sandbox holds nothing of a submission, and its folder is made after the submission's processes are
gone. What goes wrong here is never the submission's fault.
"""

import selectors
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save_file

from harness.benchmark.challenge import Challenge
from harness.benchmark.hparams import Hparams, Optimizer
from harness.benchmark.snapshot import Snapshot
from harness.errors import Code, InputError, JudgeError
from harness.files import make_readable, make_readable_folder
from harness.machine import Device, threads_per_rank
from harness.paths import REFERENCE_LOOP
from harness.records import Record
from harness.sandbox import EndReason, Job, Sandbox, code_folder, torchrun_argv
from harness.tensors.boxes import State
from harness.tensors.stored import trusted_state
from harness.verify.attribution import Coordinates

TASK = "task.json"
COORDINATES = "coordinates.safetensors"
FINISHED = "finished"
STATE = "state"
RECORD = "record.safetensors"
LOG_TAIL = 4_000


class Variant(Record):
    """What may differ between two honest runs of the same benchmark; null is transformers' default.

    Attributes:
        near_ties: relative size of the noise that decides the router's near ties; 0 is none.
    """

    world_size: int
    micro_batches: int
    compute_dtype: Literal["float32", "bfloat16"]
    attention: str | None = None
    experts: str | None = None
    near_ties: float = 0.0


class ReferenceTask(Record):
    """What one launch of `harness.reference.loop` reads.

    Attributes:
        model_dir: the snapshot's model folder.
        challenges: challenge files, one per run.
        coordinates: safetensors of int64 flat indices for each sampled tensor.
        output: folder that gets `run0`, `run1`, ... and at the end one marker file of each rank.
    """

    model_dir: Path
    challenges: tuple[Path, ...]
    coordinates: Path
    output: Path
    device: Device
    param_dtype: Literal["float32", "bfloat16"]
    optimizer: Optimizer
    variant: Variant


@dataclass(frozen=True)
class ReferenceRun:
    """What the reference found for one challenge.

    Attributes:
        state: the final state.
        losses: float32 [steps, global_batch], mean cross-entropy of each row before each step, nats.
        step_updates: float64 [steps, samples], change of the sampled coordinates in each step.
        initial: float64 [samples], their values before the first step.
    """

    state: State
    losses: npt.NDArray[np.float32]
    step_updates: npt.NDArray[np.float64]
    initial: npt.NDArray[np.float64]


def default_variant(hparams: Hparams, world_size: int) -> Variant:
    """The reference as the benchmark asks for it."""
    return Variant(
        world_size=hparams.reference.world_size or world_size,
        micro_batches=hparams.reference.micro_batches,
        compute_dtype=hparams.numerics.compute_dtype,
    )


def check_rows(hparams: Hparams, variant: Variant) -> None:
    """Raises InputError unless every rank of the reference gets equally many rows."""
    if hparams.global_batch % variant.world_size:
        raise InputError(
            Code.BAD_ARGUMENT,
            f"a global batch of {hparams.global_batch} rows cannot be dealt to the reference's "
            f"{variant.world_size} ranks: set reference.world_size in hparams, or use another --world",
        )


def run_reference(
    hparams: Hparams,
    snapshot: Snapshot,
    challenges: Sequence[Challenge],
    coordinates: Coordinates,
    variant: Variant,
    sandbox: Sandbox,
    device: Device,
    folder: Path,
) -> list[ReferenceRun]:
    """Train on every challenge in one launch.

    Args:
        coordinates: flat indices to record, from `verify.attribution.draw_coordinates`.
        folder: does not exist yet; keeps the states for as long as the result is used.

    Raises:
        InputError: the rows cannot be dealt to the variant's ranks.
        JudgeError: REFERENCE_FAILED, with the end of its log.
    """
    check_rows(hparams, variant)
    inbox, output = folder / "inbox", folder / "output"
    for made in (folder, inbox, output):  # the reference is another user
        make_readable_folder(made)
    task = ReferenceTask(
        model_dir=snapshot.model_dir,
        challenges=tuple(inbox / f"challenge{run}.safetensors" for run in range(len(challenges))),
        coordinates=inbox / COORDINATES,
        output=output,
        device=device,
        param_dtype=hparams.numerics.param_dtype,
        optimizer=hparams.optimizer,
        variant=variant,
    )
    for challenge, path in zip(challenges, task.challenges, strict=True):
        challenge.write(path)
    save_file(dict(coordinates), task.coordinates)
    (inbox / TASK).write_text(task.model_dump_json())
    for file in inbox.iterdir():
        make_readable(file)

    _launch(hparams, task, sandbox, folder, inbox)
    return read_reference(snapshot, folder, len(challenges))[1]


def read_reference(
    snapshot: Snapshot, folder: Path, runs: int
) -> tuple[Coordinates, list[ReferenceRun]]:
    """What a launch in `folder` has left, for as long as the folder is there: also a kept one."""
    coordinates = load_file(folder / "inbox" / COORDINATES)
    found = [_read(snapshot, folder / "output" / f"run{run}") for run in range(runs)]
    return coordinates, found


def _launch(
    hparams: Hparams, task: ReferenceTask, sandbox: Sandbox, folder: Path, inbox: Path
) -> None:
    """Run the loop to its end. A correct run can abort while it exits, so the ranks' markers count."""
    limits = hparams.limits
    world_size = task.variant.world_size
    # One process needs no torchrun, whose own start takes two seconds.
    alone = (sys.executable, "-m", REFERENCE_LOOP)
    command = alone if world_size == 1 else torchrun_argv(world_size, REFERENCE_LOOP)
    job = Job(
        argv=(*command, str(inbox / TASK)),
        code=code_folder(folder / "code", judge=True),
        read_only=(task.model_dir, inbox),
        writable=(task.output,),
        environment={
            "OMP_NUM_THREADS": str(threads_per_rank(world_size)),
            # Threads that spin while they wait make a busy machine several times slower, and the
            # reference is on no clock. A submission keeps the default, which is a little faster.
            "OMP_WAIT_POLICY": "passive",
        },
        limits=limits,
        outbox=task.output,
        private=(inbox,),
        gpus=world_size if task.device == "cuda" else 0,
    )
    seconds = limits.startup_seconds + len(task.challenges) * (
        limits.run_seconds + limits.open_seconds
    )
    with sandbox.start(job) as running:
        # Not select(): it refuses descriptors above 1023, and every opened file holds one.
        with selectors.DefaultSelector() as selector:
            selector.register(running, selectors.EVENT_READ)
            ended = bool(selector.select(seconds))
        ending = running.stop()
        log = running.log()
    finished = all((task.output / f"{FINISHED}{rank}").is_file() for rank in range(world_size))
    if not finished or ending.reason not in (EndReason.EXITED, EndReason.STOPPED):
        why = ending.detail if ended else f"it did not finish within {seconds:g} seconds"
        raise JudgeError(
            Code.REFERENCE_FAILED,
            f"the trusted reference failed: {why}. This is not the submission's fault",
            log[-LOG_TAIL:],
        )


def _read(snapshot: Snapshot, folder: Path) -> ReferenceRun:
    record = load_file(folder / RECORD)
    values = record["values"].astype(np.float64)
    return ReferenceRun(
        state=trusted_state(folder / STATE, snapshot.layout),
        losses=record["losses"],
        step_updates=np.diff(values, axis=0),
        initial=values[0],
    )
