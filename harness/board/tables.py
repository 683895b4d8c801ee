"""The tables: the events, what is made from them, and the few things that are no history.

Events are append-only; triggers in the database refuse to change one. Everything from `authors` to
`comparisons` is made from them (`harness.board.project`), except the columns named in `EPHEMERAL`:
leases and progress, which are over when an evaluation is. `sources` and `documents` hold what events
name by hash.
"""

from typing import Final

from sqlalchemy import (
    BigInteger,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Text,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from harness.board.rule import ScoringRule

#: Seconds since 1970, as the store's clock gave them.
Time = Float(53)
#: SQLite numbers rows by itself only in a column of this very type.
Identity = BigInteger().with_variant(Integer, "sqlite")
#: The largest BIGINT: whoever asks for a row with a larger number asks for none that is there.
MAX_NUMBER: Final = 2**63 - 1
#: Of a worker's name, at most.
WORKER_CHARACTERS: Final = 200


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_label)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class EventRow(Base):
    """One event. `season`, `submission` and `evaluation` repeat what is in the body, to look it up."""

    __tablename__ = "events"
    id: Mapped[int] = mapped_column(Identity, primary_key=True, autoincrement=False)
    at: Mapped[float] = mapped_column(Time)
    kind: Mapped[str] = mapped_column(String(40))
    submission: Mapped[int | None] = mapped_column(BigInteger, index=True)
    evaluation: Mapped[int | None] = mapped_column(BigInteger)
    body: Mapped[str] = mapped_column(Text)


class Author(Base):
    __tablename__ = "authors"
    id: Mapped[int] = mapped_column(Identity, primary_key=True, autoincrement=False)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    added_at: Mapped[float] = mapped_column(Time)
    # Whoever has waited longest since the last start is next: no author can starve others.
    last_started_at: Mapped[float] = mapped_column(Time, default=0.0)


class Key(Base):
    """`sha256` is of the key: it has 256 random bits, so there is nothing to guess and no salt needed."""

    __tablename__ = "keys"
    id: Mapped[int] = mapped_column(Identity, primary_key=True, autoincrement=False)
    author_id: Mapped[int] = mapped_column(ForeignKey("authors.id"), index=True)
    sha256: Mapped[str] = mapped_column(String(64), unique=True)
    prefix: Mapped[str] = mapped_column(String(16))
    issued_at: Mapped[float] = mapped_column(Time)
    revoked_at: Mapped[float | None] = mapped_column(Time)


class Season(Base):
    __tablename__ = "seasons"
    id: Mapped[int] = mapped_column(Identity, primary_key=True, autoincrement=False)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    hparams_sha256: Mapped[str] = mapped_column(String(64))
    benchmark: Mapped[str] = mapped_column(String(200))
    world_size: Mapped[int]
    hardware: Mapped[str] = mapped_column(String(200))
    rule: Mapped[str] = mapped_column(Text)  # JSON; read it as `scoring_rule`
    opened_at: Mapped[float] = mapped_column(Time)
    starts_at: Mapped[float] = mapped_column(Time)
    ends_at: Mapped[float | None] = mapped_column(Time)
    closed_at: Mapped[float | None] = mapped_column(Time)

    @property
    def scoring_rule(self) -> ScoringRule:
        """The rule, fixed when the season opened."""
        return ScoringRule.model_validate_json(self.rule)

    def over(self, now: float) -> bool:
        """Whether nothing is taken any more."""
        return self.closed_at is not None or (self.ends_at is not None and now >= self.ends_at)


class Submission(Base):
    __tablename__ = "submissions"
    id: Mapped[int] = mapped_column(Identity, primary_key=True, autoincrement=False)
    season_id: Mapped[int] = mapped_column(ForeignKey("seasons.id"))
    author_id: Mapped[int] = mapped_column(ForeignKey("authors.id"))
    file_name: Mapped[str] = mapped_column(String(300))
    note: Mapped[str] = mapped_column(Text)
    source_sha256: Mapped[str] = mapped_column(String(64))
    program: Mapped[str] = mapped_column(String(64))
    strategy: Mapped[str] = mapped_column(String(200))
    world_size: Mapped[int]
    at: Mapped[float] = mapped_column(Time)
    state: Mapped[str] = mapped_column(String(16))  # a `states.State`
    state_why: Mapped[str] = mapped_column(Text, default="")
    verdict: Mapped[str | None] = mapped_column(String(16))  # of the evaluation that finished last

    __table_args__ = (
        Index("ix_submissions_author", "author_id", "at"),
        Index("ix_submissions_season", "season_id", "state"),
        Index("ix_submissions_program", "season_id", "program"),
    )


