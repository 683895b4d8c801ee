"""What follows from canaries, in a store: who is excluded, and what is judged once more."""

import json

import numpy as np
import pytest

from harness.board.leases import Leases
from harness.board.maintenance import check
from harness.board.queue import WorkerId
from harness.board.stopping import Stop
from harness.board.store import Store
from harness.errors import Code
from harness.fleet import canaries
from harness.fleet.canaries import Canary, admit, known, record
from harness.fleet.duty import CanaryDuty
from harness.fleet.remote import NodePlace
from harness.fleet.reports import Ended, Order, Said
from harness.result import EvaluationResult
from tests.board.conftest import Raw
from tests.board.examples import (
    HPARAMS_SHA256,
    accepted_result,
    board_with,
    hand_in,
    judge_next,
    rejected_result,
)
from tests.fleet.test_remote import Task

CANARY = Canary("train.py", b"pass", world_size=2)
HOSTS = ("left", "middle", "right")
RANDOM = np.random.default_rng(0)


def on(host: str) -> WorkerId:
    return WorkerId(f"{host} node {host}-12ab of somewhere else 1 2", f"kernel of {host}")


def canary(speed: float = 1.0) -> EvaluationResult:
    return accepted_result(tuple(0.4 * speed * np.exp(0.002 * RANDOM.standard_normal(4))))


def judged_canary(store: Store, host: str, result: EvaluationResult) -> dict[str, str]:
    return record(store, CANARY, HPARAMS_SHA256, host, result)


def excluded(store: Store) -> dict[str, str]:
    with store.read() as session:
        return known(session, HPARAMS_SHA256).excluded


def rounds(store: Store, count: int, **speeds: float) -> dict[str, str]:
    found: dict[str, str] = {}
    for _ in range(count):
        for host in HOSTS:
            if host not in excluded(store):
                found |= judged_canary(store, host, canary(speeds.get(host, 1.0)))
    return found


def test_equal_nodes_stay(store: Store) -> None:
    assert rounds(store, 6) == {}
    assert excluded(store) == {}
    assert check(store).problems == ()


def test_a_slow_node_is_excluded_and_what_it_accepted_since_is_judged_once_more(
    store: Store, raw: Raw
) -> None:
    board_with(store, "ada", "bob")
    good = hand_in(store, "ada", 1)
    assert judge_next(store, accepted_result(), on("left")) == good
    rounds(store, 3)
    results = {
        ("left", 2): accepted_result(), ("middle", 3): accepted_result(), ("left", 4): rejected_result(),
    }  # fmt: skip
    for (host, number), result in results.items():
        hand_in(store, "ada", number)
        judge_next(store, result, on(host))
    found = rounds(store, 5, left=0.9)
    assert set(found) == {"left"}
    assert "slower than its class, allowed are" in found["left"]
    states = raw("SELECT id, state, verdict FROM submissions ORDER BY id")
    assert states == [
        (1, "judged", "accepted"),
        (2, "queued", "accepted"),
        (3, "judged", "accepted"),
        (4, "judged", "rejected"),
    ]
    verdicts = raw("SELECT verdict, code FROM evaluations WHERE submission_id = 2 ORDER BY id")
    assert verdicts == [("error", Code.NODE_UNLIKE), (None, None)]
    assert judge_next(store, accepted_result(), on("middle")) == 2
    assert check(store).problems == ()


def test_a_node_that_rejects_the_canary_is_excluded_and_all_it_said_since_is_set_aside(
    store: Store, raw: Raw
) -> None:
    board_with(store, "ada")
    rounds(store, 1)
    for number, result in ((1, accepted_result()), (2, rejected_result())):
        hand_in(store, "ada", number)
        judge_next(store, result, on("left"))
    found = judged_canary(store, "left", rejected_result())
    assert "it rejects the canary" in found["left"]
    assert raw("SELECT DISTINCT state FROM submissions") == [("queued",)]
    assert check(store).problems == ()


def test_a_node_that_rejects_what_others_accept_is_excluded_for_whatever_reason(
    store: Store, raw: Raw
) -> None:
    board_with(store, "ada")
    rounds(store, 1)
    hand_in(store, "ada")
    judge_next(store, rejected_result(Code.TIMED_OUT), on("left"))
    assert (
        "it rejects the canary"
        in judged_canary(store, "left", rejected_result(Code.TIMED_OUT))["left"]
    )
    assert raw("SELECT DISTINCT state FROM submissions") == [("queued",)]
    # Of the two that are left nobody can say which one is right.
    assert judged_canary(store, "right", rejected_result(Code.TIMED_OUT)) == {}


def test_a_canary_that_is_no_train_file_for_this_benchmark_excludes_nobody(store: Store) -> None:
    assert judged_canary(store, "left", rejected_result(Code.STRATEGY_WORLD_MISMATCH)) == {}


def test_an_admitted_node_begins_anew(store: Store) -> None:
    rounds(store, 5, left=0.9)
    assert not admit(store, HPARAMS_SHA256, "right", "by mistake")
    assert admit(store, HPARAMS_SHA256, "left", "its fan was replaced")
    assert excluded(store) == {}
    assert rounds(store, 5) == {}


def test_a_node_that_is_out_stays_out_however_many_canaries_the_others_judge(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(canaries, "CANARIES", 6)
    judged_canary(store, "left", rejected_result())
    assert rounds(store, 6) == {}
    assert set(excluded(store)) == {"left"}


def test_two_nodes_accuse_nobody(store: Store) -> None:
    for _ in range(6):
        assert judged_canary(store, "left", canary(0.5)) == {}
        assert judged_canary(store, "right", canary()) == {}


def test_canaries_are_judged_when_they_are_due(store: Store, raw: Raw) -> None:
    document = canary().model_dump_json().encode()
    orders: list[Order] = []

    def start(order: Order) -> Task:
        orders.append(order)
        return Task([Said("timed"), Ended(document, 0, "")])

    said: list[str] = []
    stop = Stop(600)
    duty = CanaryDuty(
        store,
        Leases(store),
        HPARAMS_SHA256,
        CANARY,
        "left",
        on("left"),
        lambda: stop.due,
        said.append,
    )
    place = NodePlace(start, HPARAMS_SHA256, lambda: None)
    assert duty(place)
    assert not duty(place)
    (order,) = orders
    assert order.asked.options == ("--runs", "4")
    assert raw("SELECT doing FROM workers") == [("canary",)]
    ((body,),) = raw("SELECT body FROM events")
    assert len(json.loads(body)["speeds"]) == 4
    assert said == ["canary", "canary: accepted (ok)"]
    # Another dispatcher knows of it.
    again = CanaryDuty(
        store,
        Leases(store),
        HPARAMS_SHA256,
        CANARY,
        "left",
        on("left"),
        lambda: stop.due,
        said.append,
    )
    assert not again(place)


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_a_canary_that_could_not_be_judged_is_tried_again_later(store: Store, raw: Raw) -> None:
    said: list[str] = []
    duty = CanaryDuty(
        store, Leases(store), HPARAMS_SHA256, CANARY, "left", on("left"), lambda: False, said.append
    )
    place = NodePlace(
        lambda order: Task([Said(""), Ended(None, 3, "it broke")]), HPARAMS_SHA256, lambda: None
    )
    assert duty(place)
    assert not duty(place)
    assert said[-1] == "canary: the judge ended with status 3 and no result: it broke"
    assert raw("SELECT * FROM events") == []
