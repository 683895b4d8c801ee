"""The store: one database, one writer at a time, and a clock that all who use it share.

SQLite in a file of the data folder is the default and needs nothing; PostgreSQL, by URL, is for several
machines. The rest of the board does not know which of the two it is. Opening a store brings it up to
date: an older one is backed up and migrated, one that a newer version has written is refused.
"""

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, TypeVar

from sqlalchemy import Engine, create_engine, event, func, select, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session

from harness.board.sharing import Step
from harness.board.tables import Base, EventRow
from harness.board.writer import Writer
from harness.errors import Code, InputError, JudgeError
from harness.files import make_private_file, make_private_folder
from harness.paths import data_folder

T = TypeVar("T")

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
        self._steps: deque[Step] = deque()

    @property
    def is_sqlite(self) -> bool:
        return self.engine.dialect.name == "sqlite"

    @contextmanager
    def write(self) -> Iterator[Writer]:
        """A transaction in which events are written: all of it is kept, or nothing.

        Raises JudgeError(STORE_FAILED) where the database fails, as on a full disk.
        """
        with told_as_ours(), self._turn(), self._transaction() as writer:
            yield writer

    def write_with_others(self, step: Callable[[Writer], T]) -> T:
        """Like `write`, in one transaction with what other threads want to write at that moment.

        Args:
            step: what is written; gives the answer. Of ours it may raise anything: it alone is undone then.

        Raises JudgeError(STORE_FAILED) as `write` does, and what `step` raises.
        """
        mine = Step(step)
        self._steps.append(mine)
        try:
            with self._turn():
                if not mine.over.is_set():
                    self._carry_out([self._steps.popleft() for _ in range(len(self._steps))])
        except JudgeError:
            # Our turn did not come: nobody may write it any more, now that its thread says it was not kept.
            with suppress(ValueError):
                self._steps.remove(mine)
                raise
        answer: T = mine.outcome()
        return answer

    def _carry_out(self, steps: list[Step]) -> None:
        try:
            with told_as_ours(), self._transaction() as writer:
                for step in steps:
                    step.carry_out(writer)
        except BaseException as error:
            for step in steps:
                step.error = error
            raise
        finally:
            for step in steps:
                step.over.set()

    @contextmanager
    def _transaction(self) -> Iterator[Writer]:
        with _Keeping(self.engine) as session, session.begin():
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
        engine = create_engine(parsed, connect_args={"timeout": busy_seconds}, pool_size=POOL)
        if parsed.database:
            # Hidden sources and hashes of keys are in it. SQLite gives its other files the same mode.
            database = Path(parsed.database).absolute()
            make_private_folder(database.parent)
            if not database.exists():
                make_private_file(database)
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
