"""An organiser has a submission judged again from what was kept of it: nothing is trained, times stay."""

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from harness.api import rejudge_folder
from harness.board import events as ev
from harness.board.artefacts import Artefacts
from harness.board.organise import submission_of
from harness.board.outcome import replace, written
from harness.board.states import EvaluationState, SubmissionState
from harness.board.store import Store
from harness.board.tables import Evaluation, EventRow
from harness.board.views import result_document
from harness.errors import Code, InputError
from harness.kept import KeptFolder
from harness.result import EvaluationResult


@dataclass(frozen=True)
class Again:
    """What today's outcome is made from: the benchmark's file, its snapshot, what was kept."""

    hparams: Path | None
    snapshot: Path | None
    artefacts: Artefacts


def rejudge(
    store: Store, submission: int, again: Again, why: str
) -> tuple[EvaluationResult, EvaluationResult]:
    """Replace the outcome of a submission's last evaluation; gives the result before and now.

    Raises InputError: UNKNOWN_ID: there is no such submission, or nothing was kept of it here;
        NOT_NOW: it is not judged yet; BAD_ARGUMENT: kept by another version.
    """
    evaluation = _last_finished(store, submission)
    folder = again.artefacts.find(evaluation)
    kept = KeptFolder(folder).result
    with store.read() as session:
        if written(kept)[1] != _as_judged(session, submission, evaluation):
            raise InputError(
                Code.UNKNOWN_ID,
                f"{folder} holds another outcome of evaluation {evaluation} than the one that stands: its "
                "worker ended before it could write it down, and it was judged again elsewhere",
            )
        before = result_document(session, evaluation) or kept
    now = rejudge_folder(folder, hparams=again.hparams, snapshot=again.snapshot)
    replace(store, evaluation, submission, now, why)
    return before, now


def _as_judged(session: Session, submission: int, evaluation: int) -> str | None:
    """The hash of the result that its worker wrote down, whatever has taken its place since."""
    rows = select(EventRow.body).where(
        EventRow.submission == submission,
        EventRow.evaluation == evaluation,
        EventRow.kind == "evaluation_finished",
    )
    for body in session.scalars(rows):
        match ev.Stamped.body.validate_json(body):
            case ev.EvaluationFinished(result_sha256=digest):
                return digest
    return None


def _last_finished(store: Store, submission: int) -> int:
    with store.read() as session:
        row = submission_of(session, submission)
        if row.state in (SubmissionState.QUEUED, SubmissionState.RUNNING):
            raise InputError(Code.NOT_NOW, f"submission {submission} is {row.state}: wait for it")
        found = session.scalar(
            select(Evaluation.id)
            .where(
                Evaluation.submission_id == submission,
                Evaluation.state == EvaluationState.FINISHED,
            )
            .order_by(Evaluation.id.desc())
            .limit(1)
        )
    if found is None:
        raise InputError(Code.NOT_NOW, f"submission {submission} was never judged")
    return found
