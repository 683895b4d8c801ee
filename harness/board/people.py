"""Authors and workers as people see them."""

from typing import Final

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from harness.board.states import SubmissionState
from harness.board.tables import MAX_NUMBER, Author, Key, Season, Submission, Worker
from harness.board.views import SubmissionLine, line_of
from harness.errors import Code, InputError, Verdict
from harness.protocol.text import one_line, quoted
from harness.records import Record

#: A worker says every 10 s that it lives.
ALIVE_SECONDS: Final = 45.0
PAGE: Final = 100


class AuthorView(Record):
    """An author: counts over all that was handed in, and one page of it, newest first."""

    name: str
    added_at: float
    total: int
    accepted: int
    rejected: int
    waiting: int
    submissions: tuple[SubmissionLine, ...]


class WorkerView(Record):
    """A worker, and whether it was heard from lately."""

    name: str
    seen_at: float
    doing: str
    alive: bool


def author_view(session: Session, name: str, offset: int = 0, limit: int = PAGE) -> AuthorView:
    """An author and a page of what they handed in. Raises InputError(UNKNOWN_ID)."""
    author = session.scalar(select(Author).where(Author.name == name))
    if author is None:
        raise InputError(Code.UNKNOWN_ID, f"there is no author {quoted(name)}")
    counted = session.execute(
        select(Submission.verdict, Submission.state, func.count())
        .where(Submission.author_id == author.id)
        .group_by(Submission.verdict, Submission.state)
    ).all()
    rows = session.execute(
        select(Submission, Season.name)
        .join(Season, Season.id == Submission.season_id)
        .where(Submission.author_id == author.id)
        .order_by(Submission.at.desc(), Submission.id.desc())
        .offset(min(offset, MAX_NUMBER))
        .limit(limit)
    )
    waits = (SubmissionState.QUEUED, SubmissionState.RUNNING)
    return AuthorView(
        name=author.name,
        added_at=author.added_at,
        total=sum(count for _, _, count in counted),
        accepted=sum(count for verdict, _, count in counted if verdict == Verdict.ACCEPTED),
        rejected=sum(count for verdict, _, count in counted if verdict == Verdict.REJECTED),
        waiting=sum(count for _, state, count in counted if state in waits),
        submissions=tuple(
            SubmissionLine(**line_of(row, season, author.name)) for row, season in rows
        ),
    )


def workers_view(session: Session, now: float) -> tuple[WorkerView, ...]:
    """Workers that were heard from, the latest first."""
    rows = session.scalars(select(Worker).order_by(Worker.seen_at.desc(), Worker.name))
    return tuple(
        WorkerView(
            name=one_line(row.name),
            seen_at=row.seen_at,
            doing=one_line(row.doing),
            alive=now - row.seen_at < ALIVE_SECONDS,
        )
        for row in rows
    )


class AuthorLine(Record):
    """An author in a list; `keys` are the beginnings of those that are valid."""

    name: str
    added_at: float
    submissions: int
    keys: tuple[str, ...]


def authors_view(session: Session) -> tuple[AuthorLine, ...]:
    """All authors by name; for organisers, as it says something of their keys."""
    counted = select(Submission.author_id, func.count()).group_by(Submission.author_id)
    counts = {row[0]: row[1] for row in session.execute(counted)}
    valid: dict[int, list[str]] = {}
    for key in session.scalars(select(Key).where(Key.revoked_at.is_(None)).order_by(Key.id)):
        valid.setdefault(key.author_id, []).append(key.prefix)
    return tuple(
        AuthorLine(
            name=author.name,
            added_at=author.added_at,
            submissions=counts.get(author.id, 0),
            keys=tuple(valid.get(author.id, ())),
        )
        for author in session.scalars(select(Author).order_by(Author.name))
    )
