"""The timed part: one sandbox, one conversation, several runs. `docs/protocol.md` tells the same story.

Nothing is verified here, and nothing that a rank says is believed: what comes out are the judge's own
clock readings, claims to be checked later, and commitments that bind the files in the outbox.
"""

import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from harness.benchmark import challenge as challenges
from harness.benchmark.challenge import Challenge
from harness.benchmark.hparams import Hparams
from harness.benchmark.snapshot import Snapshot
from harness.errors import Code, JudgeError, SubmissionError
from harness.machine import Device
from harness.opening.plan import OpeningPlan, plan_opening
from harness.phases import PhaseName, Phases
from harness.protocol.digest import KEY_BYTES
from harness.protocol.messages import (
    PROTOCOL_VERSION,
    Again,
    Assignment,
    Bye,
    Commitment,
    Done,
    Go,
    Hello,
    Import,
    Key,
    Loaded,
    Open,
    Opened,
    Ready,
    Stage,
    commitment_bytes,
)
from harness.sandbox import Level, Sandbox
from harness.submission.read import Submission
from harness.timed.delay import NodeDelay
from harness.timed.ending import ended_after
from harness.timed.excuses import busy, disk_full
from harness.timed.launch import Here, Launch, Place
from harness.timed.observed import Observed
from harness.timed.session import Session
from harness.timed.workspace import Workspace

TRAIN_FILE: Final = "train.py"


@dataclass(frozen=True)
class TimedRun:
    """One run as the judge saw it.

    Attributes:
        challenge: what was served.
        seconds: from the release of the challenge to the last byte of the last commitment.
        commitment_seconds: of these, from the drawing of the key on.
        claims: each rank's DONE, in rank order.
        commitments: each rank's, in rank order.
        key: drawn after the last DONE.
        plan: which rank had to open which piece.
        delays: of every other machine on which ranks were.
        peak_memory: bytes, what each rank says, in rank order; known once it has opened.
    """

    challenge: Challenge
    seconds: float
    commitment_seconds: float
    claims: tuple[Done, ...]
    commitments: tuple[Commitment, ...]
    key: bytes
    plan: OpeningPlan
    delays: tuple[NodeDelay, ...] = ()
    peak_memory: tuple[int, ...] = ()


def opened_folder(outbox: Path, run: int, rank: int) -> Path:
    """Where a rank opens its state; `env.worker` knows the same name."""
    return outbox / f"run{run}-rank{rank}"


@dataclass(frozen=True)
class TimedSetup:
    """What the timed part needs.

    Attributes:
        draw: gives the challenge of a run, by its number; None: each is drawn afresh.
        place: where the ranks run; None: in that sandbox, on this machine.
    """

    submission: Submission
    hparams: Hparams
    snapshot: Snapshot
    sandbox: Sandbox
    world_size: int
    device: Device
    runs: int
    draw: Callable[[int], Challenge] | None = None
    place: Place | None = None

    @property
    def where(self) -> Place:
        return self.place or Here(self.sandbox)


def run_submission(
    setup: TimedSetup, workspace: Workspace, phases: Phases, observed: Observed
) -> list[TimedRun]:
    """Run the submission; when this returns or raises, no process of the sandbox is left.

    Args:
        observed: gets what is noticed beside the runs, whatever happens; also whether the above could not
            be brought about.

    Raises:
        SubmissionError: the submission failed.
        JudgeError: the sandbox failed before the submission was handed over, or what others did to the
            machine excuses it.
    """
    try:
        return _run(setup, workspace, phases, observed)
    except SubmissionError as error:
        if setup.where.level not in (Level.DOCKER, Level.BUBBLEWRAP):
            raise
        room = setup.hparams.limits.outbox_bytes
        others = observed.others if observed.excuses else None
        raise (busy(error, others) or disk_full(error, observed.room, room) or error) from None


