"""Luck is no strategy: who was rejected for the numbers and is accepted with the same program waits.

A program that fails its checks on some challenges and passes on others would only have to be handed in
often enough. What decides is `copies.waits_for`; here it gets what it asks for from the store.
"""

from typing import Final

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from harness.board.copies import Known, Near, Program, waits_for
from harness.board.rule import ScoringRule
from harness.board.states import SubmissionState
from harness.board.tables import Evaluation, Source, Submission
from harness.conclusion import MOST_EXPLANATORY_FIRST
from harness.errors import Code, Verdict

#: What the comparison with the reference rejects for: another challenge, or luck, could turn it.
FOR_ITS_NUMBERS: Final = MOST_EXPLANATORY_FIRST


def rejected_before(session: Session, submission: Submission, rule: ScoringRule) -> Near | None:
    """The submission of the season whose rejection makes this accepted one wait for the organiser."""
    rejected = _known(session, submission, Evaluation.code.in_(FOR_ITS_NUMBERS))
    if not rejected:
        return None
    accepted = _known(
        session,
        submission,
        (Evaluation.verdict == Verdict.ACCEPTED)
        & (Submission.state == SubmissionState.JUDGED)
        & (Submission.id != submission.id),
    )
    shingles = session.get_one(Source, submission.source_sha256).shingles
    one = Program(submission.program, valid=True, items=0, shingles=shingles)
    return waits_for(one, rejected, accepted, rule.near_copy)


def accepted_before(session: Session, submission: Submission, code: Code) -> int | None:
    """The first accepted submission of the same program, where `code` rejects that program's numbers."""
    if code not in FOR_ITS_NUMBERS:
        return None
    same = _known(
        session,
        submission,
        (Evaluation.verdict == Verdict.ACCEPTED) & (Submission.program == submission.program),
    )
    return same[0].submission if same else None


def _known(session: Session, of: Submission, which: ColumnElement[bool]) -> list[Known]:
    """Each program once, with the first submission that it came with."""
    rows = session.execute(
        select(Submission.id, Submission.program, Source.shingles)
        .join(Evaluation, Evaluation.submission_id == Submission.id)
        .join(Source, Source.sha256 == Submission.source_sha256)
        .where(Submission.season_id == of.season_id, which)
        .order_by(Submission.id)
    )
    first: dict[str, Known] = {}
    for number, program, shingles in rows:
        first.setdefault(program, Known(number, program, shingles))
    return list(first.values())
