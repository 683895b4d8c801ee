"""Fills a bank: draws a challenge, trains the reference on it, puts both away; one after the other."""

import secrets
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from harness import machine
from harness.bank.kind import kind_of, program
from harness.bank.spend import tokens_sha256
from harness.bank.store import Bank, Entry
from harness.benchmark import challenge as challenges
from harness.benchmark.hparams import Hparams
from harness.benchmark.snapshot import Snapshot
from harness.host.timing import machine_held
from harness.machine import Device
from harness.phases import OnProgress
from harness.reference.launch import Asked, run_reference
from harness.reference.outcome import RunFolders
from harness.reference.task import default_variant
from harness.sandbox import Sandbox
from harness.timed.others import NOTED_SHARE, Reading, others_share
from harness.timed.workspace import Workspace, check_room
from harness.verification import judged_steps, secret_coordinates, secret_rows

#: How long a machine has to be quiet before an entry is made beside other work, and until the next look.
LOOK_SECONDS: Final = 2.0


@dataclass(frozen=True)
class Filling:
    """What a bank is filled with.

    Attributes:
        world_size: of the submissions that are to be judged.
        limit_bytes: the bank, of all benchmarks, gets no larger.
        idle: only while nobody else uses the machine.
    """

    hparams: Hparams
    snapshot: Snapshot
    sandbox: Sandbox
    world_size: int
    limit_bytes: int
    idle: bool = False

    @property
    def device(self) -> Device:
        return machine.pick_device(self.hparams.world.device, self.world_size)

    @property
    def kind(self) -> str:
        return kind_of(self.hparams, self.snapshot, self.sandbox, self.world_size, self.device)


def fill(bank: Bank, filling: Filling, count: int, progress: OnProgress) -> int:
    """Add entries until there are `count` unused ones, or the bank is full; gives how many were added.

    The machine is held while one is made: an evaluation that is timed waits for it, and it for that one.

    Raises:
        JudgeError: the reference failed, or the bank cannot be written.
        InputError: there is no room for it where workspaces lie.
    """
    added, kind = 0, filling.kind
    while len(bank.entries(kind)) < count:
        if not _has_room(bank, filling):
            progress(f"the bank is full: it has {bank.size_bytes / 2**30:.2f} GiB")
            break
        check_room(2 * filling.snapshot.state_bytes)
        if filling.idle:
            _await_quiet(progress)
        with machine_held(lambda: progress("waiting for the evaluation that is timed here")):
            _make(bank, filling, kind)
        added += 1
        progress(f"{added} added")
    return added


def _has_room(bank: Bank, filling: Filling) -> bool:
    """For one more; entries that other code has made go first, since nobody can take them any more."""

    def full() -> bool:
        return bank.size_bytes + filling.snapshot.state_bytes > filling.limit_bytes

    if full():
        bank.drop([entry.id for entry in bank.entries() if entry.program != program()])
    return not full()


def _await_quiet(progress: OnProgress) -> None:
    """Until other programs leave the machine's cores alone for a moment."""
    told = False
    while True:
        before = Reading.now()
        time.sleep(LOOK_SECONDS)
        if others_share(before, Reading.now()) <= NOTED_SHARE:
            return
        if not told:
            progress("waiting: other programs use this machine")
            told = True


def _make(bank: Bank, filling: Filling, kind: str) -> None:
    """One, in a launch of its own: what is drawn in secret with it is of no other."""
    hparams, snapshot = filling.hparams, filling.snapshot
    drawn = challenges.draw(snapshot.tokens(), hparams)
    variant = default_variant(hparams, filling.world_size)
    started = time.monotonic()
    with Workspace() as workspace:
        run_reference(
            hparams,
            snapshot,
            [drawn],
            secret_coordinates(snapshot.layout, hparams),
            variant,
            filling.sandbox,
            filling.device,
            workspace.reference,
            Asked(secret_rows([drawn], hparams), steps=judged_steps([drawn], hparams)),
        )
        entry = Entry(
            id=secrets.token_hex(6),
            kind=kind,
            program=program(),
            benchmark=hparams.name,
            seed=drawn.seed,
            tokens_sha256=tokens_sha256(drawn),
            steps=drawn.steps,
            world_size=variant.world_size,
            made_at=datetime.now(UTC).isoformat(timespec="seconds"),
            seconds=time.monotonic() - started,
        )
        bank.add(entry, RunFolders.of_launch(workspace.reference, 0))
