"""Runs the trusted reference in a sandbox of its own and reads what it leaves.

Its folder is made after the submission's processes are gone. Of a submission the sandbox holds numbers
alone, where tokens' losses are asked for: the opened states, to read. What goes wrong here is never the
submission's fault.
"""

import selectors
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save_file

from harness.benchmark.challenge import Challenge
from harness.benchmark.hparams import Hparams
from harness.benchmark.problem import AdamW, Dtype, Optimizer, Sgd
from harness.benchmark.snapshot import Snapshot
from harness.errors import Code, InputError, JudgeError
from harness.files import make_readable, make_readable_folder, take_over
from harness.machine import Device, threads_per_rank
from harness.paths import REFERENCE_LOOP
from harness.records import Record
from harness.reference.cheats import Cheat
from harness.sandbox import EndReason, Job, Sandbox, code_folder, torchrun_argv
from harness.tensors.boxes import State
from harness.tensors.stored import trusted_state
from harness.verify.attribution import Coordinates, Indices

TASK = "task.json"
COORDINATES = "coordinates.safetensors"
FINISHED = "finished"
STATE = "state"
RECORD = "record.safetensors"
TOKEN_ROWS = "token_rows.safetensors"
TOKEN_LOSSES = "token_losses.safetensors"
# In TOKEN_LOSSES: the reference's own, and the versions of the submitted state by number.
REFERENCE, SUBMITTED = "reference", "submitted"
LOG_TAIL = 4_000


class Variant(Record):
    """What may differ between two honest runs of the same benchmark; null is transformers' default.

    Attributes:
        compute_dtype: of matrix products.
        reduce_dtype: of the gradients that ranks reduce.
        state_dtype: what the optimizer's state is rounded to after every step.
        near_ties: relative size of the noise that decides the router's near ties; 0 is none.
        cheat: work that is left out, for `validator power`; then the run is not honest at all.
    """

    world_size: int
    micro_batches: int
    compute_dtype: Dtype
    reduce_dtype: Dtype = "float32"
    state_dtype: Dtype = "float32"
    attention: str | None = None
    experts: str | None = None
    near_ties: float = 0.0
    cheat: Cheat | None = None


class ReferenceTask(Record):
    """What one launch of `harness.reference.loop` reads.

    Attributes:
        model_dir: the snapshot's model folder.
        challenges: challenge files, one per run.
        optimizers: one per run.
        coordinates: safetensors of int64 flat indices for each sampled tensor.
        output: folder that gets `run0`, `run1`, ... and at the end one marker file of each rank.
        token_rows: safetensors of int64 row indices for each run whose tokens' losses are wanted.
        submitted: for each run a WeightFile of each version of the submitted state.
    """

    model_dir: Path
    challenges: tuple[Path, ...]
    coordinates: Path
    output: Path
    device: Device
    param_dtype: Dtype
    optimizers: tuple[Optimizer, ...]
    variant: Variant
    token_rows: Path | None = None
    submitted: tuple[tuple[Path, ...], ...] = ()


class WeightPiece(Record):
    """A box of one tensor of a state, in a file that the reference's ranks can read.

    Attributes:
        file, start, size: where its bytes lie.
        dtype: torch's name.
    """

    name: str
    offset: tuple[int, ...]
    shape: tuple[int, ...]
    dtype: str
    file: Path
    start: int
    size: int


class WeightFile(Record):
    """A whole state."""

    pieces: tuple[WeightPiece, ...]


@dataclass(frozen=True)
class Asked:
    """Whose losses of which tokens the reference has to compute.

    Attributes:
        rows: for each run int64 [R], the rows of all steps counted through.
        states: for each run the versions of the submitted state; may be empty for all runs.
    """

    rows: Sequence[Indices]
    states: Sequence[Sequence[State]] = ()


@dataclass(frozen=True)
class TokenLosses:
    """Losses of sampled tokens, in float32, nats.

    Attributes:
        rows: int64 [R], the rows of all steps counted through.
        reference: float32 [R, T], under the reference's final weights.
        submitted: float32 [R, T], one for each version of the submitted state.
    """

    rows: Indices
    reference: npt.NDArray[np.float32]
    submitted: tuple[npt.NDArray[np.float32], ...]


@dataclass(frozen=True)
class ReferenceRun:
    """What the reference found for one challenge.

    Attributes:
        state: the final state.
        losses: float32 [steps, global_batch], mean cross-entropy of each row before each step, nats.
        step_updates: float64 [steps, samples], change of the sampled coordinates in each step.
        initial: float64 [samples], their values before the first step.
        token_losses: None where they were not asked for.
    """

    state: State
    losses: npt.NDArray[np.float32]
    step_updates: npt.NDArray[np.float64]
    initial: npt.NDArray[np.float64]
    token_losses: TokenLosses | None = None


