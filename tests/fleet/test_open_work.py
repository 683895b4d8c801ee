"""What waits is asked once for all nodes of a dispatcher, and again a moment later."""

import pytest
from sqlalchemy import event

from harness.board.queue import take, this_worker
from harness.board.rule import ScoringRule
from harness.board.store import Store
from harness.board.worker import Shared
from harness.fleet import open_work
from harness.fleet.open_work import OpenWork, SeasonNeeds
from tests.board.conftest import Raw
from tests.board.examples import (
    ELSEWHERE,
    HARDWARE,
    HPARAMS_SHA256,
    accepted_result,
    board_with,
    hand_in,
    judge_next,
)


def work_of(store: Store) -> OpenWork:
    return OpenWork(store, Shared.of(store), HPARAMS_SHA256, this_worker())


def test_a_thousand_nodes_ask_no_more_than_one(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_work, "FRESH_SECONDS", 600.0)
    board_with(store, "ada")
    statements: list[str] = []
    event.listen(
        store.engine, "before_cursor_execute", lambda *called: statements.append(called[2])
    )
    work = work_of(store)
    seasons = frozenset({1})
    assert (work.stirs(seasons), len(work.seasons())) == (False, 1)
    asked = len(statements)
    assert asked
    for _ in range(1_000):
        assert (work.stirs(seasons), len(work.seasons())) == (False, 1)
    assert len(statements) == asked


def test_what_waits_for_these_seasons_stirs_and_what_a_dead_worker_had(
    store: Store, raw: Raw, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_work, "FRESH_SECONDS", 0.0)
    board_with(store, "ada")
    work = work_of(store)
    here, elsewhere = frozenset({1}), frozenset({2})
    assert not work.stirs(here)
    hand_in(store, "ada")
    assert (work.stirs(here), work.stirs(None), work.stirs(elsewhere)) == (True, True, False)
    take(store, ELSEWHERE, HPARAMS_SHA256)
    assert not work.stirs(here)
    raw("UPDATE evaluations SET lease_until = 1")
    assert work.stirs(here)


def test_a_comparison_that_is_owed_stirs(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_work, "FRESH_SECONDS", 0.0)
    board_with(store, "ada", "bob", rule=ScoringRule(pairs=3))
    work = work_of(store)
    for number, author in enumerate(("ada", "bob")):
        hand_in(store, author, number)
        judge_next(store, accepted_result((0.3 + 0.1 * number,) * 3))
    assert work.stirs(frozenset({1}))


def test_what_seasons_need_is_known(store: Store) -> None:
    board_with(store, "ada", rule=ScoringRule(pairs=0, isolation=("docker",)))
    assert work_of(store).seasons() == (SeasonNeeds(1, 2, HARDWARE, ("docker",)),)
