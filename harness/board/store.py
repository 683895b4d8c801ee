"""The store: one database, one writer at a time, and a clock that all who use it share.

SQLite in a file of the data folder is the default and needs nothing; PostgreSQL, by URL, is for several
machines. The rest of the board does not know which of the two it is. Opening a store brings it up to
date: an older one is backed up and migrated, one that a newer version has written is refused.
"""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Engine, create_engine, event, func, select, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session

from harness.board.events import Event, Stamped
from harness.board.project import apply
from harness.board.tables import Base, EventRow
from harness.errors import Code, InputError, JudgeError
from harness.paths import data_folder

DATABASE_FILE: Final = "board.sqlite"
#: Who waits longer than this for another writer has found a defect, not a busy moment.
BUSY_SECONDS: Final = 60
#: A server's threads, each with a connection.
POOL: Final = 40
#: Of PostgreSQL's advisory lock; any number will do that nobody else takes.
WRITER_LOCK: Final = 0x7472_6A75


def store_url(folder: Path, wanted: str | None = None) -> str:
    """The URL of the database: `wanted`, $TRAINJUDGE_STORE, or a SQLite file in the data folder."""
    return wanted or os.environ.get("TRAINJUDGE_STORE") or f"sqlite:///{folder / DATABASE_FILE}"


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


class _Keeping(Session):
    """Holds on to what it wrote: the next event often changes the same row, which is not read again."""


@event.listens_for(_Keeping, "pending_to_persistent")
def _keep(session: Session, row: object) -> None:
    session.info.setdefault("written", []).append(row)


class Store:
    """An open database. Made by `open_store`; safe to share between threads."""

    def __init__(self, engine: Engine, busy_seconds: float = BUSY_SECONDS) -> None:
        self.engine = engine
        self._busy_seconds = busy_seconds
        self._writing = threading.Lock()

    @property
    def is_sqlite(self) -> bool:
        return self.engine.dialect.name == "sqlite"

    @contextmanager
    def write(self) -> Iterator[Writer]:
        """A transaction in which events are written: all of it is kept, or nothing.

        Raises JudgeError(STORE_FAILED) where the database fails, as on a full disk.
        """
        with (
            told_as_ours(),
            self._turn(),
            _Keeping(self.engine) as session,
            session.begin(),
        ):
            if self.is_sqlite:
                session.execute(text("BEGIN IMMEDIATE"))
            else:
                # A writer whose machine lost its power says nothing any more, and holds the lock.
                milliseconds = str(round(self._busy_seconds * 1000))
                for limit in ("lock_timeout", "idle_in_transaction_session_timeout"):
                    session.execute(select(func.set_config(limit, milliseconds, True)))
                session.execute(select(func.pg_advisory_xact_lock(WRITER_LOCK)))
            yield Writer(session, self._now(session))

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Threads of one process write in turns: SQLite would let them sleep and try again, ever longer."""
        if not self.is_sqlite:
            yield
            return
        if not self._writing.acquire(timeout=self._busy_seconds):
            raise JudgeError(
                Code.STORE_FAILED,
                f"the store is busy: another thread has been writing for {self._busy_seconds:g} s. "
                "Nothing of this step was kept: try it again",
            )
        try:
            yield
        finally:
            self._writing.release()

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session that sees one moment of the store, and writes nothing."""
        with told_as_ours(), Session(self.engine) as session, session.begin():
            if self.is_sqlite:
                session.execute(text("BEGIN"))
            else:
                session.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))
            yield session

    def now(self) -> float:
        """Seconds since 1970 by the clock that all users of this store share."""
        if self.is_sqlite:
            return time.time()
        with self.read() as session:
            return self._now(session)

    def _now(self, session: Session) -> float:
        # Several machines, several clocks: leases are compared by that of the database.
        if self.is_sqlite:
            return time.time()
        return float(session.scalar(text("SELECT extract(epoch FROM clock_timestamp())")) or 0.0)

    def last_event(self) -> int:
        """The number of the newest event: while it stays the same, so does the board."""
        with self.read() as session:
            return last_event_of(session)

    def close(self) -> None:
        self.engine.dispose()


