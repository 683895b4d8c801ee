"""What is read from the store: frozen records for pages, commands and the API, of one moment.

Every function takes a session of `Store.read()`. What came from outside is made harmless here, once,
so that no terminal and no page has to think of it.
"""

import zlib
from typing import Any, Final

import numpy as np
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from harness.board.history import HistoryLine, alarms_of, history_of
from harness.board.organise import season_named, submission_of
from harness.board.rule import ScoringRule
from harness.board.states import EvaluationState, SubmissionState
from harness.board.tables import (
    MAX_NUMBER,
    Author,
    Comparison,
    Document,
    Evaluation,
    Season,
    Source,
    Submission,
)
from harness.errors import Code, InputError, Verdict
from harness.protocol.text import one_line, printable
from harness.records import Record
from harness.result import EvaluationResult

_CODES: Final = {code.value: code for code in Code}


class SeasonView(Record):
    """A season and its rule; times are seconds since 1970."""

    id: int
    name: str
    benchmark: str
    hparams_sha256: str
    world_size: int
    hardware: str
    rule: ScoringRule
    opened_at: float
    starts_at: float
    ends_at: float | None
    closed_at: float | None

    def over(self, now: float) -> bool:
        """Whether nothing is taken any more."""
        return self.closed_at is not None or (self.ends_at is not None and now >= self.ends_at)

    def runs(self, now: float) -> bool:
        """Whether a file would be taken."""
        return now >= self.starts_at and not self.over(now)


class EvaluationView(Record):
    """One evaluation. `progress` is what the judge has printed so far, while it runs."""

    id: int
    state: EvaluationState
    why: str
    queued_at: float
    started_at: float | None
    finished_at: float | None
    starts: int
    worker: str | None
    verdict: Verdict | None
    code: Code | None
    message: str
    isolation: str | None
    hardware: str | None
    run_mfus: tuple[float, ...]
    failed_runs: int
    tokens_per_second: float | None
    seconds: float | None
    has_result: bool
    progress: str


class SubmissionLine(Record):
    """A submission in a list. `verdict` is that of its last evaluation."""

    id: int
    season: str
    author: str
    file_name: str
    note: str
    strategy: str
    world_size: int
    at: float
    state: SubmissionState
    why: str
    verdict: Verdict | None


class ComparisonView(Record):
    """A contender and the leader ran in turns; `ratio` is contender over leader."""

    at: float
    contender: int
    leader: int
    ratio: float
    low: float
    faster: bool


class SubmissionView(SubmissionLine):
    """A submission with all that became of it; the newest evaluation is the last."""

    evaluations: tuple[EvaluationView, ...]
    history: tuple[HistoryLine, ...]
    alarms: tuple[str, ...]
    comparisons: tuple[ComparisonView, ...]
    source_public: bool
    source_sha256: str
    program: str


# --- seasons ----------------------------------------------------------------------------------


def seasons_view(session: Session) -> tuple[SeasonView, ...]:
    """All seasons, newest first."""
    return tuple(_season(row) for row in session.scalars(select(Season).order_by(Season.id.desc())))


def season_view(session: Session, name: str) -> SeasonView:
    """Raises InputError(UNKNOWN_ID)."""
    return _season(season_named(session, name))


def _season(row: Season) -> SeasonView:
    return SeasonView(
        id=row.id,
        name=row.name,
        benchmark=one_line(row.benchmark),
        hparams_sha256=row.hparams_sha256,
        world_size=row.world_size,
        hardware=one_line(row.hardware),
        rule=row.scoring_rule,
        opened_at=row.opened_at,
        starts_at=row.starts_at,
        ends_at=row.ends_at,
        closed_at=row.closed_at,
    )


# --- submissions ------------------------------------------------------------------------------


def submission_view(session: Session, number: int, now: float) -> SubmissionView:
    """A submission and all that became of it.

    Args:
        session: of `Store.read()`.
        number: of the submission.
        now: of `Store.now()`; decides whether its source is public.

    Raises InputError(UNKNOWN_ID).
    """
    row, season, author = _submission(session, number)
    evaluations = session.scalars(
        select(Evaluation).where(Evaluation.submission_id == number).order_by(Evaluation.id)
    )
    compared = session.scalars(
        select(Comparison)
        .where(
            Comparison.season_id == season.id,
            (Comparison.contender_id == number) | (Comparison.leader_id == number),
        )
        .order_by(Comparison.id)
    )
    return SubmissionView(
        **line_of(row, season.name, author.name),
        evaluations=tuple(_evaluation(evaluation) for evaluation in evaluations),
        history=history_of(session, number),
        alarms=alarms_of(session, number),
        comparisons=tuple(
            ComparisonView(
                at=each.at,
                contender=each.contender_id,
                leader=each.leader_id,
                ratio=each.ratio,
                low=each.low,
                faster=each.faster,
            )
            for each in compared
        ),
        source_public=_source_is_public(session, row, season, now),
        source_sha256=row.source_sha256,
        program=row.program,
    )