def _run(
    setup: TimedSetup, workspace: Workspace, phases: Phases, observed: Observed
) -> list[TimedRun]:
    hparams, world_size = setup.hparams, setup.world_size
    phases.enter(PhaseName.LAUNCH)

    def show(stage: Stage) -> None:
        if stage is Stage.WARMUP:
            phases.enter(PhaseName.WARMUP)
        elif (
            stage is Stage.SETUP
            and phases.entered[PhaseName.WARMUP] + phases.entered[PhaseName.TIMED]
        ):
            run = phases.entered[PhaseName.TIMED] + 1
            phases.enter(PhaseName.SETUP, f"a fresh model for run {run} of {setup.runs}")

    with (
        Session(workspace.sockets, world_size, show) as session,
        setup.where.launch(hparams, setup.snapshot, setup.device, world_size, workspace) as launch,
    ):
        with ended_after(launch, session, phases, observed):
            session.watch(launch.running)
            hellos = session.gather(Hello, Stage.LOADING, hparams.limits.startup_seconds)
            _check_ranks(hellos.messages)
            phases.enter(PhaseName.LOAD)
            session.broadcast(assignment(setup))
            session.gather(Loaded, Stage.LOADING, hparams.limits.startup_seconds)
            timed_runs = _runs(session, setup, launch, phases)
            # All is committed to and opened: a rank that dies now has failed nothing.
            with suppress(SubmissionError):
                session.broadcast(Bye())
        launch.collect()
    return timed_runs


def _check_ranks(hellos: Sequence[Hello]) -> None:
    """Nothing of the submission has run yet: a wrong rank is a defect, or of another version."""
    for rank, hello in enumerate(hellos):
        said = (hello.protocol, hello.rank, hello.world_size)
        due = (PROTOCOL_VERSION, rank, len(hellos))
        if said != due:
            raise JudgeError(
                Code.WORKER_FAILED,
                f"a worker says (protocol, rank, world size) = {said}, expected {due}",
            )


def assignment(setup: TimedSetup) -> Assignment:
    """What every rank is told before it builds the model."""
    hparams = setup.hparams
    return Assignment(
        param_dtype=hparams.numerics.param_dtype,
        placement=hparams.numerics.placement,
        dp_size=setup.submission.strategy.dp_size,
        sequence_length=hparams.sequence_length,
        global_batch=hparams.global_batch,
        vocab_size=setup.snapshot.manifest.vocab_size,
        warmup_steps=hparams.warmup_steps,
    )


def _runs(session: Session, setup: TimedSetup, launch: Launch, phases: Phases) -> list[TimedRun]:
    """From the hand-over of the train file to the last OPENED."""
    launch.put(TRAIN_FILE, setup.submission.source)
    phases.enter(PhaseName.SETUP, "the train file")
    session.handed_over = True
    session.broadcast(Import(file=TRAIN_FILE))

    limits = setup.hparams.limits
    corpus = setup.snapshot.tokens()
    timed_runs = []
    for run in range(setup.runs):
        if run:
            session.broadcast(Again(run=run))
        session.gather(Ready, Stage.SETUP, limits.setup_seconds, run)
        drawn = setup.draw(run) if setup.draw else challenges.draw(corpus, setup.hparams)
        phases.enter(PhaseName.TIMED, f"run {run + 1} of {setup.runs}, {drawn.steps} steps")
        timed = _timed(session, setup, launch, run, drawn)
        phases.enter(PhaseName.OPEN, f"run {run + 1} of {setup.runs}")
        session.send([Open(run=run, pieces=order) for order in timed.plan.orders])
        opened = session.gather(Opened, Stage.OPENING, limits.open_seconds, run)
        peaks = tuple(message.peak_memory_bytes for message in opened.messages)
        timed_runs.append(replace(timed, peak_memory=peaks))
    return timed_runs


def _timed(
    session: Session, setup: TimedSetup, launch: Launch, run: int, drawn: Challenge
) -> TimedRun:
    """From the release of the data to the last commitment: the judge's clock."""
    name = f"challenge{run}.safetensors"
    # Where no sandbox can look, so that releasing it is one rename.
    launch.hold(name, drawn)
    go = Go(run=run, steps=drawn.steps, challenge=name)
    allowed = setup.hparams.limits.run_seconds
    layout = setup.snapshot.layout
    most = commitment_bytes({name: spec.shape for name, spec in layout.items()})

    started = time.perf_counter()
    launch.release(name)
    session.broadcast(go)
    done = session.gather(Done, Stage.TRAINING, allowed, run)
    key = secrets.token_bytes(KEY_BYTES)
    drawn_at = time.perf_counter()
    session.broadcast(Key(run=run, key=key.hex()))
    left = max(0.0, allowed - (drawn_at - started))
    commitments = session.gather(Commitment, Stage.RESULT, left, run, most)
    return TimedRun(
        challenge=drawn,
        seconds=commitments.last - started,
        commitment_seconds=commitments.last - drawn_at,
        claims=done.messages,
        commitments=commitments.messages,
        key=key,
        plan=plan_opening(commitments.messages, layout),
        delays=launch.delays(started, commitments.at),
    )
