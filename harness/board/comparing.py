"""The paired test that a new leader has to pass: what is owed is claimed, run in turns, and written down.

The ranking says which comparisons are owed (`Ranking.pending`). A worker claims one with a lease, as it
does an evaluation, so that two workers never make the same one and nothing else is timed on its machine.
"""

from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass

from sqlalchemy import delete, func, select

from harness.board import events as ev
from harness.board.leaderboard import Leaderboard
from harness.board.pairs import Comparison, Side
from harness.board.queue import (
    LEASE_SECONDS,
    LeaseLostError,
    WorkerId,
    is_gone,
    machine_is_timing,
    mark_seen,
)
from harness.board.rank import Ranking
from harness.board.rule import ScoringRule
from harness.board.store import Store
from harness.board.tables import Claim, EventRow, Season, Source, Submission
from harness.board.writer import Writer
from harness.protocol.text import printable


@dataclass(frozen=True)
class Claimed:
    """A comparison that is this worker's, as long as it renews the lease.

    Attributes:
        season: its number.
        contender, leader: submissions, by number.
        files: of both sides, name and source.
        world_size: ranks.
        rule: of the season.
    """

    season: int
    contender: int
    leader: int
    files: dict[Side, tuple[str, bytes]]
    world_size: int
    rule: ScoringRule
    worker: WorkerId


def claim(
    store: Store,
    leaderboard: Leaderboard,
    worker: WorkerId,
    hparams_sha256: str,
    seasons: Collection[int] | None = None,
) -> Claimed | None:
    """The first comparison that is owed in a season of this benchmark, or None.

    Those that failed by our fault come last, whichever worker it was: one that always fails must not
    keep the others waiting.
    """
    for season in _seasons(store, hparams_sha256):
        if seasons is not None and season not in seasons:
            continue
        for contender, leader in _failed_last(store, leaderboard.ranking(season, fresh=True)):
            claimed = _claim(store, worker, season, contender, leader)
            if claimed is not None:
                return claimed
    return None


def owed(store: Store, leaderboard: Leaderboard, hparams_sha256: str) -> bool:
    """Whether any comparison of this benchmark is owed, claimed or not."""
    seasons = _seasons(store, hparams_sha256)
    return any(leaderboard.ranking(season, fresh=True).pending for season in seasons)


def _seasons(store: Store, hparams_sha256: str) -> list[int]:
    """Those of a benchmark; to rank one that needs no comparisons would be for nothing."""
    with store.read() as session:
        known = session.scalars(
            select(Season).where(Season.hparams_sha256 == hparams_sha256).order_by(Season.id)
        )
        return [season.id for season in known if season.scoring_rule.pairs]


def renew(store: Store, claimed: Claimed, pairs: int) -> None:
    """Say that the worker lives. Raises LeaseLostError."""
    with store.write() as writer:
        _mine(writer, claimed).lease_until = writer.now + LEASE_SECONDS
        doing = f"comparing {claimed.contender} with {claimed.leader}, {pairs} pairs so far"
        mark_seen(writer, claimed.worker, doing)


def finish(store: Store, claimed: Claimed, found: Comparison) -> None:
    """Write down what came of it. Raises LeaseLostError."""
    with store.write() as writer:
        writer.session.delete(_mine(writer, claimed))
        if found.rejected == "leader":
            _leader_failed(writer, claimed, found)
        else:
            _compared(writer, claimed, found)


def failed(store: Store, claimed: Claimed, cause: str) -> None:
    """Not made, by our fault: those that are owed besides it are made before it is tried again."""
    with store.write() as writer, suppress(LeaseLostError):
        writer.session.delete(_mine(writer, claimed))
        _failed(writer, claimed, cause, ours=True)


def _compared(writer: Writer, claimed: Claimed, found: Comparison) -> None:
    writer.append(
        ev.Compared(
            season=claimed.season,
            contender=claimed.contender,
            leader=claimed.leader,
            ratios=tuple(pair.ratio for pair in found.pairs),
            ratio=found.ratio if found.ratio is not None else 0.0,
            low=found.low,
            faster=found.faster,
        ),
        submission=claimed.contender,
    )
    if found.rejected is not None:
        alarm = ev.AlarmRaised(submission=claimed.contender, text=_rejected(found))
        writer.append(alarm)


