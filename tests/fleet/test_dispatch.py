"""Real raylets, a stand-in for the judge: every submission ends with the right verdict, none twice."""

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from harness.board.maintenance import check
from harness.board.rule import ScoringRule
from harness.board.stopping import Stop
from harness.board.store import Store
from harness.board.submit import Handed, cancel, submit
from harness.board.worker import Job
from harness.fleet.canaries import Canary, record
from harness.fleet.dispatch import Benchmark, Dispatcher
from tests.board.conftest import Raw
from tests.board.examples import HPARAMS_SHA256, board_with, rejected_result, train_file
from tests.board.processes import wait_until
from tests.fleet.nodes import VERSION, Nodes

#: What differs between databases is tested without Ray; once with it on both.
sqlite_alone = pytest.mark.parametrize("database", ["sqlite"], indirect=True)


@dataclass
class Competition:
    """A board, and dispatchers of this process."""

    store: Store
    nodes: Nodes
    raw: Raw
    said: list[str] = field(default_factory=list)

    def hand_in(self, what: str, seconds: float = 0.0) -> int:
        number = len(self.raw("SELECT id FROM submissions")) + 1
        source = f"# judge: {what} {seconds}\n".encode() + train_file(number)
        return submit(self.store, Handed("ada", "train.py", source))

    def dispatch(self, stop: Stop | None = None, once: bool = True) -> int:
        from harness.fleet.cluster import Cluster

        cluster = Cluster(self.nodes.address)
        try:
            job = Job(Path("hparams.json"), HPARAMS_SHA256, once=once)
            benchmark = Benchmark(HPARAMS_SHA256, "auto")
            return Dispatcher(
                self.store, cluster, job, benchmark, VERSION, stop or Stop(600), self.said.append
            ).run()
        finally:
            cluster.close()

    def states(self) -> list[tuple[str, str | None]]:
        rows = self.raw("SELECT state, verdict FROM submissions ORDER BY id")
        return [(state, verdict) for state, verdict in rows]

    def causes(self) -> list[str]:
        rows = self.raw("SELECT body FROM events WHERE kind = 'evaluation_given_back' ORDER BY id")
        return [json.loads(body)["cause"] for (body,) in rows]

    def runs_on(self) -> list[str]:
        """Machines that judge at this moment."""
        rows = self.raw("SELECT worker FROM evaluations WHERE state = 'running' AND progress <> ''")
        return [worker.split()[0] for (worker,) in rows]


@pytest.fixture
def competition(store: Store, nodes: Nodes, raw: Raw) -> Iterator[Competition]:
    board_with(store, "ada", rule=ScoringRule(max_attempts=2, pairs=0))
    made = Competition(store, nodes, raw)
    yield made
    assert check(store).problems == ()
    finished = raw("SELECT evaluation FROM events WHERE kind = 'evaluation_finished'")
    assert len(finished) == len(set(finished)), "something was judged twice"


class Beside:
    """A dispatcher in a thread, to see what it does meanwhile."""

    def __init__(self, competition: Competition, stop: Stop, once: bool = True) -> None:
        self.finished: int | None = None

        def run() -> None:
            self.finished = competition.dispatch(stop, once)

        self.thread = threading.Thread(target=run)
        self.thread.start()

    def end(self) -> int:
        self.thread.join(120)
        assert self.finished is not None
        return self.finished


def gone(process: int) -> Callable[[], bool]:
    return lambda: not Path(f"/proc/{process}").exists()


