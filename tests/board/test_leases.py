"""What workers of one process say together: one transaction for all, and each is told its own fate."""

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from sqlalchemy import event

from harness.board.leases import Leases
from harness.board.queue import LeaseLostError, Taken, WorkerId, give_back, take
from harness.board.store import Store
from harness.errors import Code, JudgeError
from tests.board.conftest import Raw
from tests.board.examples import HPARAMS_SHA256, board_with, hand_in
from tests.board.processes import wait_until

WORKERS = 8


@pytest.fixture
def taken(store: Store) -> list[Taken]:
    """An evaluation for each worker, each on a machine of its own."""
    board_with(store, "ada")
    found = []
    for number in range(WORKERS):
        hand_in(store, "ada", number)
        worker = WorkerId(f"host{number} node of elsewhere", f"machine {number}")
        mine = take(store, worker, HPARAMS_SHA256)
        assert mine is not None
        found.append(mine)
    return found


@contextmanager
def saying(store: Store, leases: Leases, taken: list[Taken]) -> Iterator[list["Future[None]"]]:
    """All say something while somebody else writes: one of them waits for that, the others for the one."""
    with ThreadPoolExecutor(WORKERS) as pool:
        with store.write():
            said = []
            for each in taken:
                said.append(pool.submit(leases.renew, each, f"run {each.evaluation}"))
                wait_until(lambda: leases._beating.locked() and len(leases._words) == len(said) - 1)
        yield said


def test_who_speaks_while_another_writes_is_written_down_with_the_others(
    store: Store, raw: Raw, taken: list[Taken]
) -> None:
    leases = Leases(store)
    raw("UPDATE evaluations SET lease_until = 1")
    commits = threading.Semaphore(0)
    event.listen(store.engine, "commit", lambda connection: commits.release())
    with saying(store, leases, taken) as said:
        for each in said:
            each.result()
    counted = 0
    while commits.acquire(blocking=False):
        counted += 1
    assert counted == 3  # whoever wrote before, who waited for that, and all others
    rows = raw("SELECT id, progress FROM evaluations WHERE lease_until > 1 ORDER BY id")
    assert rows == [(number, f"run {number}") for number in range(1, WORKERS + 1)]
    doing = raw("SELECT name, machine, doing FROM workers ORDER BY name")
    assert doing == [
        (f"host{number} node of elsewhere", f"machine {number}", f"evaluation {number + 1}")
        for number in range(WORKERS)
    ]


def test_whoever_has_lost_its_evaluation_is_told_and_the_others_are_not(
    store: Store, raw: Raw, taken: list[Taken]
) -> None:
    leases = Leases(store)
    lost = taken[3]
    give_back(store, lost, "asked to end")
    with saying(store, leases, taken) as said:
        failures = [each.exception() for each in said]
    assert [type(each) for each in failures if each is not None] == [LeaseLostError]
    assert str(failures[3]) == f"evaluation {lost.evaluation} is queued by now"
    assert raw("SELECT count(*) FROM workers") == [(WORKERS - 1,)]
    again = take(store, WorkerId("another", "machine"), HPARAMS_SHA256)
    assert again is not None and again.evaluation == lost.evaluation
    with pytest.raises(LeaseLostError, match="is running by now"):
        leases.renew(lost, "still here")


def test_a_store_that_fails_is_told_to_all_and_what_they_say_next_is_written(
    store: Store, raw: Raw, taken: list[Taken]
) -> None:
    leases = Leases(store)
    raw("ALTER TABLE workers RENAME TO away")
    with saying(store, leases, taken) as said:
        failures = [each.exception() for each in said]
    assert all(isinstance(each, JudgeError) for each in failures)
    assert {each.code for each in failures if isinstance(each, JudgeError)} == {Code.STORE_FAILED}
    raw("ALTER TABLE away RENAME TO workers")
    leases.renew(taken[0], "run 1")
    leases.seen(WorkerId("idle", "another"), "waiting")
    assert raw("SELECT doing FROM workers ORDER BY doing") == [("evaluation 1",), ("waiting",)]
    assert raw("SELECT progress FROM evaluations WHERE id = 1") == [("run 1",)]
