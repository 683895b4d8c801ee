"""Runs the trusted reference in a sandbox of its own.

Its folder is made after the submission's processes are gone. Of a submission the sandbox holds numbers
alone, where tokens' losses are asked for: the opened states, to read. What goes wrong here is never the
submission's fault.
"""

import selectors
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from safetensors.numpy import save_file

from harness.benchmark.challenge import Challenge
from harness.benchmark.hparams import Hparams
from harness.benchmark.problem import AdamW, Sgd
from harness.benchmark.snapshot import Snapshot
from harness.errors import Code, JudgeError
from harness.files import make_readable, make_readable_folder, take_over
from harness.machine import Device, threads_per_rank
from harness.paths import REFERENCE_LOOP
from harness.reference.outcome import ROWS, Ahead, ReferenceRun, RunFolders, read_run
from harness.reference.task import (
    ASKED,
    COORDINATES,
    FINISHED,
    OUTPUT,
    SUBMITTED,
    TASK,
    TOKEN_ROWS,
    ReferenceTask,
    Variant,
    WeightFile,
    check_rows,
)
from harness.sandbox import EndReason, Job, Sandbox, code_folder, torchrun_argv
from harness.tensors.boxes import State
from harness.verify.attribution import Coordinates, Indices

LOG_TAIL: Final = 4_000
#: What a lane of the reference may take beside its model: activations, and Python with torch.
PROCESS_BYTES: Final = 2**30
#: Weights, gradients, two moments, and room for as much again.
STATES_AT_ONCE: Final = 8


@dataclass(frozen=True)
class Asked:
    """What the reference has to compute besides its own training.

    Attributes:
        rows: for each run int64 [R], counted through all steps, whose tokens' losses are wanted.
        states: for each run the versions of the submitted state; may be empty for all runs.
        steps: for each run those that are looked at along directions; may be empty for all runs.
    """

    rows: Sequence[Indices]
    states: Sequence[Sequence[State]] = ()
    steps: Sequence[Sequence[int]] = ()


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
    ahead: Ahead | None = None,
) -> list[ReferenceRun]:
    """Train on every challenge in one launch, but on those on which that was done before.

    Args:
        coordinates: flat indices to record, from `verify.attribution.draw_coordinates`.
        folder: does not exist yet; keeps the states for as long as the result is used.
        asked: tokens whose losses under the final weights are wanted, in float32, and directions.
        optimizers: one for each challenge; None: the benchmark's for all of them.
        ahead: of runs that were trained before only what is asked for of submitted states is computed; the
            rows in `asked` are those that they were made with.

    Raises:
        InputError: the rows cannot be dealt to the variant's ranks.
        JudgeError: REFERENCE_FAILED, with the end of its log.
    """
    check_rows(hparams, variant)
    before = {} if ahead is None else ahead.folders
    inbox, output = folder / "inbox", folder / OUTPUT
    for made in (folder, inbox, output):  # the reference is another user
        make_readable_folder(made)
    _write_down(folder, coordinates, asked, [n for n in range(len(challenges)) if n not in before])
    task = ReferenceTask(
        model_dir=snapshot.model_dir,
        challenges=tuple(inbox / f"challenge{run}.safetensors" for run in range(len(challenges))),
        trains=tuple(run not in before for run in range(len(challenges))),
        coordinates=inbox / COORDINATES,
        output=output,
        device=device,
        param_dtype=hparams.numerics.param_dtype,
        optimizers=tuple(optimizers or [hparams.optimizer] * len(challenges)),
        variant=variant,
        filter_steps=tuple(map(tuple, asked.steps)) if asked is not None else (),
        lanes=lanes(hparams, variant, device, len(challenges), snapshot.state_bytes),
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
    if any(task.trains) or opened:
        _launch(hparams, task, sandbox, folder, inbox, opened, len(challenges) + more)
    launched = [RunFolders.of_launch(folder, run) for run in range(len(challenges))]
    return [
        read_run(snapshot, replace(before.get(run, each), submitted=each.submitted))
        for run, each in enumerate(launched)
    ]


def lanes(hparams: Hparams, variant: Variant, device: Device, runs: int, state_bytes: int) -> int:
    """How many processes share the runs of one rank on a CPU: no more than its cores and memory allow.

    Args:
        state_bytes: of the model's weights.
    """
    if device != "cpu" or variant.world_size > 1:
        return 1
    room = hparams.limits.memory_bytes // (PROCESS_BYTES + STATES_AT_ONCE * state_bytes)
    return max(1, min(runs, threads_per_rank(1), room))


def _write_down(
    folder: Path, coordinates: Coordinates, asked: Asked | None, runs: Sequence[int]
) -> None:
    """What is asked for of these runs, to be read beside what comes of it: a secret of the judge."""
    (folder / ASKED).mkdir(mode=0o700)
    for run in runs:
        place = RunFolders.of_launch(folder, run).asked
        place.mkdir()
        save_file(dict(coordinates), place / COORDINATES)
        if asked is not None and asked.rows:
            save_file({ROWS: asked.rows[run]}, place / TOKEN_ROWS)


def _write_asked(asked: Asked, inbox: Path) -> dict[str, object]:
    """What the task says of it."""
    save_file({f"run{run}": rows for run, rows in enumerate(asked.rows)}, inbox / TOKEN_ROWS)
    submitted = []
    for run, versions in enumerate(asked.states):
        files = []
        for number, state in enumerate(versions):
            files.append(inbox / f"{SUBMITTED}{run}-{number}.json")
            files[-1].write_text(WeightFile.of(state).model_dump_json(), encoding="utf-8")
        submitted.append(tuple(files))
    return {"token_rows": inbox / TOKEN_ROWS, "submitted": tuple(submitted)}


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
    # The limit is made for the states of an evaluation: beside them lie records, and losses of tokens.
    room = hparams.limits.outbox_bytes * (1 + len(task.challenges))
    limits = hparams.limits.model_copy(update={"outbox_bytes": room})
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
