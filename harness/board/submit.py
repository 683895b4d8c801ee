"""Handing in a train file: what is taken, what is refused at once, and taking it back."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlalchemy import bindparam, exists, func, or_, select

from harness.board import events as ev
from harness.board.copies import Program, look_at
from harness.board.organise import author_named, season_named, submission_of, the_season
from harness.board.states import SubmissionState
from harness.board.store import Store
from harness.board.tables import Author, Evaluation, Season, Source, Submission
from harness.board.writer import Writer
from harness.errors import Code, InputError, SubmissionError, Verdict
from harness.protocol.text import one_line, printable
from harness.submission.read import MAX_BYTES, read, strategy_of
from harness.submission.strategy import AXES, Strategy

NOTE_CHARACTERS: Final = 500
DAY_SECONDS: Final = 86_400


@dataclass(frozen=True)
class Handed:
    """A train file as it came.

    Attributes:
        author, season: by name; season None is the only one that is open.
        file_name: as its author calls it; shown, never used as a path.
        source: its bytes.
        note: what its author says of it.
    """

    author: str
    file_name: str
    source: bytes
    note: str = ""
    season: str | None = None


class RateLimitedError(InputError):
    """Too many in a day; after `retry_after_seconds` one more is taken."""

    def __init__(self, author: str, count: int, limit: int, seconds: float) -> None:
        super().__init__(
            Code.RATE_LIMITED,
            f"{author} has handed in {count} files within 24 hours, and {limit} are allowed; "
            f"the next one is taken in {seconds / 3600:.1f} hours",
        )
        self.retry_after_seconds = seconds


@dataclass(frozen=True)
class Examined:
    """What a child process has found out about a source."""

    strategy: str
    program: Program


def submit(store: Store, handed: Handed, examined: Examined | None = None) -> int:
    """Queue a train file; gives the submission's number.

    Args:
        store: where.
        handed: the file.
        examined: what `examine` said of this very source and the season's ranks; None asks it.

    Raises:
        SubmissionError: the file cannot be run, and the code says why; nothing is kept of it.
        InputError: no such author or season, a season that is not running, too many in a day.
    """
    check_source(handed.source)
    with store.read() as session:
        wanted = the_season(session, handed.season)
    examined = examined or examine(handed.source, wanted.world_size)
    return store.write_with_others(lambda writer: _take(writer, handed, wanted.name, examined))


def _take(writer: Writer, handed: Handed, season_name: str, examined: Examined) -> int:
    author = author_named(writer.session, handed.author)
    season = season_named(writer.session, season_name)
    _check_open(season, writer.now)
    _check_rate(writer, author, season)
    sha256 = hashlib.sha256(handed.source).hexdigest()
    if writer.session.get(Source, sha256) is None:
        writer.session.add(
            Source(sha256=sha256, content=handed.source, shingles=examined.program.shingles)
        )
    number = writer.next_id(Submission)
    writer.append(
        ev.Submitted(
            submission=number,
            season=season.id,
            author=author.id,
            file_name=one_line(handed.file_name),
            note=printable(handed.note[:NOTE_CHARACTERS]),
            source_sha256=sha256,
            program=examined.program.sha256,
            strategy=examined.strategy,
            world_size=season.world_size,
        )
    )
    queue_evaluation(writer, number, "submitted")
    return number


def read_file(path: Path) -> bytes:
    """The bytes of a train file on this machine. Raises as the judge would."""
    return read(path).source


def queue_evaluation(writer: Writer, submission: int, why: str) -> int:
    """One more evaluation of a submission; gives its number."""
    number = writer.next_id(Evaluation)
    writer.append(ev.EvaluationQueued(evaluation=number, submission=submission, why=why))
    return number


def cancel(store: Store, submission: int, author: str | None = None) -> None:
    """Take a submission back before there is a verdict; a worker that has it stops.

    Args:
        store: where it is.
        submission: its number.
        author: who asks; None is the organiser.

    Raises InputError(UNKNOWN_ID, NOT_NOW).
    """
    with store.write() as writer:
        row = submission_of(writer.session, submission)
        owner = writer.session.get_one(Author, row.author_id)
        if author is not None and owner.name != author:
            raise InputError(Code.UNKNOWN_ID, f"submission {submission} is not yours")
        if row.state not in (
            SubmissionState.QUEUED,
            SubmissionState.RUNNING,
            SubmissionState.FAILED,
        ):
            raise InputError(
                Code.NOT_NOW,
                f"submission {submission} is {row.state}: only what waits or runs can be cancelled",
            )
        writer.append(ev.SubmissionCancelled(submission=submission))


def check_source(source: bytes) -> None:
    """Refuse what no train file can be, before anything is made of it. Raises SubmissionError."""
    if not source.strip():
        raise SubmissionError(Code.FILE_UNREADABLE, "the file is empty")
    if len(source) > MAX_BYTES:
        raise SubmissionError(
            Code.FILE_TOO_LARGE,
            f"the file has {len(source):,} bytes; at most {MAX_BYTES:,} are read",
        )
    try:
        text = source.decode("utf-8")
    except UnicodeDecodeError as error:
        raise SubmissionError(
            Code.FILE_UNREADABLE,
            f"the file is not UTF-8 (byte {error.start}): save it as UTF-8 text",
        ) from None
    if "\0" in text:
        raise SubmissionError(Code.FILE_UNREADABLE, "the file is binary: it holds a zero byte")


def examine(source: bytes, world_size: int) -> Examined:
    """Its strategy in words and its normal form; what is refused is what the judge would refuse.

    Raises SubmissionError.
    """
    facts, program = look_at(source)
    return Examined(in_words(strategy_of(facts).check_world(world_size)), program)


def in_words(strategy: Strategy) -> str:
    """As boards show and filter it: "dp 2, ep 2", the axes that are used; "one rank" if none is."""
    used = [
        f"{axis.removesuffix('_size')} {getattr(strategy, axis)}"
        for axis in AXES
        if getattr(strategy, axis) > 1
    ]
    return (", ".join(used) or "one rank") + (" (ep within dp)" if strategy.ep_borrows_dp else "")


def _check_open(season: Season, now: float) -> None:
    if season.over(now):
        raise InputError(Code.NOT_NOW, f"season {season.name} is over")
    if now < season.starts_at:
        raise InputError(Code.NOT_NOW, f"season {season.name} has not begun")


#: How many of :author in :season count :after that moment, and when the first was; put together once.
_COUNTED: Final = select(func.count(), func.min(Submission.at)).where(
    Submission.author_id == bindparam("author"),
    Submission.season_id == bindparam("season"),
    Submission.at > bindparam("after"),
    Submission.state != SubmissionState.FAILED,
    or_(
        Submission.state != SubmissionState.CANCELLED,
        exists().where(Evaluation.submission_id == Submission.id, Evaluation.starts > 0),
    ),
    or_(Submission.verdict.is_(None), Submission.verdict != Verdict.ERROR),
)


def _check_rate(writer: Writer, author: Author, season: Season) -> None:
    """What was cancelled before it began, and what we failed at, does not count; a rejection does."""
    limit = season.scoring_rule.submissions_per_day
    lately = {"author": author.id, "season": season.id, "after": writer.now - DAY_SECONDS}
    count, first = writer.session.execute(_COUNTED, lately).one()
    if count >= limit:
        raise RateLimitedError(author.name, count, limit, first + DAY_SECONDS - writer.now)
