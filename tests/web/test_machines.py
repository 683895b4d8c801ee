"""For machines: the feed, metrics, health."""

import xml.etree.ElementTree as ET

import pytest
from starlette.testclient import TestClient

from harness.board.leases import Leases
from harness.board.queue import WorkerId, take
from harness.board.store import Store
from harness.errors import Code, JudgeError
from harness.fleet.canaries import Canary, record
from harness.web.app import make_app
from tests.board.examples import (
    ELSEWHERE,
    HPARAMS_SHA256,
    accepted_result,
    hand_in,
    judge_next,
    rejected_result,
)

ATOM = "{http://www.w3.org/2005/Atom}"


def test_the_feed_has_records_newest_first(store: Store) -> None:
    for author, number, mfu in (("alice", 1, 0.3), ("bob", 2, 0.4), ("alice", 3, 0.2)):
        hand_in(store, author, number)
        judge_next(store, accepted_result((mfu,)))
    client = TestClient(make_app(store, public_url="https://board.example.org/"))
    answer = client.get("/seasons/autumn/feed.atom")
    assert answer.headers["content-type"].startswith("application/atom+xml")
    root = ET.fromstring(answer.content)
    titles = [entry.findtext(f"{ATOM}title") for entry in root.iter(f"{ATOM}entry")]
    assert titles == ["40.00 % MFU by bob, 33.3 % ahead", "30.00 % MFU by alice"]
    links = [link.get("href") for link in root.iter(f"{ATOM}link")]
    assert "https://board.example.org/submissions/2" in links
    ids = [each.text for each in root.iter(f"{ATOM}id")]
    assert len(set(ids)) == 3
    assert "example.org" not in "".join(str(each) for each in ids)


def test_a_feed_without_records_is_a_feed(client: TestClient) -> None:
    root = ET.fromstring(client.get("/seasons/autumn/feed.atom").content)
    assert root.findtext(f"{ATOM}updated") is not None
    assert list(root.iter(f"{ATOM}entry")) == []


def metrics(client: TestClient) -> dict[str, float]:
    lines = [line for line in client.get("/metrics").text.splitlines() if line[0] != "#"]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def test_metrics_count_what_waits_and_what_ended(store: Store, client: TestClient) -> None:
    hand_in(store, "alice", 1)
    judge_next(store, accepted_result())
    before = metrics(client)
    assert before['trainjudge_evaluations_total{code="ok",verdict="accepted"}'] == 1
    assert before["trainjudge_queue_length"] == 0
    for number in (2, 3, 4):
        hand_in(store, "alice", number)
    judge_next(store, rejected_result())
    take(store, ELSEWHERE, HPARAMS_SHA256)
    Leases(store).seen(ELSEWHERE, "waiting")
    after = metrics(client)
    assert after["trainjudge_queue_length"] == 1
    assert after["trainjudge_evaluations_running"] == 1
    assert after["trainjudge_workers_alive"] == 1
    assert after['trainjudge_evaluations_total{code="ok",verdict="accepted"}'] == 1
    assert after['trainjudge_evaluations_total{code="update_mismatch",verdict="rejected"}'] == 1
    assert after['trainjudge_phase_seconds_total{phase="timed"}'] == 188.7
    ages = {"trainjudge_queue_age_seconds": 0.0}
    assert metrics(client) | ages == after | ages  # looking changes nothing


def test_metrics_of_a_fleet_say_which_nodes_live_and_what_canaries_found(
    store: Store, client: TestClient
) -> None:
    assert not [name for name in metrics(client) if "node" in name]
    for host in ("left", "right"):
        worker = WorkerId(f"{host} node {host}-12ab of somewhere else 1 2", host)
        Leases(store).seen(worker, "waiting")
    canary = Canary("train.py", b"pass", 2)
    record(store, canary, HPARAMS_SHA256, "left", rejected_result())
    record(store, canary, HPARAMS_SHA256, "gone", accepted_result())
    told = {name.removeprefix("trainjudge_node_"): value for name, value in metrics(client).items()}
    assert [told[f'alive{{host="{host}"}}'] for host in ("gone", "left", "right")] == [0, 1, 1]
    of = 'benchmark="qwen3-30b-a3b",host='
    assert told[f'excluded{{{of}"left"}}'] == 1
    assert told[f'excluded{{{of}"gone"}}'] == 0
    assert f'excluded{{{of}"right"}}' not in told
    assert told[f'canary_timestamp_seconds{{{of}"left"}}'] == pytest.approx(store.now(), abs=60)


def test_the_oldest_that_waits_gives_the_age(
    store: Store, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    hand_in(store, "alice")
    now = store.now()
    monkeypatch.setattr(store, "now", lambda: now + 100)
    assert 100 <= metrics(client)["trainjudge_queue_age_seconds"] < 130


def test_ready_is_who_can_read_the_store(
    store: Store, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json()["status"] == "ok"

    def fails() -> int:
        raise JudgeError(Code.STORE_FAILED, "gone")

    monkeypatch.setattr(store, "last_event", fails)
    assert client.get("/readyz").status_code == 503
    assert client.get("/healthz").status_code == 200