class Evaluation(Base):
    """`run_mfus` holds little-endian float64, so that ranking reads a million rows at once.

    `season_id` and `author_id` are those of the submission: lines of a queue of thousands are counted in an
    index, at every upload, and a season is read in the order of its rows.
    """

    __tablename__ = "evaluations"
    id: Mapped[int] = mapped_column(Identity, primary_key=True, autoincrement=False)
    submission_id: Mapped[int] = mapped_column(ForeignKey("submissions.id"), index=True)
    season_id: Mapped[int] = mapped_column(ForeignKey("seasons.id"), index=True)
    author_id: Mapped[int] = mapped_column(ForeignKey("authors.id"))
    state: Mapped[str] = mapped_column(
        String(16)
    )  # queued, running, finished, cancelled, abandoned
    why: Mapped[str] = mapped_column(Text)
    queued_at: Mapped[float] = mapped_column(Time)
    starts: Mapped[int] = mapped_column(default=0)
    started_at: Mapped[float | None] = mapped_column(Time)
    finished_at: Mapped[float | None] = mapped_column(Time)
    worker: Mapped[str | None] = mapped_column(String(WORKER_CHARACTERS))
    machine: Mapped[str | None] = mapped_column(String(64))
    verdict: Mapped[str | None] = mapped_column(String(16))
    code: Mapped[str | None] = mapped_column(String(40))
    message: Mapped[str | None] = mapped_column(Text)
    isolation: Mapped[str | None] = mapped_column(String(20))
    hardware: Mapped[str | None] = mapped_column(String(200))
    run_mfus: Mapped[bytes | None] = mapped_column(LargeBinary)
    failed_runs: Mapped[int] = mapped_column(default=0)
    tokens_per_second: Mapped[float | None] = mapped_column(Float(53))
    seconds: Mapped[float | None] = mapped_column(Float(53))
    result_sha256: Mapped[str | None] = mapped_column(String(64))
    # Ephemeral: no history, and not replayed.
    lease_until: Mapped[float | None] = mapped_column(Time)
    progress: Mapped[str] = mapped_column(Text, default="")

    __table_args__ = (
        Index("ix_evaluations_line", "state", "season_id", "author_id", "id"),
        # Two workers that time on one machine at once would slow each other: the store itself refuses.
        Index(
            "uq_evaluations_machine",
            "machine",
            unique=True,
            sqlite_where=text("state = 'running'"),
            postgresql_where=text("state = 'running'"),
        ),
    )


class Comparison(Base):
    __tablename__ = "comparisons"
    id: Mapped[int] = mapped_column(Identity, primary_key=True, autoincrement=False)
    season_id: Mapped[int] = mapped_column(ForeignKey("seasons.id"), index=True)
    at: Mapped[float] = mapped_column(Time)
    contender_id: Mapped[int] = mapped_column(ForeignKey("submissions.id"))
    leader_id: Mapped[int] = mapped_column(ForeignKey("submissions.id"))
    ratio: Mapped[float] = mapped_column(Float(53))
    low: Mapped[float] = mapped_column(Float(53))
    faster: Mapped[bool]


class Source(Base):
    """A submitted file by its content; `shingles` are what similarity is computed from."""

    __tablename__ = "sources"
    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    content: Mapped[bytes] = mapped_column(LargeBinary)
    shingles: Mapped[bytes] = mapped_column(LargeBinary)


class Document(Base):
    """A result document, compressed with zlib; `sha256` is of its JSON."""

    __tablename__ = "documents"
    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    compressed: Mapped[bytes] = mapped_column(LargeBinary)


class Claim(Base):
    """A comparison that a worker makes, as long as it renews the lease. No history."""

    __tablename__ = "claims"
    contender_id: Mapped[int] = mapped_column(ForeignKey("submissions.id"), primary_key=True)
    leader_id: Mapped[int] = mapped_column(ForeignKey("submissions.id"), primary_key=True)
    worker: Mapped[str] = mapped_column(String(WORKER_CHARACTERS))
    machine: Mapped[str] = mapped_column(String(64), unique=True)
    lease_until: Mapped[float] = mapped_column(Time)


class Worker(Base):
    """Who has been heard from, for people who wonder whether anybody works. No history."""

    __tablename__ = "workers"
    name: Mapped[str] = mapped_column(String(WORKER_CHARACTERS), primary_key=True)
    machine: Mapped[str] = mapped_column(String(64))
    seen_at: Mapped[float] = mapped_column(Time)
    doing: Mapped[str] = mapped_column(Text, default="")


#: Tables that are made from events, in the order in which a replay has to be compared.
PROJECTED: Final = (Author, Key, Season, Submission, Evaluation, Comparison)
EPHEMERAL: Final = {"evaluations": frozenset({"lease_until", "progress"})}
