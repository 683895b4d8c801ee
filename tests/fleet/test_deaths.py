"""Whoever is killed, nothing is lost: the dispatcher as a real command, a node that joined as one."""

import os
import random
import signal
from pathlib import Path

import pytest

from harness.benchmark.hparams import LoadedHparams
from harness.benchmark.snapshot import Snapshot
from harness.board.maintenance import check
from harness.board.organise import SeasonPlan, add_author, open_season
from harness.board.rule import ScoringRule
from harness.board.store import Store
from harness.board.submit import Handed, submit
from harness.board.worker import JUDGE
from tests.board.conftest import Raw
from tests.board.examples import train_file
from tests.board.processes import wait_until
from tests.fleet.nodes import Nodes
from tests.fleet.real import command, really_judges
from tests.project import ROOT

pytestmark = pytest.mark.parametrize("database", ["sqlite"], indirect=True)


def season(store: Store, loaded: LoadedHparams, hardware: str, levels: tuple[str, ...]) -> None:
    rule = ScoringRule(isolation=levels, pairs=0)
    open_season(store, SeasonPlan("autumn", loaded.sha256, loaded.hparams.name, 2, hardware, rule))
    add_author(store, "ada")


def test_a_dispatcher_that_is_killed_loses_nothing(
    store: Store, url: str, raw: Raw, nodes: Nodes, loaded: LoadedHparams, tmp_path: Path
) -> None:
    season(store, loaded, "", ("docker",))
    nodes.add("left", loaded.sha256)
    submit(store, Handed("ada", "train.py", b"# judge: accepted 8\n" + train_file(1)))
    submit(store, Handed("ada", "train.py", b"# judge: rejected 0\n" + train_file(2)))
    words = ("dispatch", "--fleet", nodes.address, "--store", url, "--once")
    log = tmp_path / "log"
    with command(*words, log=log) as first:
        wait_until(lambda: nodes.marks("left"))
        first.kill()
        first.wait()
        ((_, judge),) = nodes.marks("left")
        wait_until(lambda: not Path(f"/proc/{judge}").exists())  # the node has ended its judge
    assert raw("SELECT state FROM evaluations WHERE id = 1") == [("running",)]
    raw("UPDATE evaluations SET lease_until = 1 WHERE id = 1")  # a minute passes
    with command(*words, log=log) as second:
        assert second.wait(120) == 0
    states = raw("SELECT state, verdict FROM submissions ORDER BY id")
    assert states == [("judged", "accepted"), ("judged", "rejected")], log.read_text()
    assert raw("SELECT starts FROM evaluations ORDER BY id") == [(2,), (1,)]
    assert raw("SELECT * FROM workers WHERE doing <> 'evaluation 1'") == []
    assert check(store).problems == ()


@pytest.mark.slow
def test_a_machine_joins_judges_for_real_and_leaves_in_good_order(
    store: Store, url: str, raw: Raw, nodes: Nodes, loaded: LoadedHparams, snapshot: Snapshot,
    tmp_path: Path,
) -> None:  # fmt: skip
    season(store, loaded, "", ("none",))
    for name in ("train_ep.py", "train_ddp.py"):
        source = (ROOT / "submissions" / name).read_bytes()
        submit(store, Handed("ada", name, source))
    directory, log = nodes.directory(), tmp_path / "log"
    with command("fleet", "join", nodes.address, "--sandbox", "none", log=log) as node:
        wait_until(lambda: directory.nodes() or node.poll() is not None)
        assert node.poll() is None, log.read_text()
        words = ("dispatch", "--fleet", nodes.address, "--store", url)
        with command(*words, log=log) as dispatcher:
            wait_until(lambda: raw("SELECT 1 FROM evaluations WHERE progress <> ''"))
            os.kill(node.pid, signal.SIGTERM)
            assert node.wait(150) == 0, log.read_text()
            assert not directory.nodes()
            states = {state for (state,) in raw("SELECT state FROM submissions")}
            assert states == {"judged", "queued"}  # what it had could finish
            dispatcher.send_signal(signal.SIGTERM)
            assert dispatcher.wait(60) == 0, log.read_text()
    assert raw("SELECT DISTINCT isolation FROM evaluations WHERE state = 'finished'") == [("none",)]
    assert check(store).problems == ()


