"""For machines that watch: does the process live, can it work, and how is the queue?"""

import json
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import func, select
from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from harness.board.people import workers_view
from harness.board.states import EvaluationState
from harness.board.store import Store, last_event_of
from harness.board.tables import Evaluation, EventRow
from harness.board.views import result_document
from harness.errors import TrainjudgeError
from harness.fleet.seen import NodeLine, node_lines
from harness.web.pages import site

FINISHED: Final = "evaluation_finished"


def healthz(request: Request) -> Response:
    """The process answers."""
    return JSONResponse({"status": "ok"})


def readyz(request: Request) -> Response:
    """The store answers too."""
    try:
        last = site(request).store.last_event()
    except TrainjudgeError as error:
        return JSONResponse({"code": error.code, "message": error.message}, 503)
    return JSONResponse({"status": "ok", "last_event": last})


def metrics(request: Request) -> Response:
    registry = request.app.state.registry
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


def make_registry(store: Store) -> CollectorRegistry:
    """A registry of our own: nothing else of this process stands in it."""
    registry = CollectorRegistry()
    registry.register(_StoreCollector(store))
    return registry


class _StoreCollector(Collector):
    """Asks the store when it is asked. Counts of what is finished go on from the last time."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._seen: int | None = None
        self._finished: Counter[tuple[str, str]] = Counter()
        self._phases: Counter[str] = Counter()

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        now = self._store.now()
        with self._lock, self._store.read() as session:
            self._count(session)
            states = dict(
                session.execute(
                    select(Evaluation.state, func.count())
                    .where(Evaluation.state.in_([EvaluationState.QUEUED, EvaluationState.RUNNING]))
                    .group_by(Evaluation.state)
                ).all()
            )
            oldest = session.scalar(
                select(func.min(Evaluation.queued_at)).where(
                    Evaluation.state == EvaluationState.QUEUED
                )
            )
            alive = sum(worker.alive for worker in workers_view(session, now))
            nodes = node_lines(session, now)
            finished, phases = self._finished.copy(), self._phases.copy()
        yield _gauge(
            "queue_length", "Evaluations that wait.", states.get(EvaluationState.QUEUED, 0)
        )
        yield _gauge(
            "queue_age_seconds",
            "How long the oldest of them waits.",
            0.0 if oldest is None else max(0.0, now - oldest),
        )
        yield _gauge(
            "evaluations_running",
            "Evaluations that are judged now.",
            states.get(EvaluationState.RUNNING, 0),
        )
        yield _gauge("workers_alive", "Workers that were heard from lately.", alive)
        ended = CounterMetricFamily(
            "trainjudge_evaluations", "Evaluations that have ended.", labels=("verdict", "code")
        )
        for (verdict, code), count in sorted(finished.items()):
            ended.add_metric((verdict, code), count)
        yield ended
        spent = CounterMetricFamily(
            "trainjudge_phase_seconds",
            "Wall time of evaluations that ended since this server started.",
            labels=("phase",),
        )
        for phase, seconds in sorted(phases.items()):
            spent.add_metric((phase,), seconds)
        yield spent
        yield from _of_nodes(nodes)

    def _count(self, session: Session) -> None:
        """All of them once, later only what is new: a scrape must not read a million rows."""
        last = last_event_of(session)
        if self._seen is None:
            rows = session.execute(
                select(Evaluation.verdict, Evaluation.code, func.count())
                .where(Evaluation.verdict.is_not(None))
                .group_by(Evaluation.verdict, Evaluation.code)
            )
            self._finished.update({(str(v), str(c)): count for v, c, count in rows})
        else:
            ended = session.execute(
                select(EventRow.evaluation, EventRow.body).where(
                    EventRow.id > self._seen, EventRow.kind == FINISHED
                )
            )
            for evaluation, body in ended:
                event = json.loads(body)
                self._finished[event["verdict"], event["code"]] += 1
                result = result_document(session, evaluation or 0)
                for phase in result.phases if result is not None else ():
                    self._phases[phase.name] += phase.seconds  # type: ignore[assignment]
        self._seen = last


def _gauge(name: str, words: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"trainjudge_{name}", words, value=value)


def _of_nodes(nodes: Sequence[NodeLine]) -> Iterator[Metric]:
    """What the page of the fleet shows; nothing where there is none."""
    alive = GaugeMetricFamily(
        "trainjudge_node_alive", "Whether a node was heard from lately.", labels=("host",)
    )
    excluded = GaugeMetricFamily(
        "trainjudge_node_excluded",
        "Whether canaries took a node out of a benchmark.",
        labels=("host", "benchmark"),
    )
    canary = GaugeMetricFamily(
        "trainjudge_node_canary_timestamp_seconds",
        "When a node's last canary was judged.",
        labels=("host", "benchmark"),
    )
    for node in nodes:
        alive.add_metric((node.host,), bool(node.doing))
        out = {benchmark for benchmark, _ in node.excluded}
        judged = {benchmark: at for benchmark, at, _ in node.canaries}
        for benchmark in sorted(out | judged.keys()):
            excluded.add_metric((node.host, benchmark), benchmark in out)
        for benchmark, at in sorted(judged.items()):
            canary.add_metric((node.host, benchmark), at)
    if nodes:
        yield from (alive, excluded, canary)


ROUTES: Final = [
    Route("/healthz", healthz),
    Route("/readyz", readyz),
    Route("/metrics", metrics),
]
