"""Where the ranks of a submission run: on this machine, or (`harness/nodes`) on several.

The conversation is the same. What differs is who starts the sandboxes, where the files lie that ranks
are given, and where those are that they have written.
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from harness.benchmark.challenge import Challenge
from harness.benchmark.hparams import Hparams
from harness.benchmark.snapshot import Snapshot
from harness.files import write_readable
from harness.machine import Device
from harness.sandbox import Ending, Level, Running, Sandbox
from harness.sandbox.watch import TooManyEntriesError, folder_bytes
from harness.timed.delay import NodeDelay
from harness.timed.job import submission_job
from harness.timed.others import Reading, others_share
from harness.timed.workspace import Workspace


class Started(Protocol):
    """A sandbox that runs, or several that end together; `harness.sandbox.Running` says what each does."""

    @property
    def user(self) -> int: ...

    def fileno(self) -> int: ...

    def ended(self) -> Ending | None: ...

    def stop(self) -> Ending: ...

    def log(self) -> str: ...


class Launch(Protocol):
    """One launch of all ranks. Whatever fails here is ours."""

    @property
    def running(self) -> Started: ...

    def put(self, name: str, data: bytes) -> None:
        """A file for every rank's inbox."""

    def hold(self, name: str, challenge: Challenge) -> None:
        """Keep a challenge beside every rank, where no sandbox can look; it is there when this returns."""

    def release(self, name: str) -> None:
        """Let it into the inbox, before anything that ranks are told next."""

    def delays(self, released: float, committed: Sequence[float]) -> tuple[NodeDelay, ...]:
        """Of the run that has just been timed, for each other machine.

        Args:
            released: `time.perf_counter()` before the release.
            committed: the same, when each rank's commitment had arrived.
        """

    def others(self) -> float:
        """What other programs had of the cores meanwhile, 0 to 1; once all has ended."""

    @property
    def excuses(self) -> bool:
        """Whether none of that can have been the submission's doing, or the judge's for it."""

    def room(self) -> int | None:
        """Bytes that the disk has for what ranks write; None: it is not known. Once all has ended."""

    def collect(self) -> None:
        """Bring what ranks have opened into the workspace's outbox; their sandboxes have ended.

        Raises SubmissionError(OUTBOX_INVALID): something else lies where it should be.
        """


class Place(Protocol):
    """Where launches are made.

    Attributes:
        level: of isolation.
    """

    @property
    def level(self) -> Level: ...

    def launch(
        self,
        hparams: Hparams,
        snapshot: Snapshot,
        device: Device,
        world_size: int,
        workspace: Workspace,
    ) -> AbstractContextManager[Launch]:
        """Start all ranks. Leaving the `with` block ends them, if they are there still."""


@dataclass(frozen=True)
class LaunchHere:
    """In a sandbox of this machine, which shares the workspace with the judge."""

    running: Running
    workspace: Workspace
    before: Reading = field(default_factory=Reading.now)

    def put(self, name: str, data: bytes) -> None:
        write_readable(self.workspace.inbox / name, data)

    def hold(self, name: str, challenge: Challenge) -> None:
        challenge.write(self.workspace.private / name)

    def release(self, name: str) -> None:
        os.rename(self.workspace.private / name, self.workspace.inbox / name)  # noqa: PTH104

    def delays(self, released: float, committed: Sequence[float]) -> tuple[NodeDelay, ...]:
        return ()

    def others(self) -> float:
        return others_share(self.before, Reading.now())

    @property
    def excuses(self) -> bool:
        return True

    def room(self) -> int | None:
        return room_of(self.workspace.outbox)

    def collect(self) -> None:
        pass


def room_of(outbox: Path) -> int | None:
    """Bytes that an outbox's disk has for it, those included that it has taken; None: it has no end."""
    try:
        return shutil.disk_usage(outbox).free + folder_bytes(str(outbox))
    except TooManyEntriesError:
        return None


@dataclass(frozen=True)
class Here:
    """This machine, in such a sandbox."""

    sandbox: Sandbox

    @property
    def level(self) -> Level:
        return self.sandbox.level

    @contextmanager
    def launch(
        self,
        hparams: Hparams,
        snapshot: Snapshot,
        device: Device,
        world_size: int,
        workspace: Workspace,
    ) -> Iterator[Launch]:
        job = submission_job(hparams, snapshot, device, world_size, workspace)
        with self.sandbox.start(job) as running:
            yield LaunchHere(running, workspace)