def submission_lines(session: Session, numbers: list[int]) -> dict[int, SubmissionLine]:
    """Several submissions by number; those that are not there are left out."""
    rows = session.execute(
        select(Submission, Season.name, Author.name)
        .join(Season, Season.id == Submission.season_id)
        .join(Author, Author.id == Submission.author_id)
        .where(Submission.id.in_(numbers))
    )
    return {row.id: SubmissionLine(**line_of(row, season, author)) for row, season, author in rows}


def earlier_of_author(session: Session, number: int) -> int | None:
    """The author's submission before this one, in the same season. Raises InputError(UNKNOWN_ID)."""
    row, season, author = _submission(session, number)
    return session.scalar(
        select(func.max(Submission.id)).where(
            Submission.author_id == author.id,
            Submission.season_id == season.id,
            Submission.id < number,
            Submission.source_sha256 != row.source_sha256,
        )
    )


def source_text(session: Session, number: int, now: float, viewer: str | None = None) -> str | None:
    """The train file as text, or None where `viewer` may not read it yet.

    Args:
        session: of `Store.read()`.
        number: of the submission.
        now: of `Store.now()`.
        viewer: the author who asks, known by a key; None is anybody.

    Raises InputError(UNKNOWN_ID).
    """
    row, season, author = _submission(session, number)
    if author.name != viewer and not _source_is_public(session, row, season, now):
        return None
    return session.get_one(Source, row.source_sha256).content.decode("utf-8", "replace")


def result_document(session: Session, evaluation: int) -> EvaluationResult | None:
    """The whole result; None where the evaluation has none (yet). Raises InputError(UNKNOWN_ID)."""
    row = session.get(Evaluation, evaluation) if 0 < evaluation <= MAX_NUMBER else None
    if row is None:
        raise InputError(Code.UNKNOWN_ID, f"there is no evaluation {evaluation}")
    if row.result_sha256 is None:
        return None
    document = session.get(Document, row.result_sha256)
    if document is None:
        return None
    return EvaluationResult.model_validate_json(zlib.decompress(document.compressed))


def _submission(session: Session, number: int) -> tuple[Submission, Season, Author]:
    row = submission_of(session, number)
    return row, session.get_one(Season, row.season_id), session.get_one(Author, row.author_id)


def _source_is_public(session: Session, row: Submission, season: Season, now: float) -> bool:
    """What was never judged stays its author's; the rule may hide the rest until the season's end."""
    if season.scoring_rule.source_visible == "season_end" and not season.over(now):
        return False
    judged = select(Evaluation.id).where(
        Evaluation.submission_id == row.id,
        Evaluation.verdict.in_([Verdict.ACCEPTED, Verdict.REJECTED]),
    )
    return session.scalar(judged.limit(1)) is not None


def line_of(row: Submission, season: str, author: str) -> dict[str, Any]:
    """The fields of a `SubmissionLine`."""
    return {
        "id": row.id,
        "season": season,
        "author": one_line(author),
        "file_name": one_line(row.file_name),
        "note": printable(row.note),
        "strategy": one_line(row.strategy),
        "world_size": row.world_size,
        "at": row.at,
        "state": SubmissionState(row.state),
        "why": printable(row.state_why),
        "verdict": None if row.verdict is None else Verdict(row.verdict),
    }


def _evaluation(row: Evaluation) -> EvaluationView:
    return EvaluationView(
        id=row.id,
        state=EvaluationState(row.state),
        why=printable(row.why),
        queued_at=row.queued_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        starts=row.starts,
        worker=None if row.worker is None else one_line(row.worker),
        verdict=None if row.verdict is None else Verdict(row.verdict),
        code=None if row.code is None else _CODES[row.code],
        message=printable(row.message or ""),
        isolation=row.isolation,
        hardware=None if row.hardware is None else one_line(row.hardware),
        run_mfus=tuple(np.frombuffer(row.run_mfus or b"", "<f8").tolist()),
        failed_runs=row.failed_runs,
        tokens_per_second=row.tokens_per_second,
        seconds=row.seconds,
        has_result=row.result_sha256 is not None,
        progress=printable(row.progress),
    )
