"""A train file under torch.profiler, for its author: in the same sandbox, off every clock, never judged."""

import os
import selectors
import shutil
import stat
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from harness.errors import Code, SubmissionError
from harness.files import write_readable
from harness.paths import PROFILER
from harness.protocol.profile import MAX_PROFILE_BYTES, PROFILE_FILE, TRACE_FILE, RankProfile
from harness.sandbox import torchrun_argv
from harness.timed.job import submission_job
from harness.timed.run import TRAIN_FILE, TimedSetup, assignment
from harness.timed.workspace import Workspace

TASK_FILE: Final = "assignment.json"
LOG_TAIL: Final = 4_000


def profile_ranks(setup: TimedSetup, trace: Path) -> tuple[RankProfile, ...]:
    """Record one run of every rank, on random tokens and as many steps as a run may have.

    Args:
        trace: gets rank 0's Chrome trace; those of the others go beside it, as NAME.rank1.json.

    Raises:
        SubmissionError: TRAINING_FAILED: the run failed, with the end of what it printed; RESULT_INVALID:
            what it left is no profile.
    """
    with Workspace() as workspace:
        _record(setup, workspace)
        profiles = []
        for rank in range(setup.world_size):
            profiles.append(_figures(workspace.outbox / PROFILE_FILE.format(rank=rank)))
            target = trace if rank == 0 else trace.with_suffix(f".rank{rank}{trace.suffix}")
            left = workspace.outbox / TRACE_FILE.format(rank=rank)
            _copy(left, target, setup.hparams.limits.outbox_bytes)
    return tuple(profiles)


def _record(setup: TimedSetup, workspace: Workspace) -> None:
    write_readable(workspace.inbox / TRAIN_FILE, setup.submission.source)
    write_readable(workspace.inbox / TASK_FILE, msgspec.json.encode(assignment(setup)))
    job = submission_job(setup.hparams, setup.snapshot, setup.device, setup.world_size, workspace)
    job = replace(
        job,
        argv=torchrun_argv(setup.world_size, PROFILER),
        environment={
            **job.environment,
            "TRAINJUDGE_TASK": str(workspace.inbox / TASK_FILE),
            "TRAINJUDGE_TRAIN_FILE": str(workspace.inbox / TRAIN_FILE),
            "TRAINJUDGE_STEPS": str(setup.hparams.steps.max),
        },
    )
    limits = setup.hparams.limits
    seconds = limits.startup_seconds + 2 * limits.setup_seconds + limits.run_seconds
    with setup.sandbox.start(job) as running:
        with selectors.DefaultSelector() as selector:
            selector.register(running, selectors.EVENT_READ)
            ended = bool(selector.select(seconds))
        ending = running.stop()
        log = running.log()
    if not ended or ending.exit_status != 0:
        why = ending.detail if ended else f"it did not end within {seconds:g} seconds"
        raise SubmissionError(
            Code.TRAINING_FAILED, f"the profiled run failed: {why}", log[-LOG_TAIL:]
        )


def _figures(file: Path) -> RankProfile:
    try:
        with _opened(file, MAX_PROFILE_BYTES) as opened:
            return msgspec.json.decode(opened.read(MAX_PROFILE_BYTES), type=RankProfile)
    except (OSError, msgspec.DecodeError) as error:
        raise SubmissionError(Code.RESULT_INVALID, f"{file.name} is no profile: {error}") from None


def _copy(file: Path, target: Path, most: int) -> None:
    """As it is: it is for a viewer, and nothing here reads it."""
    try:
        with _opened(file, most) as opened, target.open("wb") as out:
            shutil.copyfileobj(opened, out)
    except OSError as error:
        raise SubmissionError(
            Code.RESULT_INVALID, f"{file.name} cannot be copied to {target}: {error}"
        ) from None


def _opened(file: Path, most: int) -> BinaryIO:
    """What a train file may have put there, if it is a file: no link is followed, no pipe waited for."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    opened = os.fdopen(os.open(file, flags), "rb")
    found = os.fstat(opened.fileno())
    if not stat.S_ISREG(found.st_mode) or found.st_size > most:
        opened.close()
        raise OSError(f"it is no file of at most {most:,} bytes")
    return opened
