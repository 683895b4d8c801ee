"""Writing events: what happened, and what follows from it, in a transaction that nobody else writes in."""

from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from harness.board.events import Event, Stamped
from harness.board.project import apply
from harness.board.tables import EventRow


@dataclass(frozen=True)
class Writer:
    """A transaction that is the only one to write: what it reads stays true until it is over.

    Attributes:
        session: for reading, and for what is no history.
        now: seconds since 1970; the same for all that happens in this transaction.
        taken: of each table the last number that was given out.
    """

    session: Session
    now: float
    taken: dict[type[Any], int] = field(default_factory=dict)

    def append(self, body: Event, *, submission: int | None = None) -> int:
        """Write an event and carry it out; gives its number.

        Args:
            body: what happened.
            submission: whose history it is part of, where the event does not say so itself.
        """
        number = self.next_id(EventRow)
        evaluation = getattr(body, "evaluation", None)
        self.session.add(
            EventRow(
                id=number,
                at=self.now,
                kind=body.kind,
                submission=getattr(body, "submission", submission),
                evaluation=evaluation,
                body=body.model_dump_json(),
            )
        )
        apply(self.session, Stamped(id=number, at=self.now, event=body))
        self.session.flush()
        return number

    def next_id(self, table: type[Any]) -> int:
        """The number of the next row, which is written then: without gaps, as there is one writer."""
        if table not in self.taken:
            self.taken[table] = self.session.scalar(select(func.max(table.id))) or 0
        self.taken[table] += 1
        return self.taken[table]
