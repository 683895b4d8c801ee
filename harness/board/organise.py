"""What an organiser decides: seasons, authors and their keys, and what becomes of a submission."""

import hashlib
import re
import secrets
import time
from dataclasses import dataclass
from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from harness.board import events as ev
from harness.board.history import pairs_stopped
from harness.board.rule import ScoringRule
from harness.board.states import SubmissionState
from harness.board.store import Store
from harness.board.tables import MAX_NUMBER, Author, Key, Season, Submission
from harness.board.writer import Writer
from harness.errors import Code, InputError
from harness.protocol.text import counted, one_line, printable, quoted

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
KEY_BYTES: Final = 32
KEY_PREFIX: Final = "tj_"
SHOWN_OF_KEY: Final = 9


@dataclass(frozen=True)
class SeasonPlan:
    """What a new season is to be; times are seconds since 1970, `starts_at` None is now."""

    name: str
    hparams_sha256: str
    benchmark: str
    world_size: int
    hardware: str
    rule: ScoringRule
    starts_at: float | None = None
    ends_at: float | None = None

    def words(self) -> tuple[str, ...]:
        """What is fixed by it, a line each: of the rule what differs from the default, too."""
        default = ScoringRule(peak_tflops=self.rule.peak_tflops).model_dump()
        chosen = self.rule.model_dump()
        changed = [f"{name} {chosen[name]}" for name in chosen if chosen[name] != default[name]]
        peak = self.rule.peak_tflops
        return (
            f"benchmark {self.benchmark} (hparams {self.hparams_sha256[:12]}), "
            f"{counted(self.world_size, 'rank')}",
            f"hardware of the main board {one_line(self.hardware)}, peak "
            + ("the benchmark's" if peak is None else f"{peak:.3g} TFLOP/s a device"),
            f"rule {', '.join(changed) or 'the default one (docs/scoring.md)'}",
        )


def open_season(store: Store, plan: SeasonPlan) -> int:
    """A new season; gives its number. Raises InputError(BAD_ARGUMENT or NOT_NOW)."""
    check_name(plan.name, "season")
    with store.write() as writer:
        if writer.session.scalar(select(Season.id).where(Season.name == plan.name)):
            raise InputError(Code.NOT_NOW, f"there is a season {plan.name} already")
        starts_at = writer.now if plan.starts_at is None else plan.starts_at
        if plan.ends_at is not None and plan.ends_at <= starts_at:
            raise InputError(Code.BAD_ARGUMENT, "the season ends before it starts")
        number = writer.next_id(Season)
        writer.append(
            ev.SeasonOpened(
                season=number,
                name=plan.name,
                hparams_sha256=plan.hparams_sha256,
                benchmark=plan.benchmark,
                world_size=plan.world_size,
                hardware=plan.hardware,
                rule=plan.rule,
                starts_at=starts_at,
                ends_at=plan.ends_at,
            )
        )
        return number


def close_season(store: Store, name: str) -> None:
    """Take no more submissions. Raises InputError(UNKNOWN_ID or NOT_NOW)."""
    with store.write() as writer:
        season = season_named(writer.session, name)
        if season.closed_at is not None:
            raise InputError(Code.NOT_NOW, f"season {name} is closed already")
        writer.append(ev.SeasonClosed(season=season.id))


def add_author(store: Store, name: str) -> str:
    """A new author; gives the first key, kept nowhere. Raises InputError(BAD_ARGUMENT, NOT_NOW)."""
    check_name(name, "author")
    with store.write() as writer:
        if writer.session.scalar(select(Author.id).where(Author.name == name)):
            raise InputError(Code.NOT_NOW, f"there is an author {name} already")
        number = writer.next_id(Author)
        writer.append(ev.AuthorAdded(author=number, name=name))
        return _issue(writer, number)


def has_author(store: Store, name: str) -> bool:
    """Whether there is an author of that name."""
    with store.read() as session:
        return session.scalar(select(Author.id).where(Author.name == name)) is not None


def new_key(store: Store, name: str) -> str:
    """One more key of an author; the others stay valid. Raises InputError(UNKNOWN_ID)."""
    with store.write() as writer:
        return _issue(writer, author_named(writer.session, name).id)


def revoke_keys(store: Store, name: str, prefix: str | None = None) -> int:
    """Make keys of an author worthless: all, or those that begin so; gives how many.

    Raises InputError(UNKNOWN_ID): no such author, or no valid key that begins so.
    """
    with store.write() as writer:
        author = author_named(writer.session, name)
        valid = select(Key).where(Key.author_id == author.id, Key.revoked_at.is_(None))
        keys = [
            key
            for key in writer.session.scalars(valid.order_by(Key.id))
            if prefix is None or key.prefix.startswith(prefix) or prefix.startswith(key.prefix)
        ]
        if not keys:
            raise InputError(Code.UNKNOWN_ID, f"{name} has no such key that is still valid")
        for key in keys:
            writer.append(ev.KeyRevoked(key=key.id))
        return len(keys)


