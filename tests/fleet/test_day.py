"""A day of a fleet on real parts: raylets, PostgreSQL, evaluations; and what happens to machines in a year.

`TRAINJUDGE_FLEET_DAY` says how many submissions it has, 12 by default. The short form, in which evaluations
are a stand-in's, is in `test_deaths`.
"""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.benchmark.hparams import LoadedHparams
from harness.benchmark.preload import preload
from harness.benchmark.snapshot import Snapshot
from harness.board.maintenance import check
from harness.board.organise import SeasonPlan, add_author, open_season
from harness.board.rule import ScoringRule
from harness.board.store import Store, open_store
from harness.errors import Verdict
from tests.board import postgres
from tests.board.conftest import Raw
from tests.edited import differing
from tests.fleet.nodes import Nodes
from tests.fleet.real import DISPATCHER, hand_in, really_judges, started
from tests.judging import Expected, expected_of
from tests.project import ROOT

pytest_plugins = ("tests.judging",)
pytestmark = [pytest.mark.slow, pytest.mark.timeout(7_200)]

SUBMISSIONS = int(os.environ.get("TRAINJUDGE_FLEET_DAY", "12"))
#: The whole day; on two cores 12 submissions took seven minutes.
DAY_SECONDS = 5_400.0
HOSTS = ("left", "middle", "right")
SLOW = "middle"
#: From one canary of a node to the next.
CANARY_SECONDS = 90.0
#: After which what hangs is ended; enough for whoever is slowed down on a machine that is busy besides.
RUN_SECONDS = 120
#: What is committed has to survive the end of the server.
SETTINGS = ("max_connections=200", "fsync=off", "full_page_writes=off")
FILES = ROOT / "tests" / "submissions"
RIGHT = FILES / "honest.py"
#: In turn, by the number of ranks. Those of `tests/submissions` say what has to come of them.
ALONE = (
    RIGHT,
    ROOT / "submissions" / "train_single.py",
    FILES / "skips_last_step.py",
    RIGHT,
    FILES / "scaled_lr.py",
    FILES / "legacy_names.py",
    FILES / "segfault.py",
    RIGHT,
    FILES / "half_the_rows.py",
    ROOT / "submissions" / "train_single.py",
    FILES / "writes_after_commit.py",
    FILES / "exits_rank.py",
)
PAIR = (
    ROOT / "submissions" / "train_ep.py",
    FILES / "hangs_rank.py",
    ROOT / "submissions" / "train_ddp.py",
)
#: Of so many one is for two ranks.
PAIR_EVERY = 6


@pytest.fixture(scope="module")
def everyday(quick: LoadedHparams, tmp_path_factory: pytest.TempPathFactory) -> LoadedHparams:
    """The quick benchmark for one rank."""
    changes = {"world.size": 1, "limits.run_seconds": RUN_SECONDS}
    return differing(quick, tmp_path_factory.mktemp("everyday"), changes)


@pytest.fixture(scope="module")
def server() -> Iterator[postgres.Server]:
    with postgres.running(postgres.required(), SETTINGS) as started:
        yield started


@pytest.fixture
def url(server: postgres.Server) -> str:
    return server.create("day")


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    opened = open_store(url)
    yield opened
    opened.close()


