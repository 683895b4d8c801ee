"""The nodes of a fleet as the store knows them: for the page, whose server reaches no head."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from harness.board.people import workers_view
from harness.board.tables import Season
from harness.fleet.canaries import known
from harness.protocol.text import one_line
from harness.records import Record


class NodeLine(Record):
    """One host.

    Attributes:
        doing: what its worker said last; empty: none was heard from lately.
        canaries: of each benchmark by name: when the last one was, and its outcome.
        excluded: of each benchmark that it judges no more, why.
    """

    host: str
    seen_at: float | None
    doing: str
    canaries: tuple[tuple[str, float, str], ...]
    excluded: tuple[tuple[str, str], ...]


def node_lines(session: Session, now: float) -> tuple[NodeLine, ...]:
    """All hosts that a dispatcher works for, or that ever judged a canary, by name."""
    workers = {
        host: worker
        for worker in reversed(workers_view(session, now))
        if (host := host_of(worker.name))
    }
    benchmarks = {
        season.hparams_sha256: season.benchmark
        for season in session.scalars(select(Season).order_by(Season.id))
    }
    of_benchmarks = {name: known(session, digest) for digest, name in benchmarks.items()}
    hosts = set(workers).union(*(each.last for each in of_benchmarks.values()))
    return tuple(
        NodeLine(
            host=one_line(host),
            seen_at=workers[host].seen_at if host in workers else None,
            doing=workers[host].doing if host in workers and workers[host].alive else "",
            canaries=tuple(
                (name, *each.last[host])
                for name, each in of_benchmarks.items()
                if host in each.last
            ),
            excluded=tuple(
                (name, each.excluded[host])
                for name, each in of_benchmarks.items()
                if host in each.excluded
            ),
        )
        for host in sorted(hosts)
    )


def host_of(worker: str) -> str:
    """Of a worker for a node, as `dispatch.worker_of` names it; empty for another one."""
    host, _, rest = worker.partition(" ")
    return host if rest.startswith("node ") else ""
