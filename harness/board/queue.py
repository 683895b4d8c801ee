"""Who is judged next, by whom, and what happens if that worker is never heard from again.

A worker *takes* an evaluation and holds a *lease* on it that it has to renew. One that dies gives its
evaluation back by not renewing, or at once if another process of the same machine sees that it is gone.
Whoever takes one, finishes it or gives it back does so in a transaction that nobody else is in, and
says which start of the evaluation it means: a worker that was away too long learns that it has lost it,
and what it found is not kept.
"""

import os
import zlib
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from harness.board import events as ev
from harness.board.hardware import hardware_class, headline_mfus
from harness.board.luck import accepted_before, rejected_before
from harness.board.organise import submission_of
from harness.board.rule import ScoringRule
from harness.board.states import EvaluationState
from harness.board.store import Store, Writer
from harness.board.submit import queue_evaluation
from harness.board.tables import (
    Author,
    Claim,
    Document,
    Evaluation,
    Season,
    Source,
    Submission,
    Worker,
)
from harness.errors import Verdict
from harness.protocol.text import printable
from harness.result import EvaluationResult
from harness.sandbox.judge_process import judge_lives, this_process

LEASE_SECONDS: Final = 60.0
HEARTBEAT_SECONDS: Final = 10.0
#: Starts of one evaluation that nobody brought to an end; then it is the organiser's.
MAX_STARTS: Final = 5


@dataclass(frozen=True)
class WorkerId:
    """A worker, so that others can tell whether it lives.

    Attributes:
        name: of the host, and what nobody takes for another process; never used twice.
        machine: of the running kernel; containers on one machine share it.
    """

    name: str
    machine: str


@dataclass(frozen=True)
class Taken:
    """An evaluation that is this worker's, as long as it renews the lease.

    Attributes:
        evaluation, submission: their numbers.
        start: which start of the evaluation this is, from 1; a later one makes it worthless.
        source: the train file.
    """

    evaluation: int
    submission: int
    start: int
    author: str
    file_name: str
    source: bytes
    world_size: int
    worker: WorkerId


class LeaseLostError(Exception):
    """Cancelled, or given to somebody else: stop, and keep nothing."""


def this_worker() -> WorkerId:
    """This process as a worker."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return WorkerId(f"{os.uname().nodename} {this_process()}", boot)


def take(store: Store, worker: WorkerId, hparams_sha256: str) -> Taken | None:
    """The next evaluation of this benchmark, or None where nothing waits or this machine is in use.

    Next is whose author has waited longest since one of theirs was started; of that author the oldest.
    """
    if not waits(store, worker, hparams_sha256):
        return None
    with store.write() as writer:
        session = writer.session
        _reap(writer, worker)
        evaluation = _next(session, hparams_sha256)
        if evaluation is None or machine_is_timing(session, worker.machine, writer.now):
            return None
        writer.append(
            ev.EvaluationStarted(
                evaluation=evaluation.id, worker=worker.name, machine=worker.machine
            ),
            submission=evaluation.submission_id,
        )
        evaluation.lease_until = writer.now + LEASE_SECONDS
        submission = session.get_one(Submission, evaluation.submission_id)
        return Taken(
            evaluation=evaluation.id,
            submission=submission.id,
            start=evaluation.starts,
            author=session.get_one(Author, submission.author_id).name,
            file_name=submission.file_name,
            source=session.get_one(Source, submission.source_sha256).content,
            world_size=submission.world_size,
            worker=worker,
        )


def waits(store: Store, worker: WorkerId, hparams_sha256: str) -> bool:
    """Whether an evaluation of this benchmark waits, or will as soon as a dead worker's is given back."""
    now = store.now()
    with store.read() as session:
        return _next(session, hparams_sha256) is not None or bool(_overdue(session, worker, now))


def renew(store: Store, taken: Taken, progress: str) -> None:
    """Say that the worker lives, and the lines that the judge has printed. Raises LeaseLostError."""
    with store.write() as writer:
        evaluation = _mine(writer, taken)
        evaluation.lease_until = writer.now + LEASE_SECONDS
        evaluation.progress = progress
        mark_seen(writer, taken.worker, f"evaluation {taken.evaluation}")