@pytest.mark.slow
def test_whoever_is_killed_every_submission_ends_with_its_verdict_and_none_twice(
    store: Store, url: str, raw: Raw, nodes: Nodes, loaded: LoadedHparams, tmp_path: Path
) -> None:
    season(store, loaded, "", ("docker",))
    chance = random.Random(7)
    wanted = [("accepted", "rejected")[number % 3 == 0] for number in range(12)]
    for number, what in enumerate(wanted):
        source = f"# judge: {what} {chance.uniform(1, 3):.1f}\n".encode() + train_file(number)
        submit(store, Handed("ada", "train.py", source))
    names = ["left", "middle", "right"]
    for name in names:
        nodes.add(name, loaded.sha256)
    words = ("dispatch", "--fleet", nodes.address, "--store", url)
    log = tmp_path / "log"

    def starts() -> int:
        ((count,),) = raw("SELECT count(*) FROM events WHERE kind = 'evaluation_started'")
        return int(count)

    def some_more_begin() -> None:
        before = starts()
        wait_until(lambda: starts() >= before + 2 or not waiting(raw))

    for kill in ("node", "dispatcher", "node", "both", "dispatcher"):
        with command(*words, log=log) as dispatcher:
            some_more_begin()
            if kill in ("node", "both"):
                name = chance.choice(names)
                nodes.kill(name)
                nodes.add(name, loaded.sha256)
            if kill == "node":
                some_more_begin()
                dispatcher.send_signal(signal.SIGTERM)  # this one in good order
                assert dispatcher.wait(60) == 0, log.read_text()
        raw("UPDATE evaluations SET lease_until = 1 WHERE lease_until > 0")  # a minute passes
    with command(*words, log=log) as dispatcher:
        wait_until(lambda: not waiting(raw), 150)
        dispatcher.send_signal(signal.SIGTERM)
        assert dispatcher.wait(60) == 0, log.read_text()
    assert raw("SELECT state, verdict FROM submissions ORDER BY id") == [
        ("judged", what) for what in wanted
    ], log.read_text()
    finished = raw("SELECT evaluation FROM events WHERE kind = 'evaluation_finished'")
    assert len(finished) == len(set(finished)) == len(wanted)
    given_back = raw("SELECT id FROM events WHERE kind = 'evaluation_given_back'")
    assert given_back, "nobody was killed with something in hand"
    assert check(store).problems == ()


def waiting(raw: Raw) -> bool:
    return bool(raw("SELECT 1 FROM submissions WHERE state IN ('queued', 'running')"))


@pytest.mark.slow
def test_a_node_that_is_killed_in_a_real_evaluation_costs_it_nothing(
    store: Store, url: str, raw: Raw, nodes: Nodes, loaded: LoadedHparams, snapshot: Snapshot,
    tmp_path: Path,
) -> None:  # fmt: skip
    season(store, loaded, "", ("none",))
    really_judges(nodes, "left", loaded, snapshot, JUDGE)
    source = (ROOT / "submissions" / "train_ep.py").read_bytes()
    submit(store, Handed("ada", "train_ep.py", source))
    log = tmp_path / "log"
    with command(
        "dispatch", "--fleet", nodes.address, "--store", url, "--once", log=log
    ) as started:
        wait_until(lambda: raw("SELECT 1 FROM evaluations WHERE progress LIKE '%timed%'"), 120)
        really_judges(nodes, "right", loaded, snapshot, JUDGE)
        nodes.kill("left")
        assert started.wait(200) == 0, log.read_text()
    assert raw("SELECT state, verdict FROM submissions") == [("judged", "accepted")], (
        log.read_text()
    )
    assert raw("SELECT starts FROM evaluations") == [(2,)]
    ((worker,),) = raw("SELECT worker FROM evaluations")
    assert worker.startswith("right node right-")
    assert check(store).problems == ()