def default_variant(hparams: Hparams, world_size: int) -> Variant:
    """The reference as the benchmark asks for it. It reduces, and keeps its state, in float32."""
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
    asked: Asked | None = None,
    optimizers: Sequence[Sgd | AdamW] | None = None,
) -> list[ReferenceRun]:
    """Train on every challenge in one launch.

    Args:
        coordinates: flat indices to record, from `verify.attribution.draw_coordinates`.
        folder: does not exist yet; keeps the states for as long as the result is used.
        asked: tokens whose losses under the final weights are wanted, in float32.
        optimizers: one for each challenge; None: the benchmark's for all of them.

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
        optimizers=tuple(optimizers or [hparams.optimizer] * len(challenges)),
        variant=variant,
    )
    opened: tuple[Path, ...] = ()
    if asked is not None and asked.rows:
        task = task.model_copy(update=_write_asked(asked, inbox))
        opened = _opened_folders(asked.states)
    for challenge, path in zip(challenges, task.challenges, strict=True):
        challenge.write(path)
    save_file(dict(coordinates), task.coordinates)
    (inbox / TASK).write_text(task.model_dump_json())
    for file in inbox.iterdir():
        make_readable(file)

    more = 0 if asked is None else sum(max(0, len(each) - 1) for each in asked.states)
    _launch(hparams, task, sandbox, folder, inbox, opened, len(challenges) + more)
    return read_reference(snapshot, folder, len(challenges))[1]


def _write_asked(asked: Asked, inbox: Path) -> dict[str, object]:
    """What the task says of it."""
    save_file({f"run{run}": rows for run, rows in enumerate(asked.rows)}, inbox / TOKEN_ROWS)
    submitted = []
    for run, versions in enumerate(asked.states):
        files = []
        for number, state in enumerate(versions):
            files.append(inbox / f"{SUBMITTED}{run}-{number}.json")
            files[-1].write_text(_weights(state).model_dump_json(), encoding="utf-8")
        submitted.append(tuple(files))
    return {"token_rows": inbox / TOKEN_ROWS, "submitted": tuple(submitted)}


def _weights(state: State) -> WeightFile:
    return WeightFile(
        pieces=tuple(
            WeightPiece(
                name=piece.name,
                offset=piece.box.offset,
                shape=piece.box.shape,
                dtype=piece.dtype,
                file=Path(piece.file),
                start=piece.start,
                size=piece.data.size,
            )
            for pieces in state.values()
            for piece in pieces
            if piece.data.size
        )
    )


def _opened_folders(states: Sequence[Sequence[State]]) -> tuple[Path, ...]:
    """Where submitted states lie. The reference is another user than the judge, and may read them now."""
    files = {
        Path(piece.file)
        for versions in states
        for state in versions
        for pieces in state.values()
        for piece in pieces
    }
    folders = {file.parent for file in files}
    for path in (*files, *folders, *{folder.parent for folder in folders}):
        take_over(path)
    return tuple(sorted(folders))


def read_reference(
    snapshot: Snapshot, folder: Path, runs: int
) -> tuple[Coordinates, list[ReferenceRun]]:
    """What a launch in `folder` has left, for as long as the folder is there: also a kept one."""
    coordinates = load_file(folder / "inbox" / COORDINATES)
    asked = folder / "inbox" / TOKEN_ROWS
    rows = load_file(asked) if asked.is_file() else {}
    found = [
        _read(snapshot, folder / "output" / f"run{run}", rows.get(f"run{run}"))
        for run in range(runs)
    ]
    return coordinates, found


def _launch(
    hparams: Hparams,
    task: ReferenceTask,
    sandbox: Sandbox,
    folder: Path,
    inbox: Path,
    opened: Sequence[Path],
    work: int,
) -> None:
    """Run the loop to its end. A correct run can abort while it exits, so the ranks' markers count.

    Args:
        opened: folders of the submission's states.
        work: runs to be trained, and versions of a submitted state beyond each one's first: these cost a
            submission hardly anything, and may not make the reference late.
    """
    limits = hparams.limits
    world_size = task.variant.world_size
    # One process needs no torchrun, whose own start takes two seconds.
    alone = (sys.executable, "-m", REFERENCE_LOOP)
    command = alone if world_size == 1 else torchrun_argv(world_size, REFERENCE_LOOP)
    job = Job(
        argv=(*command, str(inbox / TASK)),
        code=code_folder(folder / "code", judge=True),
        read_only=(task.model_dir, inbox, *opened),
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
    seconds = limits.startup_seconds + work * (limits.run_seconds + limits.open_seconds)
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


def _read(snapshot: Snapshot, folder: Path, rows: Indices | None) -> ReferenceRun:
    record = load_file(folder / RECORD)
    values = record["values"].astype(np.float64)
    return ReferenceRun(
        state=trusted_state(folder / STATE, snapshot.layout),
        losses=record["losses"],
        step_updates=np.diff(values, axis=0),
        initial=values[0],
        token_losses=None if rows is None else _read_token_losses(folder / TOKEN_LOSSES, rows),
    )


def _read_token_losses(file: Path, rows: Indices) -> TokenLosses:
    found = load_file(file)
    versions = [found[f"{SUBMITTED}{number}"] for number in range(len(found) - 1)]
    return TokenLosses(rows, found[REFERENCE], tuple(versions))
