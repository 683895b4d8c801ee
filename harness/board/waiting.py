"""The queue as people see it: what runs, and whose turn is when. `queue` is where turns are taken."""

import heapq
from collections import defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from sqlalchemy import bindparam, func, select
from sqlalchemy.orm import Session

from harness.board.lines import LINES, WAITS
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


#: The first evaluation of :submission that waits.
_MINE: Final = (
    select(Evaluation.id, Evaluation.author_id, Season.hparams_sha256)
    .join(Season, Season.id == Evaluation.season_id)
    .where(
        Evaluation.submission_id == bindparam("submission"),
        Evaluation.state == EvaluationState.QUEUED,
    )
    .order_by(Evaluation.id)
    .limit(1)
)
#: How many of :author wait, up to :evaluation.
_TURN: Final = select(func.count()).where(
    WAITS,
    Evaluation.author_id == bindparam("author"),
    Evaluation.id <= bindparam("evaluation"),
)
#: Authors and how many of theirs wait, in the order in which they take turns.
_IN_ORDER: Final = (
    select(LINES.c.author_id, LINES.c.length)
    .join(Author, Author.id == LINES.c.author_id)
    .order_by(Author.last_started_at, LINES.c.oldest)
)


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
    mine = session.execute(_MINE, {"submission": submission}).first()
    if mine is None:
        return None
    benchmark = {"hparams_sha256": mine.hparams_sha256}
    turn = session.scalar(_TURN, {**benchmark, "author": mine.author_id, "evaluation": mine.id})
    lines = session.execute(_IN_ORDER, benchmark)
    position, rounds = 0, turn or 0
    for author, count in lines:
        position += min(count, rounds)
        if author == mine.author_id:
            rounds -= 1  # whoever comes now is behind
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
            Evaluation.author_id,
            Author.last_started_at,
            Evaluation.id,
            Evaluation.submission_id,
        )
        .join(Author, Author.id == Evaluation.author_id)
        .join(Season, Season.id == Evaluation.season_id)
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