def last_event_of(session: Session) -> int:
    """The number of the newest event that a session sees."""
    return session.scalar(select(func.max(EventRow.id))) or 0


@contextmanager
def told_as_ours() -> Iterator[None]:
    """A failure of the database becomes ours, in a sentence."""
    try:
        yield
    except (DBAPIError, PoolTimeoutError) as error:
        raise JudgeError(
            Code.STORE_FAILED,
            f"the store failed ({_reason(error)}); is its disk full, is the database there? "
            "Nothing of this step was kept: try it again",
        ) from error


def open_store(url: str, busy_seconds: float = BUSY_SECONDS, folder: Path | None = None) -> Store:
    """Open a store, made or migrated where that is due.

    Args:
        url: of the database.
        busy_seconds: how long to wait for another writer, and how long one may say nothing.
        folder: of the board, for a backup before PostgreSQL is migrated; None: the default one.

    Raises:
        InputError: STORE_UNAVAILABLE: there is no database at that URL, or it cannot be reached;
            STORE_NEWER: a newer version of this program has written it.
        JudgeError: STORE_FAILED: it cannot be migrated.
    """
    from harness.board.migrate import bring_up_to_date

    engine = make_engine(url, busy_seconds)
    try:
        with engine.connect():
            pass
    except DBAPIError as error:
        raise InputError(
            Code.STORE_UNAVAILABLE,
            f"the store {hidden(url)} cannot be opened: {_reason(error)}",
        ) from None
    with told_as_ours():
        bring_up_to_date(engine, data_folder(folder))
    return Store(engine, busy_seconds)


def make_engine(url: str, busy_seconds: float = BUSY_SECONDS) -> Engine:
    """An engine with our way of transactions; nothing is opened yet, but SQLite's folder is made.

    Raises InputError(STORE_UNAVAILABLE): no URL of a database that we can use.
    """
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() not in ("sqlite", "postgresql"):
            raise ArgumentError("neither sqlite nor postgresql")
        if parsed.get_backend_name() == "postgresql":
            postgresql = parsed.set(drivername="postgresql+psycopg")
            # Of a database without an encoding the driver would hand out bytes.
            encoding = {"client_encoding": "utf8"}
            return create_engine(
                postgresql, pool_pre_ping=True, pool_size=POOL, connect_args=encoding
            )
        if parsed.database:
            Path(parsed.database).absolute().parent.mkdir(parents=True, exist_ok=True)
        engine = create_engine(parsed, connect_args={"timeout": busy_seconds}, pool_size=POOL)
    except (ArgumentError, NoSuchModuleError) as error:
        raise InputError(
            Code.STORE_UNAVAILABLE,
            f"{hidden(url)} is no URL of a store ({error}); "
            "sqlite:///FILE or postgresql://USER@HOST/NAME is",
        ) from None
    except OSError as error:
        raise InputError(
            Code.STORE_UNAVAILABLE, f"the store's folder cannot be made: {error}"
        ) from None
    event.listen(engine, "connect", _set_up_sqlite)
    return engine


def hidden(url: str) -> str:
    """The URL without its password."""
    try:
        return make_url(url).render_as_string(hide_password=True)
    except ArgumentError:
        return repr(url[:100])


def create_tables(engine: Engine) -> None:
    """All tables without migrations, for stores that live in memory."""
    Base.metadata.create_all(engine)


def _set_up_sqlite(connection: Any, record: object) -> None:
    # The driver would begin transactions by itself, and too late: a writer has to wait at its beginning.
    connection.isolation_level = None
    for setting in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {setting}").close()


def _reason(error: DBAPIError | PoolTimeoutError) -> str:
    said = str(error.orig if isinstance(error, DBAPIError) else error).strip()
    return said.splitlines()[0] if said else type(error).__name__
