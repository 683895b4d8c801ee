"""What the store knows of nodes: their canaries, who is excluded, and what follows from a canary.

It is all in events, so any dispatcher goes on where another one ended. A node is known by the name of its
host: it keeps that when it joins again.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from harness.board import events as ev
from harness.board.hardware import hardware_class
from harness.board.luck import FOR_ITS_NUMBERS
from harness.board.states import EvaluationState, SubmissionState
from harness.board.store import Store
from harness.board.submit import queue_evaluation
from harness.board.tables import Evaluation, EventRow, Season, Submission
from harness.board.writer import Writer
from harness.errors import Verdict
from harness.fleet.chart import FEWEST_NODES, Reading, Rule, review
from harness.protocol.text import one_line
from harness.result import EvaluationResult

#: Of the newest canaries; a window of a large fleet is in it many times.
CANARIES: Final = 5_000
CANARY: Final = "canary_judged"
#: However long ago: whoever is out stays out until an organiser says otherwise.
OUT_AND_IN: Final = ("node_excluded", "node_admitted")
KINDS: Final = (CANARY, *OUT_AND_IN)


@dataclass(frozen=True)
class Canary:
    """The file that every node judges, and how often.

    Attributes:
        file_name, source: the train file.
        world_size: ranks.
        runs: timed ones of each canary; two at least, or noise cannot be seen.
        every_seconds: from one to the next.
        rule: how strictly nodes are compared.
    """

    file_name: str
    source: bytes
    world_size: int
    runs: int = 4
    every_seconds: float = 6 * 3600.0
    rule: Rule = field(default_factory=Rule)

    @property
    def sha256(self) -> str:
        return sha256(self.source).hexdigest()


@dataclass(frozen=True)
class Known:
    """Of one benchmark.

    Attributes:
        excluded: hosts that judge no more, with the reason.
        last: when each host's last canary was, with its outcome in words.
        readings: accepted canaries by file and hardware class, then by host; from its last admission on.
    """

    excluded: dict[str, str]
    last: dict[str, tuple[float, str]]
    readings: dict[tuple[str, str], dict[str, list[Reading]]]


def known(session: Session, hparams_sha256: str) -> Known:
    """What the events say."""
    excluded: dict[str, str] = {}
    last: dict[str, tuple[float, str]] = {}
    readings: dict[tuple[str, str], dict[str, list[Reading]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for at, event in _events(session):
        match event:
            case ev.CanaryJudged(hparams_sha256=of) if of == hparams_sha256:
                last[event.host] = (at, f"{event.verdict}")
                if len(event.speeds) > 1:
                    of_class = readings[event.canary, event.hardware]
                    of_class[event.host].append(Reading(at, event.speeds))
            case ev.NodeExcluded(hparams_sha256=of) if of == hparams_sha256:
                excluded[event.host] = event.why
            case ev.NodeAdmitted(hparams_sha256=of) if of == hparams_sha256:
                excluded.pop(event.host, None)
                for of_class in readings.values():
                    of_class.pop(event.host, None)
    return Known(excluded, last, readings)


def newest_event(session: Session) -> int:
    """The number of the newest event about nodes: while it stays the same, so does what is known."""
    newest = select(func.max(EventRow.id)).where(
        EventRow.submission.is_(None), EventRow.kind.in_(KINDS)
    )
    return session.scalar(newest) or 0


def record(
    store: Store, canary: Canary, hparams_sha256: str, host: str, result: EvaluationResult
) -> dict[str, str]:
    """Write down a canary and what follows from it; gives who is excluded now, with the reason."""
    hardware = hardware_class(result)
    with store.write() as writer:
        before = known(writer.session, hparams_sha256)
        event = _event(canary, hparams_sha256, host, hardware, result)
        writer.append(event)
        if result.verdict is Verdict.REJECTED and (
            result.code in FOR_ITS_NUMBERS or _accepted_by_others(before, canary, hardware, host)
        ):
            why = f"it rejects the canary, which is right: {one_line(result.message)}"
            _exclude(writer, hparams_sha256, host, why, since=_last_good(before, host), all_=True)
            return {host: why}
        of_class = known(writer.session, hparams_sha256).readings.get((canary.sha256, hardware), {})
        living = {
            name: of_host for name, of_host in of_class.items() if name not in before.excluded
        }
        found = {each.node: each for each in review(living, canary.rule)}
        for name, outlier in found.items():
            _exclude(writer, hparams_sha256, name, str(outlier), outlier.good_until, all_=False)
        return {name: str(outlier) for name, outlier in found.items()}


def admit(store: Store, hparams_sha256: str, host: str, why: str) -> bool:
    """Let a node judge again; False where it is not excluded."""
    with store.write() as writer:
        if host not in known(writer.session, hparams_sha256).excluded:
            return False
        writer.append(ev.NodeAdmitted(host=host, hparams_sha256=hparams_sha256, why=one_line(why)))
        return True


def _event(
    canary: Canary, hparams_sha256: str, host: str, hardware: str, result: EvaluationResult
) -> ev.CanaryJudged:
    accepted = result.verdict is Verdict.ACCEPTED
    return ev.CanaryJudged(
        host=host,
        hardware=hardware,
        hparams_sha256=hparams_sha256,
        canary=canary.sha256,
        verdict=result.verdict,
        code=result.code,
        message=one_line(result.message),
        speeds=tuple(run.tokens_per_second for run in result.runs) if accepted else (),
    )


def _accepted_by_others(before: Known, canary: Canary, hardware: str, host: str) -> bool:
    """Whether enough other nodes of that class have accepted it.

    What ails it, as that it takes too long, is this node's then: other right files would be rejected too.
    """
    accepted = before.readings.get((canary.sha256, hardware), {}).keys()
    return len(accepted - {host} - before.excluded.keys()) >= FEWEST_NODES - 1


def _last_good(before: Known, host: str) -> float:
    good = [of_class[host][-1].at for of_class in before.readings.values() if of_class.get(host)]
    return max(good, default=0.0)


def _exclude(
    writer: Writer, hparams_sha256: str, host: str, why: str, since: float, all_: bool
) -> None:
    """Nothing more is judged there; what was since is set aside, and judged once more.

    A node of the wrong speed rejects for the right reasons: only what it accepted has to be repeated.
    """
    writer.append(ev.NodeExcluded(host=host, hparams_sha256=hparams_sha256, why=why))
    verdicts = [Verdict.ACCEPTED, Verdict.REJECTED] if all_ else [Verdict.ACCEPTED]
    judged = (
        select(Evaluation.id, Evaluation.submission_id)
        .join(Season, Season.id == Evaluation.season_id)
        .join(Submission, Submission.id == Evaluation.submission_id)
        .where(
            Season.hparams_sha256 == hparams_sha256,
            Evaluation.state == EvaluationState.FINISHED,
            Evaluation.verdict.in_(verdicts),
            Evaluation.finished_at > since,
            Evaluation.worker.startswith(f"{host} node ", autoescape=True),
            Submission.state.in_([SubmissionState.JUDGED, SubmissionState.QUEUED]),
        )
        .order_by(Evaluation.id)
    )
    told = f"judged on a node that is not like its class since: {why}"
    for evaluation, submission in writer.session.execute(judged).all():
        writer.append(ev.EvaluationSetAside(evaluation=evaluation, why=told), submission=submission)
        queue_evaluation(writer, submission, told)


def _events(session: Session) -> Iterator[tuple[float, ev.Event]]:
    rows = select(EventRow.id, EventRow.at, EventRow.body).where(EventRow.submission.is_(None))
    canaries = rows.where(EventRow.kind == CANARY).order_by(EventRow.id.desc()).limit(CANARIES)
    others = rows.where(EventRow.kind.in_(OUT_AND_IN))
    found = [row for query in (canaries, others) for row in session.execute(query)]
    for row in sorted(found, key=lambda row: row.id):
        yield row.at, ev.Stamped.body.validate_json(row.body)