def _leader_failed(writer: Writer, claimed: Claimed, found: Comparison) -> None:
    """The contender has lost nothing by it. But whom a leader fails against would be made to wait by the
    next run as well, and by each after it: so there is none before the organiser has looked.
    """
    cause = f"a run of submission {claimed.leader} was rejected ({found.code})"
    _failed(writer, claimed, cause, ours=False)
    text = f"{_rejected(found)}. Nothing is compared with it until it is invalidated or released"
    writer.append(ev.AlarmRaised(submission=claimed.leader, text=text, stops_pairs=True))


def _failed(writer: Writer, claimed: Claimed, cause: str, *, ours: bool) -> None:
    writer.append(
        ev.ComparisonFailed(
            season=claimed.season,
            contender=claimed.contender,
            leader=claimed.leader,
            cause=printable(cause),
            ours=ours,
        ),
        submission=claimed.contender,
    )


def _rejected(found: Comparison) -> str:
    said = printable(found.message).rstrip(".")
    return f"accepted before, and rejected in a paired run ({found.code}): {said}"


def let_go(store: Store, claimed: Claimed) -> None:
    """Not made: somebody else may, at once."""
    with store.write() as writer, suppress(LeaseLostError):
        writer.session.delete(_mine(writer, claimed))


def _claim(
    store: Store, worker: WorkerId, season: int, contender: int, leader: int
) -> Claimed | None:
    with store.write() as writer:
        session = writer.session
        _forget_the_dead(writer, worker)
        taken = session.get(Claim, (contender, leader)) is not None
        if taken or machine_is_timing(session, worker.machine, writer.now):
            return None
        session.add(
            Claim(
                contender_id=contender,
                leader_id=leader,
                worker=worker.name,
                machine=worker.machine,
                lease_until=writer.now + LEASE_SECONDS,
            )
        )
        row = session.get_one(Season, season)
        return Claimed(
            season=season,
            contender=contender,
            leader=leader,
            files={"contender": _file(writer, contender), "leader": _file(writer, leader)},
            world_size=row.world_size,
            rule=row.scoring_rule,
            worker=worker,
        )


def _failed_last(store: Store, ranking: Ranking) -> list[tuple[int, int]]:
    """What is owed, best first; then those that failed, the one whose failure is longest ago first."""
    owed = ranking.pending
    if len(owed) < 2:
        return list(owed)
    newest = (
        select(func.max(EventRow.id))
        .where(
            EventRow.submission.in_([contender for contender, _ in owed]),
            EventRow.kind == "comparison_failed",
        )
        .group_by(EventRow.submission)
    )
    failures: dict[tuple[int, int], int] = {}
    with store.read() as session:
        for row in session.scalars(select(EventRow).where(EventRow.id.in_(newest))):
            event = ev.Stamped.body.validate_json(row.body)
            if isinstance(event, ev.ComparisonFailed) and event.ours:
                failures[event.contender, event.leader] = row.id
    return sorted(owed, key=lambda pair: failures.get(pair, 0))


def _forget_the_dead(writer: Writer, worker: WorkerId) -> None:
    writer.session.execute(delete(Claim).where(Claim.lease_until <= writer.now))
    for row in writer.session.scalars(select(Claim).where(Claim.machine == worker.machine)):
        if is_gone(row.worker):
            writer.session.delete(row)
    writer.session.flush()


def _file(writer: Writer, submission: int) -> tuple[str, bytes]:
    row = writer.session.get_one(Submission, submission)
    return row.file_name, writer.session.get_one(Source, row.source_sha256).content


def _mine(writer: Writer, claimed: Claimed) -> Claim:
    row = writer.session.get(Claim, (claimed.contender, claimed.leader))
    if row is None or row.worker != claimed.worker.name:
        raise LeaseLostError(f"somebody else compares {claimed.contender} with {claimed.leader}")
    return row