def file_of(number: int) -> tuple[Path, str]:
    """What is handed in, and to which season."""
    if number % PAIR_EVERY == PAIR_EVERY - 1:
        return PAIR[number // PAIR_EVERY % len(PAIR)], "pair"
    return ALONE[(number - number // PAIR_EVERY) % len(ALONE)], "alone"


def wanted(file: Path) -> Expected:
    """What has to come of it."""
    if file.parent == FILES:
        return expected_of(file)
    return Expected(Verdict.ACCEPTED, (), 0, "")


@dataclass
class Day:
    """The fleet, and what has been handed in."""

    store: Store
    url: str
    nodes: Nodes
    raw: Raw
    benchmark: LoadedHparams
    snapshot: Snapshot
    log: Path
    files: list[Path]
    until: float
    running: "subprocess.Popen[bytes] | None" = None

    def begin(self) -> None:
        rule = ScoringRule(
            isolation=("none",), pairs=0, near_copy=1.0, submissions_per_day=10 * SUBMISSIONS
        )
        for name, world in (("alone", 1), ("pair", 2)):
            plan = SeasonPlan(
                name, self.benchmark.sha256, self.benchmark.hparams.name, world, "", rule
            )
            open_season(self.store, plan)
        add_author(self.store, "ada")
        for number in range(SUBMISSIONS):
            self.hand_in(*file_of(number))
        for host in HOSTS:
            self.join(host)

    def hand_in(self, file: Path, season: str) -> None:
        self.files.append(file)
        assert hand_in(self.store, file, season, len(self.files)) == len(self.files)

    def join(self, host: str) -> None:
        really_judges(self.nodes, host, self.benchmark, self.snapshot)

    @contextmanager
    def dispatched(self) -> Iterator["subprocess.Popen[bytes]"]:
        """While a dispatcher is at work."""
        canary = ("--canary", str(RIGHT), "--canary-hours", str(CANARY_SECONDS / 3_600))
        where = ("--fleet", self.nodes.address, "--store", self.url)
        benchmark = ("--hparams", str(self.benchmark.path))
        with started(DISPATCHER, *where, *benchmark, *canary, log=self.log) as self.running:
            yield self.running

    def wait(self, what: Callable[[], object]) -> None:
        """Until that is true; fails where the day, or the dispatcher, is over before."""
        while not what():
            assert self.running is not None
            assert self.running.poll() is None, self.log.read_text()
            assert time.monotonic() < self.until, f"the day is over\n{self.log.read_text()}"
            time.sleep(0.25)

    def finish_more(self, count: int) -> None:
        """So many more evaluations come to an end, or nothing waits any more."""
        before = len(self.events("evaluation_finished"))
        self.wait(
            lambda: len(self.events("evaluation_finished")) >= before + count or not self.waiting()
        )

    def waiting(self) -> int:
        """Submissions without a verdict."""
        ((count,),) = self.raw(
            "SELECT count(*) FROM submissions WHERE state IN ('queued', 'running')"
        )
        return int(count)

    def events(self, kind: str) -> list[tuple[int, float, dict[str, object]]]:
        """Of that kind: number of the submission, when, and what it says."""
        rows = self.raw(
            "SELECT submission, at, body FROM events WHERE kind = :kind ORDER BY id", kind=kind
        )
        return [(number, at, json.loads(body)) for number, at, body in rows]

    def times_now(self, host: str) -> bool:
        """Whether a submission is timed there."""
        return bool(
            self.raw(
                "SELECT 1 FROM evaluations WHERE state = 'running' AND progress LIKE :timed "
                "AND worker LIKE :host",
                timed="%timed%",
                host=f"{host} node %",
            )
        )


@pytest.fixture
def day(
    store: Store, url: str, nodes: Nodes, raw: Raw, everyday: LoadedHparams, tmp_path: Path
) -> Day:  # fmt: skip
    until = time.monotonic() + DAY_SECONDS
    snapshot = preload(everyday)
    return Day(store, url, nodes, raw, everyday, snapshot, tmp_path / "log", [], until)


def test_whatever_happens_in_a_day_every_submission_ends_with_its_verdict_and_none_twice(
    day: Day, server: postgres.Server
) -> None:
    day.begin()
    step = max(1, SUBMISSIONS // 10)
    with day.dispatched() as dispatcher:
        day.wait(lambda: day.times_now("left"))
        day.nodes.kill("left")
        day.join("left")
        day.finish_more(step)
        server.end_at_once()
        time.sleep(3)  # nothing answers meanwhile
        server.start()
        day.finish_more(step)
        day.wait(lambda: any(day.times_now(host) for host in HOSTS))
        dispatcher.kill()
    with day.dispatched() as dispatcher:
        day.finish_more(step)
        slowed_down(day)
        day.wait(lambda: not day.waiting())
        dispatcher.send_signal(signal.SIGTERM)
        assert dispatcher.wait(120) == 0, day.log.read_text()
    check_verdicts(day)
    check_what_the_slow_node_did(day)
    check_causes(day)
    assert check(day.store).problems == ()


def slowed_down(day: Day) -> None:
    """A neighbour comes to a node that was good; it has something to judge until its canaries find it."""
    day.wait(lambda: any(body["host"] == SLOW for _, _, body in day.events("canary_judged")))
    (day.nodes.folder / f"busy-{SLOW}").touch()

    def found() -> bool:
        if day.waiting() < 2 * len(HOSTS):
            day.hand_in(RIGHT, "alone")
        return bool(day.events("node_excluded"))

    day.wait(found)


def check_verdicts(day: Day) -> None:
    """The right one for each submission, from one evaluation that counts."""
    rows = day.raw("SELECT id, state, verdict FROM submissions ORDER BY id")
    expected = [wanted(file) for file in day.files]
    found = [(number, state, Verdict(verdict)) for number, state, verdict in rows]
    assert found == [(number, "judged", each.verdict) for number, each in enumerate(expected, 1)], (
        day.log.read_text()
    )
    counted = day.raw(
        "SELECT submission_id, code FROM evaluations WHERE state = 'finished' AND verdict <> 'error' "
        "ORDER BY submission_id"
    )
    assert [number for number, _ in counted] == list(range(1, len(day.files) + 1))
    for (number, code), each in zip(counted, expected, strict=True):
        assert code in each.codes or not each.codes, f"{day.files[number - 1].name}: {code}"
    finished = day.raw("SELECT evaluation FROM events WHERE kind = 'evaluation_finished'")
    assert len(finished) == len(set(finished))


def check_what_the_slow_node_did(day: Day) -> None:
    """It alone is out; what it accepted since its last canary that looked right was judged once more."""
    ((_, out_at, excluded),) = day.events("node_excluded")
    assert excluded["host"] == SLOW, excluded
    aside = {number: body for number, _, body in day.events("evaluation_set_aside")}
    since = [
        at for _, at, body in day.events("canary_judged") if body["host"] == SLOW and at < out_at
    ]
    ends = day.raw(
        "SELECT submission_id, finished_at FROM evaluations WHERE worker LIKE :slow AND verdict = 'error' "
        "AND code = 'node_unlike'",
        slow=f"{SLOW} node %",
    )
    assert {number for number, _ in ends} == set(aside)
    assert aside, "it judged nothing while it was slow"
    assert min(at for _, at in ends) > min(since)
    kept = day.raw(
        "SELECT finished_at FROM evaluations WHERE worker LIKE :slow AND verdict = 'accepted'",
        slow=f"{SLOW} node %",
    )
    assert all(at < min(other for _, other in ends) for (at,) in kept)
    again = day.raw(
        "SELECT worker FROM evaluations WHERE state = 'finished' AND verdict <> 'error' "
        "AND submission_id = ANY(:which)",
        which=list(aside),
    )
    assert len(again) == len(aside)
    assert not any(worker.startswith(SLOW) for (worker,) in again)


def check_causes(day: Day) -> None:
    """What happened did happen to somebody."""
    causes = {str(body["cause"]) for _, _, body in day.events("evaluation_given_back")}
    assert any("died" in cause or "killed" in cause for cause in causes), causes
    assert any("not heard from" in cause for cause in causes), causes
    assert "the worker waits for it" in day.log.read_text()
