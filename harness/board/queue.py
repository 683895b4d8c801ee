"""Who is judged next, by whom, and what happens if that worker is never heard from again.

A worker *takes* an evaluation and holds a *lease* on it that it has to renew. One that dies gives its
evaluation back by not renewing, or at once if another process of the same machine sees that it is gone.
Whoever takes one, finishes it or gives it back does so in a transaction that nobody else is in, and
says which start of the evaluation it means: a worker that was away too long learns that it has lost it,
and what it found is not kept.
"""

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlalchemy import Select, Subquery, bindparam, or_, select
from sqlalchemy.orm import Session

from harness.board import events as ev
from harness.board.lines import LINES, lines_of
from harness.board.sharing import UndoneError
from harness.board.states import EvaluationState
from harness.board.store import Store
from harness.board.tables import (
    Author,
    Claim,
    Evaluation,
    EventRow,
    Source,
    Submission,
    Worker,
)
from harness.board.writer import Writer
from harness.sandbox.judge_process import judge_lives, this_process

LEASE_SECONDS: Final = 60.0
HEARTBEAT_SECONDS: Final = 10.0


def _first_of(lines: Subquery) -> Select[Evaluation]:
    """Of the author who has waited longest the oldest evaluation."""
    return (
        select(Evaluation)
        .join(lines, lines.c.oldest == Evaluation.id)
        .join(Author, Author.id == lines.c.author_id)
        .order_by(Author.last_started_at, Evaluation.id)
        .limit(1)
    )


#: With :hparams_sha256.
_NEXT: Final = _first_of(LINES)
#: With :hparams_sha256 and :seasons, for a machine that not all seasons are for.
_NEXT_OF_SEASONS: Final = _first_of(
    lines_of(Evaluation.season_id.in_(bindparam("seasons", expanding=True)))
)
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


class LeaseLostError(UndoneError):
    """Cancelled, or given to somebody else: stop, and keep nothing."""


def this_worker() -> WorkerId:
    """This process as a worker."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return WorkerId(f"{os.uname().nodename} {this_process()}", boot)


def take(
    store: Store,
    worker: WorkerId,
    hparams_sha256: str,
    seasons: Collection[int] | None = None,
) -> Taken | None:
    """The next evaluation of this benchmark, or None where nothing waits or this machine is in use.

    Next is whose author has waited longest since one of theirs was started; of that author the oldest.

    Args:
        store: where it waits.
        worker: who takes it, and on which machine it will be judged.
        hparams_sha256: the benchmark.
        seasons: only of these; None: of all.
    """
    if not waits(store, worker, hparams_sha256, seasons):
        return None
    return store.write_with_others(lambda writer: _take(writer, worker, hparams_sha256, seasons))


def _take(
    writer: Writer, worker: WorkerId, hparams_sha256: str, seasons: Collection[int] | None
) -> Taken | None:
    session = writer.session
    _reap(writer, worker)
    evaluation = _next(session, hparams_sha256, seasons)
    if evaluation is None or machine_is_timing(session, worker.machine, writer.now):
        return None
    writer.append(
        ev.EvaluationStarted(evaluation=evaluation.id, worker=worker.name, machine=worker.machine),
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


def waits(
    store: Store,
    worker: WorkerId,
    hparams_sha256: str,
    seasons: Collection[int] | None = None,
) -> bool:
    """Whether an evaluation of this benchmark waits, or will as soon as a dead worker's is given back."""
    now = store.now()
    with store.read() as session:
        if _next(session, hparams_sha256, seasons) is not None:
            return True
        return bool(_overdue(session, worker, now))


def gone(store: Store, worker: WorkerId) -> None:
    """A worker ends in good order."""
    with store.write() as writer:
        row = writer.session.get(Worker, worker.name)
        if row is not None:
            writer.session.delete(row)


