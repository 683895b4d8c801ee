"""Care of the store: is it what its events say, and what can go."""

import hashlib
import itertools
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, cast

from pydantic import ValidationError
from sqlalchemy import CursorResult, create_engine, delete, select, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from harness.board.events import Outcome, Stamped
from harness.board.project import apply
from harness.board.store import Store, create_tables
from harness.board.tables import (
    EPHEMERAL,
    PROJECTED,
    Document,
    Evaluation,
    EventRow,
    Source,
    Submission,
    Worker,
)

WORKER_GONE_SECONDS: Final = 86_400
MOST_PROBLEMS: Final = 20


@dataclass(frozen=True)
class Report:
    """What a check found; nothing is wrong if there are no problems."""

    problems: tuple[str, ...]
    summary: str


def check(store: Store) -> Report:
    """Replay the events into an empty store and compare every table; verify every hash."""
    replayed = create_engine("sqlite://")
    create_tables(replayed)
    with store.read() as kept, Session(replayed) as again:
        replay = _Replay(kept, again)
        problems = [*_damage(store, kept), *replay.problems, *_bad_hashes(kept, replay.results)]
        if replay.whole:
            problems += _differences(kept, again)
    replayed.dispose()
    shown = problems[:MOST_PROBLEMS]
    if len(problems) > MOST_PROBLEMS:
        shown.append(f"and {len(problems) - MOST_PROBLEMS} more")
    verdict = "all tables are what they say" if not problems else f"{len(problems)} problem(s)"
    return Report(tuple(shown), f"{replay.events:,} events replayed: {verdict}")


def collect_garbage(store: Store) -> str:
    """Remove what no event names; gives what was removed, in words."""
    with store.write() as writer:
        session = writer.session
        named = select(Submission.source_sha256)
        sources = _count(session, delete(Source).where(Source.sha256.not_in(named)))
        shown = select(Evaluation.result_sha256).where(Evaluation.result_sha256.is_not(None))
        unused = delete(Document).where(
            Document.sha256.not_in(shown), Document.sha256.not_in(_replaced_results(session))
        )
        documents = _count(session, unused)
        silent = Worker.seen_at < writer.now - WORKER_GONE_SECONDS
        workers = _count(session, delete(Worker).where(silent))
    return f"removed {sources} source(s), {documents} result(s), {workers} worker(s)"


def _replaced_results(session: Session) -> list[str]:
    """Hashes of results that are history: `rejudge` has put others in their place."""
    again = select(EventRow.evaluation).where(EventRow.kind == "evaluation_rejudged")
    bodies = select(EventRow.body).where(
        EventRow.evaluation.in_(again),
        EventRow.kind.in_(("evaluation_finished", "evaluation_rejudged")),
    )
    events = (Stamped.body.validate_json(body) for body in session.scalars(bodies))
    return [event.result_sha256 for event in events if isinstance(event, Outcome)]


def _count(session: Session, statement: Any) -> int:
    return cast("CursorResult[Any]", session.execute(statement)).rowcount


class _Replay:
    """All events, carried out in an empty store as far as that goes.

    Attributes:
        events: how many there are.
        problems: what is wrong with events themselves.
        whole: whether all of them could be carried out.
        results: hashes of result documents that events name, with the evaluation.
    """

    def __init__(self, kept: Session, again: Session) -> None:
        self.events = 0
        self.problems: list[str] = []
        self.whole = True
        self.results: dict[str, int] = {}
        rows = select(EventRow).order_by(EventRow.id).execution_options(yield_per=1000)
        for row in kept.scalars(rows):
            self.events += 1
            if row.id != self.events:
                self.problems.append(f"event {self.events} is missing")
                self.whole = False
                return
            try:
                self._carry_out(row, again)
            except (ValidationError, SQLAlchemyError) as error:
                reason = str(error).strip().splitlines()[0]
                self.problems.append(f"event {row.id} cannot be carried out: {reason}")
                self.whole = False
                return
            kept.expunge(row)

    def _carry_out(self, row: EventRow, again: Session) -> None:
        event = Stamped.body.validate_json(row.body)
        apply(again, Stamped(id=row.id, at=row.at, event=event))
        again.flush()
        if isinstance(event, Outcome):
            self.results[event.result_sha256] = event.evaluation
        evaluation: int | None = getattr(event, "evaluation", None)
        submission: int | None = getattr(event, "submission", getattr(event, "contender", None))
        if submission is None and evaluation is not None:
            submission = again.get_one(Evaluation, evaluation).submission_id
        if (row.kind, row.submission, row.evaluation) != (event.kind, submission, evaluation):
            self.problems.append(f"event {row.id}: its columns are not what its body says")


def _damage(store: Store, kept: Session) -> list[str]:
    if not store.is_sqlite:
        return []
    lines = kept.execute(text("PRAGMA integrity_check")).scalars().all()
    return [] if lines == ["ok"] else [f"the database file is damaged: {line}" for line in lines]


def _differences(kept: Session, again: Session) -> Iterator[str]:
    for table in PROJECTED:
        name = table.__tablename__
        columns = [
            column
            for column in table.__table__.columns
            if column.name not in EPHEMERAL.get(name, frozenset())
        ]
        query = select(*columns).order_by(table.__table__.c.id)
        pairs = itertools.zip_longest(kept.execute(query), again.execute(query))
        for mine, replayed in pairs:
            if mine is None or replayed is None:
                number = (mine or replayed).id
                yield f"{name} {number}: only the {'table knows' if mine else 'events know'} it"
            elif mine != replayed:
                wrong = ", ".join(
                    f"{column.name} is {mine[place]!r:.60} instead of {replayed[place]!r:.60}"
                    for place, column in enumerate(columns)
                    if mine[place] != replayed[place]
                )
                yield f"{name} {mine.id}: {wrong}"


def _bad_hashes(kept: Session, results: dict[str, int]) -> Iterator[str]:
    for sha256, content in kept.execute(select(Source.sha256, Source.content)):
        if hashlib.sha256(content).hexdigest() != sha256:
            yield f"source {sha256}: its content has changed"
    for sha256, compressed in kept.execute(select(Document.sha256, Document.compressed)):
        try:
            good = hashlib.sha256(zlib.decompress(compressed)).hexdigest() == sha256
        except zlib.error:
            good = False
        if not good:
            yield f"result {sha256}: its content has changed"
    sources = set(kept.scalars(select(Source.sha256)))
    for number, sha256 in kept.execute(select(Submission.id, Submission.source_sha256)):
        if sha256 not in sources:
            yield f"submission {number}: its source {sha256} is missing"
    documents = set(kept.scalars(select(Document.sha256)))
    for sha256, number in results.items():
        if sha256 not in documents:
            yield f"evaluation {number}: its result {sha256} is missing"
