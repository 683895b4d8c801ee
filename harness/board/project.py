"""From an event to the tables: the one place where a change of state is carried out.

Applied to an empty store in order, the events give the same tables as those that were kept up all
along; `validator store check` does that and compares.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from sqlalchemy.orm import Session

from harness.board import events as ev
from harness.board.states import EvaluationState, SubmissionState
from harness.board.tables import Author, Comparison, Evaluation, Key, Season, Submission
from harness.errors import Code, Verdict


def apply(session: Session, stamped: ev.Stamped) -> None:
    """Carry out one event. Whether it is allowed was decided before it was written."""
    _APPLY[type(stamped.event)](session, stamped.event, stamped.at, stamped.id)


def _season_opened(session: Session, event: ev.SeasonOpened, at: float, _: int) -> None:
    session.add(
        Season(
            id=event.season,
            name=event.name,
            hparams_sha256=event.hparams_sha256,
            benchmark=event.benchmark,
            world_size=event.world_size,
            hardware=event.hardware,
            rule=event.rule.model_dump_json(),
            opened_at=at,
            starts_at=event.starts_at,
            ends_at=event.ends_at,
        )
    )


def _season_closed(session: Session, event: ev.SeasonClosed, at: float, _: int) -> None:
    session.get_one(Season, event.season).closed_at = at


def _author_added(session: Session, event: ev.AuthorAdded, at: float, _: int) -> None:
    session.add(Author(id=event.author, name=event.name, added_at=at, last_started_at=0.0))


def _key_issued(session: Session, event: ev.KeyIssued, at: float, _: int) -> None:
    session.add(
        Key(
            id=event.key,
            author_id=event.author,
            sha256=event.sha256,
            prefix=event.prefix,
            issued_at=at,
        )
    )


def _key_revoked(session: Session, event: ev.KeyRevoked, at: float, _: int) -> None:
    session.get_one(Key, event.key).revoked_at = at


def _submitted(session: Session, event: ev.Submitted, at: float, _: int) -> None:
    session.add(
        Submission(
            id=event.submission,
            season_id=event.season,
            author_id=event.author,
            file_name=event.file_name,
            note=event.note,
            source_sha256=event.source_sha256,
            program=event.program,
            strategy=event.strategy,
            world_size=event.world_size,
            at=at,
            state=SubmissionState.QUEUED,
            state_why="",
        )
    )


def _evaluation_queued(session: Session, event: ev.EvaluationQueued, at: float, _: int) -> None:
    submission = _set(session, event.submission, SubmissionState.QUEUED)
    session.add(
        Evaluation(
            id=event.evaluation,
            submission_id=event.submission,
            season_id=submission.season_id,
            author_id=submission.author_id,
            state=EvaluationState.QUEUED,
            why=event.why,
            queued_at=at,
            starts=0,
            failed_runs=0,
            progress="",
        )
    )


def _evaluation_started(session: Session, event: ev.EvaluationStarted, at: float, _: int) -> None:
    evaluation = session.get_one(Evaluation, event.evaluation)
    evaluation.state = EvaluationState.RUNNING
    evaluation.started_at = at
    evaluation.worker = event.worker
    evaluation.machine = event.machine
    evaluation.starts += 1
    submission = _set(session, evaluation.submission_id, SubmissionState.RUNNING)
    session.get_one(Author, submission.author_id).last_started_at = at


def _given_back(session: Session, event: ev.EvaluationGivenBack, at: float, _: int) -> None:
    evaluation = session.get_one(Evaluation, event.evaluation)
    evaluation.state = EvaluationState.QUEUED
    evaluation.worker = evaluation.machine = evaluation.lease_until = None
    evaluation.progress = ""
    _set(session, evaluation.submission_id, SubmissionState.QUEUED)


def _finished(session: Session, event: ev.EvaluationFinished, at: float, _: int) -> None:
    evaluation = session.get_one(Evaluation, event.evaluation)
    evaluation.state = EvaluationState.FINISHED
    evaluation.finished_at = at
    evaluation.isolation = event.isolation
    evaluation.hardware = event.hardware
    evaluation.seconds = event.seconds
    evaluation.lease_until = None
    evaluation.progress = ""
    submission = _outcome(session, evaluation, event)
    if event.verdict is not Verdict.ERROR:
        _set(session, submission.id, SubmissionState.JUDGED)


def _rejudged(session: Session, event: ev.EvaluationRejudged, at: float, _: int) -> None:
    _outcome(session, session.get_one(Evaluation, event.evaluation), event)


def _set_aside(session: Session, event: ev.EvaluationSetAside, at: float, _: int) -> None:
    evaluation = session.get_one(Evaluation, event.evaluation)
    evaluation.verdict, evaluation.code = Verdict.ERROR, Code.NODE_UNLIKE
    evaluation.message = event.why
    evaluation.run_mfus, evaluation.failed_runs = b"", 0
    evaluation.tokens_per_second = None


def _outcome(session: Session, evaluation: Evaluation, event: ev.Outcome) -> Submission:
    evaluation.verdict = event.verdict
    evaluation.code = event.code
    evaluation.message = event.message
    evaluation.run_mfus = np.array(event.run_mfus, "<f8").tobytes()
    evaluation.failed_runs = event.failed_runs
    evaluation.tokens_per_second = event.tokens_per_second
    evaluation.result_sha256 = event.result_sha256
    submission = session.get_one(Submission, evaluation.submission_id)
    submission.verdict = event.verdict
    return submission


def _abandoned(session: Session, event: ev.EvaluationAbandoned, at: float, _: int) -> None:
    evaluation = session.get_one(Evaluation, event.evaluation)
    if evaluation.state != EvaluationState.FINISHED:
        evaluation.state = EvaluationState.ABANDONED
        evaluation.lease_until = None
        evaluation.finished_at = at
    _set(session, evaluation.submission_id, SubmissionState.FAILED, event.cause)


def _cancelled(session: Session, event: ev.SubmissionCancelled, at: float, _: int) -> None:
    _set(session, event.submission, SubmissionState.CANCELLED)
    open_ones = session.query(Evaluation).filter(
        Evaluation.submission_id == event.submission,
        Evaluation.state.in_([EvaluationState.QUEUED, EvaluationState.RUNNING]),
    )
    for evaluation in open_ones:
        evaluation.state = EvaluationState.CANCELLED
        evaluation.finished_at = at
        evaluation.lease_until = None
        evaluation.progress = ""


def _invalidated(session: Session, event: ev.SubmissionInvalidated, at: float, _: int) -> None:
    _set(session, event.submission, SubmissionState.INVALIDATED, event.why)


def _held(session: Session, event: ev.SubmissionHeld, at: float, _: int) -> None:
    _set(session, event.submission, SubmissionState.HELD, event.why)


def _released(session: Session, event: ev.SubmissionReleased, at: float, _: int) -> None:
    _set(session, event.submission, SubmissionState.JUDGED, event.why)


def _compared(session: Session, event: ev.Compared, at: float, number: int) -> None:
    session.add(
        Comparison(
            id=number,
            season_id=event.season,
            at=at,
            contender_id=event.contender,
            leader_id=event.leader,
            ratio=event.ratio,
            low=event.low,
            faster=event.faster,
        )
    )


def _only_told(session: Session, event: ev.EventBody, at: float, _: int) -> None:
    """Alarms, comparisons that failed, and what is known of nodes are read from the events."""


def _set(session: Session, submission: int, state: SubmissionState, why: str = "") -> Submission:
    row = session.get_one(Submission, submission)
    row.state = state
    row.state_why = why
    return row


_APPLY: dict[type[ev.EventBody], Callable[[Session, Any, float, int], None]] = {
    ev.SeasonOpened: _season_opened,
    ev.SeasonClosed: _season_closed,
    ev.AuthorAdded: _author_added,
    ev.KeyIssued: _key_issued,
    ev.KeyRevoked: _key_revoked,
    ev.Submitted: _submitted,
    ev.EvaluationQueued: _evaluation_queued,
    ev.EvaluationStarted: _evaluation_started,
    ev.EvaluationGivenBack: _given_back,
    ev.EvaluationFinished: _finished,
    ev.EvaluationRejudged: _rejudged,
    ev.EvaluationSetAside: _set_aside,
    ev.EvaluationAbandoned: _abandoned,
    ev.SubmissionCancelled: _cancelled,
    ev.SubmissionInvalidated: _invalidated,
    ev.SubmissionHeld: _held,
    ev.SubmissionReleased: _released,
    ev.Compared: _compared,
    ev.ComparisonFailed: _only_told,
    ev.CanaryJudged: _only_told,
    ev.NodeExcluded: _only_told,
    ev.NodeAdmitted: _only_told,
    ev.AlarmRaised: _only_told,
}