def seen(store: Store, worker: WorkerId, doing: str) -> None:
    """A worker that waits is alive too."""
    with store.write() as writer:
        mark_seen(writer, worker, doing)


def gone(store: Store, worker: WorkerId) -> None:
    """A worker ends in good order."""
    with store.write() as writer:
        row = writer.session.get(Worker, worker.name)
        if row is not None:
            writer.session.delete(row)


def give_back(store: Store, taken: Taken, cause: str) -> None:
    """Not finished, through no fault of its own: it waits again, for anybody. Raises LeaseLostError."""
    with store.write() as writer:
        _give_back(writer, _mine(writer, taken), cause)


def fail(store: Store, taken: Taken, cause: str) -> None:
    """There will be no result: it waits again, or after too many starts for the organiser.

    Raises LeaseLostError.
    """
    with store.write() as writer:
        _give_back_or_abandon(writer, _mine(writer, taken), cause)


def finish(store: Store, taken: Taken, result: EvaluationResult, seconds: float) -> None:
    """Write down what came of it, and what follows from that. Raises LeaseLostError."""
    with store.write() as writer:
        _mine(writer, taken)
        rule = rule_of(writer.session, taken.submission)
        mfus = headline_mfus(result, rule.peak_tflops)
        writer.append(
            ev.EvaluationFinished(
                evaluation=taken.evaluation,
                worker=taken.worker.name,
                verdict=result.verdict,
                code=result.code,
                message=printable(result.message),
                result_sha256=keep_document(writer, result),
                isolation=result.isolation,
                hardware=hardware_class(result),
                run_mfus=mfus,
                failed_runs=failed_runs(result),
                tokens_per_second=result.score.tokens_per_second if result.score else None,
                seconds=seconds,
            ),
            submission=taken.submission,
        )
        _consequences(writer, taken, result, rule, mfus)


def keep_document(writer: Writer, result: EvaluationResult) -> str:
    """Store a result document; gives the hash that names it."""
    document = result.model_dump_json().encode()
    digest = sha256(document).hexdigest()
    if writer.session.get(Document, digest) is None:
        writer.session.add(Document(sha256=digest, compressed=zlib.compress(document)))
    return digest


def _consequences(
    writer: Writer,
    taken: Taken,
    result: EvaluationResult,
    rule: ScoringRule,
    mfus: tuple[float, ...],
) -> None:
    """An error is tried again; what was rejected before, or is too good to be true, an organiser sees."""
    submission = submission_of(writer, taken.submission)
    if result.verdict is Verdict.ERROR:
        _again_or_abandon(writer, taken, rule, result.message)
    elif result.verdict is Verdict.ACCEPTED:
        earlier = rejected_before(writer.session, submission, rule)
        if earlier is not None:
            writer.append(
                ev.SubmissionHeld(
                    submission=submission.id,
                    because_of=earlier.submission,
                    why=f"submission {earlier.submission}, {100 * earlier.similarity:.0f} % the same "
                    "program, was rejected for its numbers: the organiser looks at both",
                )
            )
        if any(not mfu <= 1 for mfu in mfus):  # never silently a score: `rank` leaves it out
            writer.append(
                ev.AlarmRaised(
                    submission=submission.id,
                    text=f"MFU of {max(mfus):.3f}: above the peak of the device",
                )
            )
    elif (lucky := accepted_before(writer.session, submission, result.code)) is not None:
        writer.append(
            ev.AlarmRaised(
                submission=lucky,
                text=f"the same program was rejected as submission {submission.id} ({result.code}): "
                "was this one lucky?",
            )
        )


def rule_of(session: Session, submission: int) -> ScoringRule:
    """The scoring rule of the submission's season."""
    season = session.get_one(Season, session.get_one(Submission, submission).season_id)
    return ScoringRule.model_validate_json(season.rule)


