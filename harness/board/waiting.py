"""The queue as people see it: what runs, and whose turn is when. `queue` is where turns are taken."""

import heapq
from collections import defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from harness.board.states import EvaluationState
from harness.board.tables import Author, Evaluation, Season, Submission
from harness.protocol.text import one_line, printable
from harness.records import Record


class QueueEntry(Record):
    """An evaluation that runs (position 0) or waits; positions count within one benchmark."""

    position: int
    evaluation: int
    submission: int
    author: str
    season: str
    file_name: str
    why: str
    queued_at: float
    started_at: float | None
    worker: str | None
    progress: str


class QueueView(Record):
    """What runs and waits; `length` counts all that wait, `entries` may be cut."""

    length: int
    entries: tuple[QueueEntry, ...]


@dataclass(frozen=True)
class _Waiting:
    """An evaluation that waits, in its turn."""

    position: int
    evaluation: int
    submission: int


def queue_view(
    session: Session, limit: int | None = None, offset: int = 0
) -> tuple[QueueEntry, ...]:
    """What runs, then what waits, in the order in which it is started if nothing more comes.

    Args:
        session: of `Store.read()`.
        limit: of those that wait, of each benchmark; None is all.
        offset: how many of each benchmark are passed over.
    """
    running = session.scalars(
        select(Evaluation.id)
        .where(Evaluation.state == EvaluationState.RUNNING)
        .order_by(Evaluation.started_at, Evaluation.id)
    )
    places = dict.fromkeys(running, 0)
    for waiting in _in_turn(session):
        if waiting.position > offset and (limit is None or waiting.position <= offset + limit):
            places[waiting.evaluation] = waiting.position
    rows = {row.evaluation: row for row in _queue_entries(session, places)}
    return tuple(rows[number] for number in places if number in rows)


def queue_length(session: Session) -> int:
    """How many evaluations wait."""
    waiting = select(func.count()).where(Evaluation.state == EvaluationState.QUEUED)
    return session.scalar(waiting) or 0


def position_of(session: Session, submission: int) -> int | None:
    """How many starts until this submission's turn: 1 is next; None where nothing of it waits.

    Authors take turns, always in the same order. So before the k-th of an author come at most k of each
    author who is before them in that order, and k - 1 of each who is behind.
    """
    mine = session.execute(
        select(Evaluation.id, Submission.author_id, Season.hparams_sha256)
        .join(Submission, Submission.id == Evaluation.submission_id)
        .join(Season, Season.id == Submission.season_id)
        .where(Evaluation.submission_id == submission, Evaluation.state == EvaluationState.QUEUED)
        .order_by(Evaluation.id)
        .limit(1)
    ).first()
    if mine is None:
        return None
    lines = session.execute(
        select(
            Submission.author_id,
            func.count(),
            func.count().filter(Evaluation.id <= mine.id),
        )
        .join(Submission, Submission.id == Evaluation.submission_id)
        .join(Author, Author.id == Submission.author_id)
        .join(Season, Season.id == Submission.season_id)
        .where(
            Evaluation.state == EvaluationState.QUEUED,
            Season.hparams_sha256 == mine.hparams_sha256,
        )
        .group_by(Submission.author_id, Author.last_started_at)
        .order_by(Author.last_started_at, func.min(Evaluation.id))
    ).all()
    turn = next(upto for author, _, upto in lines if author == mine.author_id)
    position, rounds = 0, turn
    for author, count, _ in lines:
        position += min(count, rounds)
        if author == mine.author_id:
            rounds = turn - 1  # whoever comes now is behind
    return position


def _queue_entries(session: Session, places: dict[int, int]) -> Iterator[QueueEntry]:
    rows = session.execute(
        select(Evaluation, Submission, Author.name, Season.name)
        .join(Submission, Submission.id == Evaluation.submission_id)
        .join(Author, Author.id == Submission.author_id)
        .join(Season, Season.id == Submission.season_id)
        .where(Evaluation.state.in_([EvaluationState.QUEUED, EvaluationState.RUNNING]))
    )
    for evaluation, submission, author, season in rows:
        if evaluation.id in places:
            yield QueueEntry(
                position=places[evaluation.id],
                evaluation=evaluation.id,
                submission=submission.id,
                author=one_line(author),
                season=season,
                file_name=one_line(submission.file_name),
                why=one_line(evaluation.why),
                queued_at=evaluation.queued_at,
                started_at=evaluation.started_at,
                worker=None if evaluation.worker is None else one_line(evaluation.worker),
                progress=printable(evaluation.progress),
            )


def _in_turn(session: Session) -> Iterator[_Waiting]:
    """Those that wait, benchmark by benchmark, as `queue.take` would start them one after the other.

    Whoever has waited longest since their last start is next, and goes to the end of the line then.
    """
    rows = session.execute(
        select(
            Season.hparams_sha256,
            Submission.author_id,
            Author.last_started_at,
            Evaluation.id,
            Submission.id,
        )
        .join(Submission, Submission.id == Evaluation.submission_id)
        .join(Author, Author.id == Submission.author_id)
        .join(Season, Season.id == Submission.season_id)
        .where(Evaluation.state == EvaluationState.QUEUED)
        .order_by(Season.id, Evaluation.id)
    )
    lines: dict[str, dict[tuple[float, int], deque[tuple[int, int]]]] = defaultdict(
        lambda: defaultdict(deque)
    )
    for benchmark, author, last_started, evaluation, submission in rows:
        lines[benchmark][last_started, author].append((evaluation, submission))
    for authors in lines.values():
        # (0, ...) are those whose last start has been; whoever is started now comes after all of them.
        line = [(0, last, theirs[0][0], theirs) for (last, _), theirs in authors.items()]
        heapq.heapify(line)
        position = 0
        while line:
            position += 1
            _, _, _, theirs = heapq.heappop(line)
            yield _Waiting(position, *theirs.popleft())
            if theirs:
                heapq.heappush(line, (1, float(position), theirs[0][0], theirs))