def author_of_key(store: Store, key: str) -> Author:
    """Who has this key. Raises InputError(KEY_REFUSED).

    What is compared is a hash of the key, looked up by an index: the time that takes says nothing of a
    key that somebody guesses at, as its hash has nothing in common with that of a near one.
    """
    digest = hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()
    with store.read() as session:
        found = session.scalar(select(Key).where(Key.sha256 == digest))
        if found is None or not secrets.compare_digest(found.sha256, digest):
            raise InputError(Code.KEY_REFUSED, "this API key is not known; ask the organiser")
        if found.revoked_at is not None:
            raise InputError(Code.KEY_REFUSED, "this API key was revoked; ask for a new one")
        author = session.get_one(Author, found.author_id)
        session.expunge(author)
        return author


def invalidate(store: Store, submission: int, why: str) -> None:
    """Take a submission off the board; it stays readable, with the reason.

    Raises InputError(UNKNOWN_ID, NOT_NOW).
    """
    with store.write() as writer:
        row = submission_of(writer.session, submission)
        if row.state in (SubmissionState.INVALIDATED, SubmissionState.CANCELLED):
            raise InputError(Code.NOT_NOW, f"submission {submission} is {row.state} already")
        if row.state in (SubmissionState.QUEUED, SubmissionState.RUNNING):
            raise InputError(
                Code.NOT_NOW, f"submission {submission} is {row.state}: cancel it instead"
            )
        writer.append(ev.SubmissionInvalidated(submission=submission, why=printable(why)))


def release(store: Store, submission: int, why: str) -> None:
    """Let what is held, or was invalidated, be ranked; or be compared with again, where an alarm stopped
    that. Raises InputError(UNKNOWN_ID, NOT_NOW).
    """
    with store.write() as writer:
        row = submission_of(writer.session, submission)
        out = row.state in (SubmissionState.HELD, SubmissionState.INVALIDATED)
        judged = row.state == SubmissionState.JUDGED
        if not out and not (judged and pairs_stopped(writer.session, submission)):
            raise InputError(
                Code.NOT_NOW,
                f"submission {submission} is {row.state}: neither held nor invalidated, and no alarm "
                "stops its comparisons",
            )
        writer.append(ev.SubmissionReleased(submission=submission, why=printable(why)))


def the_season(session: Session, name: str | None = None, now: float | None = None) -> Season:
    """The season of that name; without one the only one that runs, or else that will, or the newest.

    Args:
        session: of the store.
        name: of the season.
        now: seconds since 1970; None is by this machine's clock.

    Raises InputError: UNKNOWN_ID: there is none; BAD_ARGUMENT: several are open, so it has to be named.
    """
    seasons = list(session.scalars(select(Season).order_by(Season.id)))
    if name is not None:
        found = [season for season in seasons if season.name == name]
    else:
        now = time.time() if now is None else now
        open_ones = [season for season in seasons if not season.over(now)]
        running = [season for season in open_ones if season.starts_at <= now]
        found = running or open_ones or seasons[-1:]
    if not found:
        missing = "yet: `validator season new` opens one" if name is None else quoted(name)
        raise InputError(Code.UNKNOWN_ID, f"there is no season {missing}")
    if len(found) > 1:
        names = ", ".join(season.name for season in found)
        raise InputError(
            Code.BAD_ARGUMENT, f"several seasons are open ({names}): say which, with --season"
        )
    session.expunge(found[0])
    return found[0]


def season_named(session: Session, name: str) -> Season:
    """Raises InputError(UNKNOWN_ID)."""
    season = session.scalar(select(Season).where(Season.name == name))
    if season is None:
        raise InputError(Code.UNKNOWN_ID, f"there is no season {quoted(name)}")
    return season


def author_named(session: Session, name: str) -> Author:
    """Raises InputError(UNKNOWN_ID)."""
    author = session.scalar(select(Author).where(Author.name == name))
    if author is None:
        raise InputError(
            Code.UNKNOWN_ID,
            f"there is no author {quoted(name)}: `validator author add` makes one",
        )
    return author


def submission_of(session: Session, number: int) -> Submission:
    """Raises InputError(UNKNOWN_ID)."""
    row = session.get(Submission, number) if 0 < number <= MAX_NUMBER else None
    if row is None:
        raise InputError(Code.UNKNOWN_ID, f"there is no submission {number}")
    return row


def check_name(name: str, of: str) -> None:
    """Raises InputError(BAD_ARGUMENT) for a name that would be hard to type, or to tell from another."""
    if not NAME.fullmatch(name):
        raise InputError(
            Code.BAD_ARGUMENT,
            f"{quoted(name)} is no name of {'an' if of == 'author' else 'a'} {of}: letters, digits, "
            "dot, hyphen and underscore, at most 64, beginning with a letter or digit",
        )


def _issue(writer: Writer, author: int) -> str:
    key = KEY_PREFIX + secrets.token_urlsafe(KEY_BYTES)
    writer.append(
        ev.KeyIssued(
            key=writer.next_id(Key),
            author=author,
            sha256=hashlib.sha256(key.encode()).hexdigest(),
            prefix=key[:SHOWN_OF_KEY],
        )
    )
    return key