def test_nodes_judge_at_the_same_time_and_each_of_them_one_at_a_time(
    competition: Competition,
) -> None:
    for name in ("left", "right"):
        competition.nodes.add(name)
    for what in ("accepted", "rejected", "error", "accepted", "crash"):
        competition.hand_in(what, 1.0)
    assert competition.dispatch() == 5  # our own failure once more
    assert competition.states() == [
        ("judged", "accepted"),
        ("judged", "rejected"),
        ("failed", "error"),
        ("judged", "accepted"),
        ("failed", None),
    ]
    assert set(competition.causes()) == {
        "the judge ended with status 3 and no result: it says this last"
    }
    for name in ("left", "right"):
        marks = [event for event, _ in competition.nodes.marks(name)]
        assert marks == ["starts", "ends"] * (len(marks) // 2)
        assert len(marks) >= 2
    machines = competition.raw("SELECT DISTINCT machine FROM evaluations")
    assert len(machines) == 2
    assert competition.raw("SELECT * FROM workers") == []


@sqlite_alone
def test_what_no_node_is_for_waits(competition: Competition) -> None:
    nodes = competition.nodes
    nodes.add("other", gpu="NVIDIA A100")
    nodes.add("older", version="0.0.9")
    nodes.add("open", level="none")
    competition.hand_in("accepted")
    assert competition.dispatch() == 0
    assert competition.states() == [("queued", None)]
    nodes.add("right")
    assert competition.dispatch() == 1


@sqlite_alone
def test_a_node_that_is_killed_gives_back_what_it_had_as_our_failure(
    competition: Competition,
) -> None:
    nodes = competition.nodes
    nodes.add("left")
    competition.hand_in("accepted", 5.0)
    beside = Beside(competition, Stop(600))
    wait_until(competition.runs_on)
    ((_, judge),) = nodes.marks("left")
    nodes.add("right")
    nodes.kill("left")
    assert beside.end() == 1
    assert competition.states() == [("judged", "accepted")]
    assert competition.causes() == ["its node died"]
    assert [event for event, _ in nodes.marks("right")] == ["starts", "ends"]
    wait_until(gone(judge))
    assert competition.raw("SELECT starts FROM evaluations") == [(2,)]


@pytest.mark.slow
@sqlite_alone
def test_a_node_that_is_drained_finishes_what_it_has_and_takes_nothing_more(
    competition: Competition,
) -> None:
    nodes = competition.nodes
    nodes.add("left")
    for _ in range(2):
        competition.hand_in("accepted", 4.0)
    stop = Stop(600)
    beside = Beside(competition, stop, once=False)
    wait_until(competition.runs_on)
    directory = nodes.directory()
    (node,) = directory.nodes()
    directory.drain(node)
    wait_until(lambda: ("judged", "accepted") in competition.states())
    wait_until(lambda: not directory.nodes())
    assert competition.states() == [("judged", "accepted"), ("queued", None)]
    nodes.add("right")
    wait_until(lambda: competition.runs_on() == ["right"])
    stop.request()
    assert beside.end() == 2


@pytest.mark.slow
@sqlite_alone
def test_asked_twice_a_dispatcher_gives_everything_back_at_once(competition: Competition) -> None:
    competition.nodes.add("left")
    competition.hand_in("hang", 600)
    stop = Stop(600)
    beside = Beside(competition, stop)
    wait_until(competition.runs_on)
    stop.request()
    stop.request()
    assert beside.end() == 0
    assert competition.states() == [("queued", None)]
    assert competition.causes() == ["the worker was asked to end"]
    assert [event for event, _ in competition.nodes.marks("left")] == ["starts", "ends"]


@pytest.mark.slow
@sqlite_alone
def test_what_is_cancelled_is_ended_on_its_node(
    competition: Competition, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.fleet.remote.HEARTBEAT_SECONDS", 0.5)
    competition.nodes.add("left")
    first = competition.hand_in("hang", 600)
    competition.hand_in("accepted")
    beside = Beside(competition, Stop(600))
    wait_until(competition.runs_on)
    cancel(competition.store, first)
    assert beside.end() == 1
    assert competition.states() == [("cancelled", None), ("judged", "accepted")]
    assert [event for event, _ in competition.nodes.marks("left")] == ["starts", "ends"] * 2


@pytest.mark.slow
@sqlite_alone
def test_a_node_that_cannot_judge_is_left_alone_and_costs_nobody_a_try(
    competition: Competition,
) -> None:
    competition.nodes.add("left", judge=("/no/such/program",))
    competition.hand_in("accepted")
    assert competition.dispatch() == 0
    assert competition.states() == [("queued", None)]
    assert competition.causes() == ["its worker cannot run a judge: No such file or directory"]
    assert any("nothing for 10 min" in line for line in competition.said)


@pytest.mark.slow
@sqlite_alone
def test_a_node_that_is_excluded_gives_back_what_it_has_and_gets_nothing_more(
    competition: Competition,
) -> None:
    competition.nodes.add("left")
    competition.hand_in("hang", 600)
    stop = Stop(600)
    beside = Beside(competition, stop)
    wait_until(competition.runs_on)
    canary = Canary("train.py", b"pass", 2)
    record(competition.store, canary, HPARAMS_SHA256, "left", rejected_result())
    assert beside.end() == 0
    assert competition.states() == [("queued", None)]
    assert competition.causes() == ["the worker was asked to end"]
    assert competition.dispatch() == 0
    assert len(competition.nodes.marks("left")) == 2
