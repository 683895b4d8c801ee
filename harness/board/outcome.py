"""What a result changes: it is written down, and in the same step all that follows from it."""

import zlib
from hashlib import sha256
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from harness.board import events as ev
from harness.board.hardware import hardware_class, headline_mfus
from harness.board.luck import accepted_before, rejected_before
from harness.board.organise import submission_of
from harness.board.queue import Taken, mine
from harness.board.rule import ScoringRule
from harness.board.store import Store
from harness.board.submit import queue_evaluation
from harness.board.tables import (
    Document,
    Evaluation,
    Season,
    Submission,
)
from harness.board.writer import Writer
from harness.errors import Code, Verdict
from harness.protocol.text import printable
from harness.result import EvaluationResult, RunResult
from harness.verify.findings import Severity


def finish(store: Store, taken: Taken, result: EvaluationResult, seconds: float) -> None:
    """Write down what came of it, and what follows from that. Raises LeaseLostError."""
    store.write_with_others(lambda writer: _finish(writer, taken, result, seconds))


def _finish(writer: Writer, taken: Taken, result: EvaluationResult, seconds: float) -> None:
    mine(writer, taken)
    rule = rule_of(writer.session, taken.submission)
    mfus = headline_mfus(result, rule.peak_tflops)
    writer.append(
        ev.EvaluationFinished(
            worker=taken.worker.name,
            isolation=result.isolation,
            hardware=hardware_class(result),
            seconds=seconds,
            **_outcome(writer, taken.evaluation, result, mfus),
        ),
        submission=taken.submission,
    )
    _consequences(writer, taken, result, rule, mfus)


def replace(
    store: Store, evaluation: int, submission: int, result: EvaluationResult, why: str
) -> None:
    """An evaluation was judged again: from now on its outcome is this one."""
    with store.write() as writer:
        mfus = headline_mfus(result, rule_of(writer.session, submission).peak_tflops)
        outcome = _outcome(writer, evaluation, result, mfus)
        event = ev.EvaluationRejudged(why=printable(why), **outcome)
        writer.append(event, submission=submission)


def _outcome(
    writer: Writer, evaluation: int, result: EvaluationResult, mfus: tuple[float, ...]
) -> dict[str, Any]:
    """The fields of an `events.Outcome`; the document that they are of is kept."""
    return {
        "evaluation": evaluation,
        "verdict": result.verdict,
        "code": result.code,
        "message": printable(result.message),
        "result_sha256": keep_document(writer, result),
        "run_mfus": mfus,
        "failed_runs": failed_runs(result),
        "tokens_per_second": result.score.tokens_per_second if result.score else None,
    }


def written(result: EvaluationResult) -> tuple[bytes, str]:
    """A result document as the store has it, and the hash that names it."""
    document = result.model_dump_json().encode()
    return document, sha256(document).hexdigest()


def keep_document(writer: Writer, result: EvaluationResult) -> str:
    """Store a result document; gives the hash that names it."""
    document, digest = written(result)
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
    submission = submission_of(writer.session, taken.submission)
    if result.not_ended or result.code is Code.NOT_ENDED:
        writer.append(
            ev.AlarmRaised(
                submission=submission.id,
                text=f"what it started on {taken.worker.name.split()[0]} could not be ended: look at that "
                "machine before anything else is timed there",
            )
        )
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
    return season.scoring_rule


def _again_or_abandon(writer: Writer, taken: Taken, rule: ScoringRule, message: str) -> None:
    """We failed: once more, up to a limit."""
    failed = select(func.count()).where(
        Evaluation.submission_id == taken.submission, Evaluation.verdict == Verdict.ERROR
    )
    errors = writer.session.scalar(failed) or 0
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


def failed_runs(result: EvaluationResult) -> int:
    """Runs that the submission failed; a rejection that is no run's, as before the first, is one."""
    if result.verdict is not Verdict.REJECTED:
        return 0
    return max(1, sum(_is_rejected(run) for run in result.runs))


def _is_rejected(run: RunResult) -> bool:
    return any(finding.severity is Severity.REJECTS for finding in run.findings)