def give_back(store: Store, taken: Taken, cause: str) -> None:
    """Not finished, through no fault of its own: it waits again, for anybody. Raises LeaseLostError."""
    store.write_with_others(
        lambda writer: _give_back(writer, mine(writer, taken), cause, tried=False)
    )


def fail(store: Store, taken: Taken, cause: str) -> None:
    """There will be no result: it waits again, or after too many starts for the organiser.

    Raises LeaseLostError.
    """
    store.write_with_others(
        lambda writer: _give_back_or_abandon(writer, mine(writer, taken), cause)
    )


def _next(
    session: Session, hparams_sha256: str, seasons: Collection[int] | None
) -> Evaluation | None:
    if seasons is None:
        return session.scalar(_NEXT, {"hparams_sha256": hparams_sha256})
    which = {"hparams_sha256": hparams_sha256, "seasons": sorted(seasons)}
    return session.scalar(_NEXT_OF_SEASONS, which)


def machine_is_timing(session: Session, machine: str, now: float) -> bool:
    """Whether an evaluation or a comparison runs on that machine."""
    evaluates = select(Evaluation.id).where(
        Evaluation.state == EvaluationState.RUNNING, Evaluation.machine == machine
    )
    compares = select(Claim.contender_id).where(Claim.machine == machine, Claim.lease_until > now)
    return any(session.scalar(busy.limit(1)) is not None for busy in (evaluates, compares))


def _overdue(session: Session, worker: WorkerId, now: float) -> list[tuple[Evaluation, str]]:
    """Evaluations whose worker is gone, with how that is known."""
    running = select(Evaluation).where(
        Evaluation.state == EvaluationState.RUNNING,
        or_(
            Evaluation.lease_until.is_(None),
            Evaluation.lease_until < now,
            Evaluation.machine == worker.machine,
        ),
    )
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
    if evaluation.starts - _no_tries(writer.session, evaluation) < MAX_STARTS:
        _give_back(writer, evaluation, cause, tried=True)
        return
    writer.append(
        ev.EvaluationAbandoned(
            evaluation=evaluation.id,
            cause=f"started {evaluation.starts} times and never finished, last: {cause}",
        ),
        submission=evaluation.submission_id,
    )


def _no_tries(session: Session, evaluation: Evaluation) -> int:
    """Starts that say nothing of the file: it was never begun, or its worker had to end."""
    given_back = select(EventRow.body).where(
        EventRow.submission == evaluation.submission_id,
        EventRow.evaluation == evaluation.id,
        EventRow.kind == "evaluation_given_back",
    )
    bodies = [ev.Stamped.body.validate_json(body) for body in session.scalars(given_back)]
    return sum(isinstance(each, ev.EvaluationGivenBack) and not each.tried for each in bodies)


def _give_back(writer: Writer, evaluation: Evaluation, cause: str, tried: bool) -> None:
    writer.append(
        ev.EvaluationGivenBack(
            evaluation=evaluation.id, worker=evaluation.worker or "", cause=cause, tried=tried
        ),
        submission=evaluation.submission_id,
    )


def mine(writer: Writer, taken: Taken) -> Evaluation:
    """The evaluation, if it is this worker's still. Raises LeaseLostError."""
    evaluation = writer.session.get_one(Evaluation, taken.evaluation)
    if (
        evaluation.state != EvaluationState.RUNNING
        or evaluation.worker != taken.worker.name
        or evaluation.starts != taken.start
    ):
        raise LeaseLostError(f"evaluation {taken.evaluation} is {evaluation.state} by now")
    return evaluation


def mark_seen(writer: Writer, worker: WorkerId, doing: str) -> None:
    """A worker was heard from, in a step that has more to do."""
    writer.session.merge(
        Worker(name=worker.name, machine=worker.machine, seen_at=writer.now, doing=doing)
    )


def is_gone(name: str) -> bool:
    """Whether a worker of this machine has ended; one in another container cannot be told."""
    return judge_lives(name.partition(" ")[2]) is False
