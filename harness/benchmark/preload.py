"""`validator preload`: everything that an evaluation reads, made once, while there is a network.

The snapshot is built in a folder beside its place and renamed into it when it is whole: an interrupted
preload leaves nothing that looks like a snapshot.
"""

import fcntl
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.benchmark.build_snapshot import build
from harness.benchmark.hparams import LoadedHparams
from harness.benchmark.manifest import read_manifest
from harness.benchmark.snapshot import (
    Snapshot,
    benchmark_key,
    default_directory,
    open_snapshot,
)
from harness.errors import Code, InputError, JudgeError
from harness.phases import OnProgress, silent


def preload(
    loaded: LoadedHparams,
    directory: Path | None = None,
    token: str | None = None,
    progress: OnProgress = silent,
    make: Callable[[Path], None] | None = None,
) -> Snapshot:
    """Make the benchmark's snapshot, or find that it is there and whole.

    Args:
        loaded: the benchmark.
        directory: the snapshot's folder; None: `harness.benchmark.snapshot.default_directory`.
        token: for gated repositories of the hub; None: the one that `hf auth login` or HF_TOKEN gave.
        progress: told what is going on, a line at a time.
        make: fills a new folder with it, such as from a copy; None: from the model and the data.

    Raises:
        InputError: the benchmark names something that is not there or not usable, the hub wants a
            token, or `directory` holds something else.
        JudgeError: DOWNLOAD_FAILED where the hub cannot be reached or sends something wrong;
            INTERNAL where the disk is full or not writable.
    """
    directory = default_directory(loaded) if directory is None else directory.absolute()
    benchmark_key(loaded)  # names a missing tokenizer file before any work is done
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        with _alone(directory, progress):
            if existing := _existing(loaded, directory, progress):
                return existing
            building = directory.with_name(f".{directory.name}.partial")
            shutil.rmtree(building, ignore_errors=True)  # of a preload that was killed
            try:
                if make is None:
                    build(loaded, building, token, progress)
                else:
                    make(building)
                _put_in_place(building, directory)
            finally:
                shutil.rmtree(building, ignore_errors=True)
    except OSError as error:
        raise JudgeError(
            Code.INTERNAL, f"cannot write the snapshot to {directory}: {error.strerror or error}"
        ) from error
    progress("verifying the snapshot")
    return open_snapshot(loaded, directory)


@contextmanager
def _alone(directory: Path, progress: OnProgress) -> Iterator[None]:
    """One preload of a snapshot at a time; a second one waits and finds the work done."""
    with directory.with_name(f".{directory.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("waiting for another preload of this snapshot")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _existing(loaded: LoadedHparams, directory: Path, progress: OnProgress) -> Snapshot | None:
    """The valid snapshot in `directory`; None where there is none or a damaged one to replace."""
    if not directory.exists() or (directory.is_dir() and not any(directory.iterdir())):
        return None
    try:
        manifest = read_manifest(directory)
    except InputError as error:
        raise InputError(
            Code.BAD_ARGUMENT,
            f"{directory} is there already and is not a snapshot: delete it or name another folder",
        ) from error
    if manifest.key != benchmark_key(loaded):
        raise InputError(
            Code.BAD_ARGUMENT,
            f"{directory} holds a snapshot of another benchmark ({manifest.name}) or of other library "
            "versions: delete it or name another folder",
        )
    try:
        snapshot = open_snapshot(loaded, directory)
    except InputError as error:
        if error.code is not Code.SNAPSHOT_CHANGED:
            raise
        progress(f"making it anew: {error.message}")
        return None
    progress(f"the snapshot is there already and whole: {directory}")
    return snapshot


def _put_in_place(building: Path, directory: Path) -> None:
    """Rename, with what was there before moved away first."""
    if directory.exists():
        old = directory.with_name(f".{directory.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        directory.rename(old)
        building.rename(directory)
        shutil.rmtree(old)
    else:
        building.rename(directory)