def _again_or_abandon(writer: Writer, taken: Taken, rule: ScoringRule, message: str) -> None:
    """We failed: once more, up to a limit."""
    errors = len(
        writer.session.scalars(
            select(Evaluation.id).where(
                Evaluation.submission_id == taken.submission,
                Evaluation.verdict == Verdict.ERROR,
            )
        ).all()
    )
    if errors < rule.max_attempts:
        queue_evaluation(writer, taken.submission, f"the judge failed: {message}")
    else:
        writer.append(
            ev.EvaluationAbandoned(
                evaluation=taken.evaluation,
                cause=f"the judge failed {errors} times, last: {message}",
            ),
            submission=taken.submission,
        )


def _next(session: Session, hparams_sha256: str) -> Evaluation | None:
    return session.scalar(
        select(Evaluation)
        .join(Submission, Submission.id == Evaluation.submission_id)
        .join(Author, Author.id == Submission.author_id)
        .join(Season, Season.id == Submission.season_id)
        .where(Evaluation.state == EvaluationState.QUEUED, Season.hparams_sha256 == hparams_sha256)
        .order_by(Author.last_started_at, Evaluation.id)
        .limit(1)
    )


def machine_is_timing(session: Session, machine: str, now: float) -> bool:
    """Whether an evaluation or a comparison runs on that machine."""
    evaluates = select(Evaluation.id).where(
        Evaluation.state == EvaluationState.RUNNING, Evaluation.machine == machine
    )
    compares = select(Claim.contender_id).where(Claim.machine == machine, Claim.lease_until > now)
    return any(session.scalar(busy.limit(1)) is not None for busy in (evaluates, compares))


def _overdue(session: Session, worker: WorkerId, now: float) -> list[tuple[Evaluation, str]]:
    """Evaluations whose worker is gone, with how that is known."""
    running = select(Evaluation).where(Evaluation.state == EvaluationState.RUNNING)
    found = []
    for evaluation in session.scalars(running):
        name = evaluation.worker or ""
        if evaluation.lease_until is None or evaluation.lease_until < now:
            found.append(
                (evaluation, f"worker {name} was not heard from for {LEASE_SECONDS:.0f} s")
            )
        elif evaluation.machine == worker.machine and is_gone(name):
            found.append((evaluation, f"worker {name} ended without a word"))
    return found


def _reap(writer: Writer, worker: WorkerId) -> None:
    """Give back what dead workers had; what kills every worker is not tried for ever."""
    for evaluation, cause in _overdue(writer.session, worker, writer.now):
        _give_back_or_abandon(writer, evaluation, cause)


def _give_back_or_abandon(writer: Writer, evaluation: Evaluation, cause: str) -> None:
    if evaluation.starts < MAX_STARTS:
        _give_back(writer, evaluation, cause)
        return
    writer.append(
        ev.EvaluationAbandoned(
            evaluation=evaluation.id,
            cause=f"started {evaluation.starts} times and never finished, last: {cause}",
        ),
        submission=evaluation.submission_id,
    )


def _give_back(writer: Writer, evaluation: Evaluation, cause: str) -> None:
    writer.append(
        ev.EvaluationGivenBack(
            evaluation=evaluation.id, worker=evaluation.worker or "", cause=cause
        ),
        submission=evaluation.submission_id,
    )


def _mine(writer: Writer, taken: Taken) -> Evaluation:
    evaluation = writer.session.get_one(Evaluation, taken.evaluation)
    if (
        evaluation.state != EvaluationState.RUNNING
        or evaluation.worker != taken.worker.name
        or evaluation.starts != taken.start
    ):
        raise LeaseLostError(f"evaluation {taken.evaluation} is {evaluation.state} by now")
    return evaluation


def mark_seen(writer: Writer, worker: WorkerId, doing: str) -> None:
    writer.session.merge(
        Worker(name=worker.name, machine=worker.machine, seen_at=writer.now, doing=doing)
    )


def is_gone(name: str) -> bool:
    """Whether a worker of this machine has ended; one in another container cannot be told."""
    return judge_lives(name.partition(" ")[2]) is False


def failed_runs(result: EvaluationResult) -> int:
    """Runs that the submission failed; a rejection before any run is one."""
    if result.verdict is not Verdict.REJECTED:
        return 0
    return max(1, len(result.runs))
