"""Fills a bank: draws challenges, trains the reference on them, puts both away."""

import secrets
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from harness import machine
from harness.bank.kind import kind_of
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
from harness.timed.workspace import Workspace
from harness.verification import secret_coordinates, secret_rows

#: Trained in one launch, where nobody may want the machine in between.
AT_ONCE: Final = 8
#: How long a machine has to be quiet before an entry is made beside other work, and until the next look.
LOOK_SECONDS: Final = 2.0


@dataclass(frozen=True)
class Filling:
    """What a bank is filled with.

    Attributes:
        world_size: of the submissions that are to be judged.
        limit_bytes: the bank, of all benchmarks, gets no larger.
        idle: make one after the other, and only while nobody else uses the machine.
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
        return kind_of(self.hparams, self.snapshot, self.world_size, self.device)


def fill(bank: Bank, filling: Filling, count: int, progress: OnProgress) -> int:
    """Add entries until there are `count` unused ones, or the bank is full; gives how many were added.

    The machine is held meanwhile: an evaluation that is timed waits for the entry at hand.

    Raises JudgeError: the reference failed.
    """
    added = 0
    entry_bytes = filling.snapshot.state_bytes
    while (missing := count - len(bank.entries(filling.kind))) > 0:
        room = (filling.limit_bytes - bank.size_bytes) // entry_bytes
        if room < 1:
            progress(f"the bank is full: it has {bank.size_bytes / 2**30:.2f} GiB")
            break
        batch = min(missing, int(room), 1 if filling.idle else AT_ONCE)
        if filling.idle:
            _await_quiet(progress)
        with machine_held(lambda: progress("waiting for the evaluation that is timed here")):
            _make(bank, filling, batch, progress)
        added += batch
    return added


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


def _make(bank: Bank, filling: Filling, count: int, progress: OnProgress) -> None:
    """One launch."""
    hparams, snapshot = filling.hparams, filling.snapshot
    corpus = snapshot.tokens()
    drawn = [challenges.draw(corpus, hparams) for _ in range(count)]
    variant = default_variant(hparams, filling.world_size)
    progress(f"training on {count} {'challenge' if count == 1 else 'challenges'}")
    started = time.monotonic()
    with Workspace() as workspace:
        run_reference(
            hparams,
            snapshot,
            drawn,
            secret_coordinates(snapshot.layout, hparams),
            variant,
            filling.sandbox,
            filling.device,
            workspace.reference,
            Asked(secret_rows(drawn, hparams)),
        )
        seconds = (time.monotonic() - started) / count
        for run, challenge in enumerate(drawn):
            entry = Entry(
                id=secrets.token_hex(6),
                kind=filling.kind,
                benchmark=hparams.name,
                seed=challenge.seed,
                steps=challenge.steps,
                world_size=variant.world_size,
                made_at=datetime.now(UTC).isoformat(timespec="seconds"),
                seconds=seconds,
            )
            bank.add(entry, RunFolders.of_launch(workspace.reference, run))
