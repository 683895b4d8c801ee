"""What happened, in words: events as lines that a person reads, without what is nobody's business."""

from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from harness.board import events as ev
from harness.board.tables import EventRow
from harness.errors import Verdict
from harness.protocol.text import one_line, printable
from harness.records import Record

#: Nothing of these is for everybody: they name keys, and machines.
PRIVATE: Final = (
    *("key_issued", "key_revoked"),
    *("canary_judged", "node_excluded", "node_admitted"),
)


class HistoryLine(Record):
    """One event, told. `id` is its place in the order of all events, `at` is seconds since 1970."""

    id: int
    at: float
    kind: str
    submission: int | None
    evaluation: int | None
    text: str


def history_of(session: Session, submission: int) -> tuple[HistoryLine, ...]:
    """All that happened to a submission, oldest first."""
    rows = select(EventRow).where(EventRow.submission == submission).order_by(EventRow.id)
    return tuple(_line(row) for row in session.scalars(rows))


def alarms_of(session: Session, submission: int) -> tuple[str, ...]:
    """What an organiser has to look at."""
    rows = (
        select(EventRow)
        .where(EventRow.submission == submission, EventRow.kind == "alarm_raised")
        .order_by(EventRow.id)
    )
    return tuple(_line(row).text for row in session.scalars(rows))


def pairs_stopped(session: Session, submission: int) -> bool:
    """Whether it was rejected in a paired run while it led, and the organiser has not looked since."""
    rows = (
        select(EventRow.body)
        .where(
            EventRow.submission == submission,
            EventRow.kind.in_(["alarm_raised", "submission_released"]),
        )
        .order_by(EventRow.id)
    )
    stopped = False
    for body in session.scalars(rows):
        match ev.Stamped.body.validate_json(body):
            case ev.AlarmRaised(stops_pairs=True):
                stopped = True
            case ev.SubmissionReleased():
                stopped = False
    return stopped


def events_after(session: Session, number: int, limit: int) -> tuple[HistoryLine, ...]:
    """What happened after an event, oldest first; for everybody to read."""
    rows = (
        select(EventRow)
        .where(EventRow.id > number, EventRow.kind.not_in(PRIVATE))
        .order_by(EventRow.id)
        .limit(limit)
    )
    return tuple(_line(row) for row in session.scalars(rows))


def told(event: ev.Event) -> str:
    """An event in a sentence; whatever came from outside is harmless in it."""
    match event:
        case ev.SeasonOpened() | ev.SeasonClosed() | ev.AuthorAdded():
            return _told_of_people(event)
        case ev.KeyIssued() | ev.KeyRevoked():
            return "a key changed"
        case ev.CanaryJudged() | ev.NodeExcluded() | ev.NodeAdmitted():
            return _told_of_node(event)
        case ev.Compared():
            result = "faster" if event.faster else "not shown to be faster"
            return (
                f"submission {event.contender} ran {len(event.ratios)} pairs against "
                f"{event.leader}: {event.ratio:.4f} times its MFU, {result}"
            )
        case ev.ComparisonFailed():
            return (
                f"the comparison of {event.contender} with {event.leader} failed and is still owed: "
                f"{one_line(event.cause)}"
            )
        case (
            ev.EvaluationQueued()
            | ev.EvaluationStarted()
            | ev.EvaluationGivenBack()
            | ev.EvaluationFinished()
            | ev.EvaluationRejudged()
            | ev.EvaluationSetAside()
            | ev.EvaluationAbandoned()
        ):
            return _told_of_evaluation(event)
        case _:
            return _told_of_submission(event)


def _told_of_people(event: ev.SeasonOpened | ev.SeasonClosed | ev.AuthorAdded) -> str:
    match event:
        case ev.SeasonOpened():
            return f"season {one_line(event.name)} opened"
        case ev.SeasonClosed():
            return f"season number {event.season} closed"
        case ev.AuthorAdded():
            return f"author {one_line(event.name)} joined"


def _told_of_node(event: ev.CanaryJudged | ev.NodeExcluded | ev.NodeAdmitted) -> str:
    match event:
        case ev.CanaryJudged():
            return f"node {one_line(event.host)} judged the canary: {event.verdict}"
        case ev.NodeExcluded():
            return f"node {one_line(event.host)} excluded: {one_line(event.why)}"
        case ev.NodeAdmitted():
            return f"node {one_line(event.host)} admitted: {one_line(event.why)}"


def _told_of_evaluation(
    event: ev.EvaluationQueued
    | ev.EvaluationStarted
    | ev.EvaluationGivenBack
    | ev.EvaluationFinished
    | ev.EvaluationRejudged
    | ev.EvaluationSetAside
    | ev.EvaluationAbandoned,
) -> str:
    number = f"evaluation {event.evaluation}"
    match event:
        case ev.EvaluationQueued():
            return f"{number} queued: {one_line(event.why)}"
        case ev.EvaluationStarted():
            # The machine; which process it was is the store's business.
            return f"{number} started on {one_line(event.worker.partition(' ')[0])}"
        case ev.EvaluationGivenBack():
            return f"{number} given back, it waits again: {one_line(event.cause)}"
        case ev.EvaluationSetAside():
            return f"{number} set aside, it counts no more: {one_line(event.why)}"
        case ev.EvaluationAbandoned():
            return f"{number} given up: {one_line(event.cause)}"
        case ev.EvaluationRejudged():
            why = f", as {one_line(event.why)}" if event.why else ""
            return f"{number} verified again from its kept files{why}: {event.verdict}"
        case ev.EvaluationFinished():
            code = "" if event.verdict is Verdict.ACCEPTED else f" ({event.code})"
            return f"{number} finished after {event.seconds:.0f} s: {event.verdict}{code}"


def _told_of_submission(
    event: ev.Submitted
    | ev.SubmissionCancelled
    | ev.SubmissionInvalidated
    | ev.SubmissionHeld
    | ev.SubmissionReleased
    | ev.AlarmRaised,
) -> str:
    match event:
        case ev.Submitted():
            return f"{one_line(event.file_name)} handed in"
        case ev.SubmissionCancelled():
            return "cancelled"
        case ev.SubmissionInvalidated():
            return f"invalidated by the organiser: {printable(event.why)}"
        case ev.SubmissionHeld():
            return f"held for the organiser: {printable(event.why)}"
        case ev.SubmissionReleased():
            return f"released by the organiser: {printable(event.why)}"
        case ev.AlarmRaised():
            return f"alarm: {printable(event.text)}"


def _line(row: EventRow) -> HistoryLine:
    return HistoryLine(
        id=row.id,
        at=row.at,
        kind=row.kind,
        submission=row.submission,
        evaluation=row.evaluation,
        text=told(ev.Stamped.body.validate_json(row.body)),
    )
