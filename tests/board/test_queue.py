"""Whose turn it is, who has it, and what becomes of an evaluation whose worker is gone."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy.exc import DBAPIError

from harness.board.leases import Leases
from harness.board.maintenance import check
from harness.board.organise import SeasonPlan, add_author, open_season
from harness.board.outcome import finish
from harness.board.queue import (
    LeaseLostError,
    Taken,
    WorkerId,
    fail,
    give_back,
    gone,
    take,
    this_worker,
    waits,
)
from harness.board.rule import ScoringRule
from harness.board.store import Store
from harness.board.submit import Handed, cancel, submit
from harness.host.timing import hold_machine
from tests.board.acting import holds_machine, judges_all, takes_and_says_no_more
from tests.board.conftest import Raw
from tests.board.examples import (
    ELSEWHERE,
    HARDWARE,
    HPARAMS_SHA256,
    accepted_result,
    board_with,
    error_result,
    hand_in,
    judge_next,
    train_file,
)
from tests.board.processes import all_end, kill, start, wait_until

OTHER = WorkerId("other:x:1", "machine-2")


def taken_by(store: Store, worker: WorkerId = ELSEWHERE) -> Taken:
    taken = take(store, worker, HPARAMS_SHA256)
    assert taken is not None
    return taken


def later(raw: Raw, seconds: float) -> None:
    """As if nobody had said a word for so long."""
    raw("UPDATE evaluations SET lease_until = lease_until - :s", s=seconds)


# --- whose turn it is ----------------------------------------------------------------------------


def test_a_worker_gets_all_that_it_needs(store: Store, raw: Raw) -> None:
    board_with(store, "ada")
    hand_in(store, "ada", 3)
    assert taken_by(store) == Taken(1, 1, 1, "ada", "train.py", train_file(3), 2, ELSEWHERE)
    assert raw("SELECT state, worker, machine, starts FROM evaluations") == [
        ("running", "elsewhere:x:1", "machine-1", 1)
    ]
    assert raw("SELECT state FROM submissions") == [("running",)]
    assert check(store).problems == ()


def test_authors_take_turns_however_much_one_has_handed_in(store: Store) -> None:
    board_with(store, "ada", "bob", "cyd", rule=ScoringRule(submissions_per_day=1000))
    for author in ("ada", "ada", "ada", "bob", "cyd", "cyd"):
        hand_in(store, author)
    order = [judge_next(store, accepted_result()) for _ in range(6)]
    assert order == [1, 4, 5, 2, 6, 3]


def test_who_comes_late_does_not_wait_for_a_hundred_of_another(store: Store) -> None:
    board_with(store, "ada", "bob", rule=ScoringRule(submissions_per_day=1000))
    for _ in range(10):
        hand_in(store, "ada")
    assert judge_next(store, accepted_result()) == 1
    late = hand_in(store, "bob")
    assert judge_next(store, accepted_result()) == late
    # And one that fails by our fault does not stand in the others' way.
    hand_in(store, "bob")
    assert judge_next(store, error_result()) == 2
    assert judge_next(store, accepted_result()) == late + 1


def test_a_worker_can_be_for_some_seasons_only(store: Store) -> None:
    board_with(store, "ada", "bob", season="autumn")
    board_with(store, season="winter")
    for author, season in (("ada", "autumn"), ("ada", "winter"), ("bob", "autumn")):
        hand_in(store, author, len(author) + len(season), season=season)
    assert not waits(store, ELSEWHERE, HPARAMS_SHA256, frozenset())
    assert take(store, ELSEWHERE, HPARAMS_SHA256, frozenset()) is None
    taken = take(store, ELSEWHERE, HPARAMS_SHA256, frozenset({2}))
    assert taken is not None
    assert taken.submission == 2
    give_back(store, taken, "not now")
    assert waits(store, ELSEWHERE, HPARAMS_SHA256, frozenset({2}))
    taken = take(store, ELSEWHERE, HPARAMS_SHA256, frozenset({1, 2}))
    assert taken is not None
    assert taken.submission == 3  # bob has waited longer


def test_a_worker_gets_evaluations_of_its_own_benchmark_only(store: Store) -> None:
    board_with(store, "ada")
    open_season(store, SeasonPlan("winter", "d" * 64, "b", 2, HARDWARE, ScoringRule()))
    number = submit(store, Handed("ada", "t.py", train_file(), season="winter"))
    assert take(store, ELSEWHERE, HPARAMS_SHA256) is None
    assert not waits(store, ELSEWHERE, HPARAMS_SHA256)
    assert waits(store, ELSEWHERE, "d" * 64)
    taken = take(store, ELSEWHERE, "d" * 64)
    assert taken is not None
    assert taken.submission == number


def test_an_empty_queue_gives_nothing_and_writes_nothing(store: Store) -> None:
    board_with(store, "ada")
    before = store.last_event()
    assert take(store, ELSEWHERE, HPARAMS_SHA256) is None
    assert store.last_event() == before


# --- nobody has what another has -----------------------------------------------------------------


def test_two_workers_never_judge_the_same(store: Store) -> None:
    board_with(store, "ada", rule=ScoringRule(submissions_per_day=1000))
    for _ in range(8):
        hand_in(store, "ada")

    def judge_all(number: int) -> list[int]:
        worker, found = WorkerId(f"w{number}:x:1", f"machine-{number}"), []
        while (taken := take(store, worker, HPARAMS_SHA256)) is not None:
            found.append(taken.evaluation)
            finish(store, taken, accepted_result((0.4,)), 1.0)
        return found

    with ThreadPoolExecutor(4) as pool:
        had = [number for found in pool.map(judge_all, range(4)) for number in found]
    assert sorted(had) == [*range(1, 9)]
    assert check(store).problems == ()


def test_two_processes_never_judge_the_same(store: Store, url: str, tmp_path: Path) -> None:
    board_with(store, "ada", rule=ScoringRule(submissions_per_day=1000))
    for _ in range(8):
        hand_in(store, "ada")
    gate, said = tmp_path / "gate", tmp_path / "said"
    processes = [start(judges_all, url, f"machine-{n}", gate, said) for n in range(4)]
    gate.touch()
    all_end(processes)
    assert sorted(map(int, said.read_text().split())) == [*range(1, 9)]
    assert check(store).problems == ()


def test_two_workers_never_time_on_one_machine_at_once(store: Store, raw: Raw) -> None:
    board_with(store, "ada")
    hand_in(store, "ada", 1)
    hand_in(store, "ada", 2)
    beside = WorkerId("beside:x:1", ELSEWHERE.machine)
    first = taken_by(store)
    assert take(store, beside, HPARAMS_SHA256) is None
    # Even if our code were wrong: the database says no.
    with pytest.raises(DBAPIError):
        raw("UPDATE evaluations SET state = 'running', machine = 'machine-1' WHERE id = 2")
    assert taken_by(store, OTHER).evaluation == 2
    finish(store, first, accepted_result(), 1.0)
    hand_in(store, "ada", 3)
    assert taken_by(store, beside).evaluation == 3


def test_the_right_to_time_is_of_one_process_and_ends_with_it(tmp_path: Path) -> None:
    lock = f"\0test-{uuid4()}"
    process = start(holds_machine, lock, tmp_path / "said")
    wait_until(lambda: (tmp_path / "said").exists() and (tmp_path / "said").read_text())
    assert (tmp_path / "said").read_text() == "held"
    assert hold_machine(lock) is None
    kill(process)
    held = hold_machine(lock)
    assert held is not None
    assert hold_machine(lock) is None
    held.close()
    again = hold_machine(lock)
    assert again is not None
    again.close()


def test_an_author_may_join_while_others_are_judged(store: Store) -> None:
    board_with(store, "ada")
    hand_in(store, "ada")
    taken = taken_by(store)
    add_author(store, "bob")
    hand_in(store, "bob")
    assert taken_by(store, OTHER).author == "bob"
    finish(store, taken, accepted_result(), 1.0)
    assert check(store).problems == ()


# --- leases --------------------------------------------------------------------------------------


def test_a_lease_that_ran_out_gives_the_evaluation_to_another(store: Store, raw: Raw) -> None:
    board_with(store, "ada")
    hand_in(store, "ada")
    first = taken_by(store)
    later(raw, 50)
    assert take(store, OTHER, HPARAMS_SHA256) is None
    later(raw, 11)
    second = taken_by(store, OTHER)
    assert (second.evaluation, second.start) == (first.evaluation, 2)
    (cause,) = raw("SELECT body FROM events WHERE kind = 'evaluation_given_back'")[0]
    assert "elsewhere:x:1 was not heard from for 60 s" in cause
    assert check(store).problems == ()


def test_a_renewed_lease_lasts(store: Store, raw: Raw) -> None:
    board_with(store, "ada")
    hand_in(store, "ada")
    taken = taken_by(store)
    later(raw, 50)
    Leases(store).renew(taken, "run 1 of 3")
    later(raw, 50)
    assert take(store, OTHER, HPARAMS_SHA256) is None
    assert raw("SELECT progress FROM evaluations") == [("run 1 of 3",)]
    finish(store, taken, accepted_result(), 1.0)
    assert raw("SELECT progress, lease_until FROM evaluations") == [("", None)]


def test_who_has_lost_the_lease_keeps_nothing(store: Store, raw: Raw) -> None:
    board_with(store, "ada")
    hand_in(store, "ada")
    late = taken_by(store)
    later(raw, 61)
    second = taken_by(store, OTHER)
    before = store.last_event()
    for act in (
        lambda: finish(store, late, accepted_result((0.99,)), 1.0),
        lambda: Leases(store).renew(late, "still here"),
        lambda: give_back(store, late, "tired"),
        lambda: fail(store, late, "broke down"),
    ):
        with pytest.raises(LeaseLostError):
            act()
    assert store.last_event() == before
    assert raw("SELECT * FROM documents") == []
    finish(store, second, accepted_result((0.4,)), 1.0)
    with pytest.raises(LeaseLostError):
        finish(store, late, accepted_result((0.99,)), 1.0)
    assert raw("SELECT worker FROM evaluations") == [(OTHER.name,)]
    assert check(store).problems == ()


def test_the_same_worker_s_earlier_start_is_worth_nothing(store: Store) -> None:
    board_with(store, "ada")
    hand_in(store, "ada")
    first = taken_by(store)
    give_back(store, first, "asked to")
    second = taken_by(store)
    with pytest.raises(LeaseLostError):
        finish(store, first, accepted_result(), 1.0)
    finish(store, second, accepted_result(), 1.0)


def test_a_result_is_written_once(store: Store, raw: Raw) -> None:
    board_with(store, "ada")
    hand_in(store, "ada")
    taken = taken_by(store)
    finish(store, taken, accepted_result(), 1.0)
    with pytest.raises(LeaseLostError):
        finish(store, taken, accepted_result(), 1.0)
    assert len(raw("SELECT id FROM events WHERE kind = 'evaluation_finished'")) == 1


def test_what_was_cancelled_while_it_ran_keeps_nothing(store: Store, raw: Raw) -> None:
    board_with(store, "ada")
    cancelled = hand_in(store, "ada", 1)
    hand_in(store, "ada", 2)
    taken = taken_by(store)
    cancel(store, cancelled)
    for act in (
        lambda: Leases(store).renew(taken, ""),
        lambda: finish(store, taken, accepted_result(), 1.0),
    ):
        with pytest.raises(LeaseLostError):
            act()
    assert raw("SELECT * FROM documents") == []
    assert taken_by(store).submission == 2
    assert check(store).problems == ()


def test_what_kills_every_worker_is_not_tried_for_ever(store: Store, raw: Raw) -> None:
    board_with(store, "ada", "bob")
    hand_in(store, "ada")
    for start_number in range(1, 6):
        assert taken_by(store).start == start_number
        later(raw, 61)
    hand_in(store, "bob")
    assert taken_by(store).submission == 2
    assert raw("SELECT state FROM evaluations WHERE id = 1") == [("abandoned",)]
    ((state, why),) = raw("SELECT state, state_why FROM submissions WHERE id = 1")
    assert state == "failed"
    assert "started 5 times" in why
    assert check(store).problems == ()


def test_a_judge_that_breaks_down_each_time_is_not_tried_for_ever(store: Store, raw: Raw) -> None:
    board_with(store, "ada")
    hand_in(store, "ada")
    for _ in range(5):
        fail(store, taken_by(store), "the judge ended with status 3")
    assert take(store, ELSEWHERE, HPARAMS_SHA256) is None
    ((state, why),) = raw("SELECT state, state_why FROM submissions")
    assert state == "failed"
    assert why.endswith("last: the judge ended with status 3")
    assert check(store).problems == ()


def test_what_is_given_back_is_never_held_against_it(store: Store, raw: Raw) -> None:
    board_with(store, "ada")
    hand_in(store, "ada")
    for _ in range(8):
        give_back(store, taken_by(store), "the worker was asked to end")
    assert raw("SELECT state, worker, machine FROM evaluations") == [("queued", None, None)]
    finish(store, taken_by(store), accepted_result(), 1.0)
    assert raw("SELECT state FROM submissions") == [("judged",)]


# --- workers that died ---------------------------------------------------------------------------


def test_what_a_killed_worker_had_is_given_back_at_once(
    store: Store, url: str, raw: Raw, tmp_path: Path
) -> None:
    board_with(store, "ada")
    hand_in(store, "ada")
    said = tmp_path / "said"
    process = start(takes_and_says_no_more, url, said)
    wait_until(lambda: said.exists() and said.read_text())
    me = this_worker()
    assert take(store, me, HPARAMS_SHA256) is None  # it lives
    assert not waits(store, me, HPARAMS_SHA256)
    process.kill()  # nobody has buried it: it is a zombie
    # On another machine that process number is somebody else's.
    assert take(store, WorkerId(me.name, "another machine"), HPARAMS_SHA256) is None
    wait_until(lambda: waits(store, me, HPARAMS_SHA256))
    assert waits(store, me, HPARAMS_SHA256)
    taken = take(store, me, HPARAMS_SHA256)
    assert taken is not None
    assert taken.start == 2
    (cause,) = raw("SELECT body FROM events WHERE kind = 'evaluation_given_back'")[0]
    assert "ended without a word" in cause
    assert check(store).problems == ()


def test_a_process_that_has_a_dead_one_s_number_is_not_that_worker(store: Store) -> None:
    board_with(store, "ada")
    hand_in(store, "ada")
    me = this_worker()
    place, tick = me.name.rsplit(" ", 1)
    before = WorkerId(f"{place} {int(tick) - 1}", me.machine)
    taken_by(store, before)
    assert taken_by(store, me).start == 2


def test_a_process_that_cannot_be_seen_from_here_is_not_taken_for_dead(store: Store) -> None:
    board_with(store, "ada")
    hand_in(store, "ada")
    me = this_worker()
    # As in another container of this machine, whose processes have other numbers.
    host, space, pid, tick = me.name.split(" ")
    elsewhere = WorkerId(f"{host} pid:[1] {int(pid) + 1} {tick}", me.machine)
    assert space.startswith("pid:[")
    taken_by(store, elsewhere)
    assert take(store, me, HPARAMS_SHA256) is None


def test_a_worker_knows_itself(store: Store) -> None:
    board_with(store, "ada")
    hand_in(store, "ada")
    assert this_worker() == this_worker()
    taken_by(store, this_worker())
    assert take(store, this_worker(), HPARAMS_SHA256) is None


def test_workers_are_seen_until_they_go(store: Store, raw: Raw) -> None:
    Leases(store).seen(ELSEWHERE, "waiting")
    Leases(store).seen(ELSEWHERE, "waiting still")
    assert raw("SELECT name, machine, doing FROM workers") == [
        ("elsewhere:x:1", "machine-1", "waiting still")
    ]
    gone(store, ELSEWHERE)
    gone(store, ELSEWHERE)
    assert raw("SELECT * FROM workers") == []


def test_starts_that_say_nothing_of_the_file_are_no_tries(store: Store, raw: Raw) -> None:
    board_with(store, "ada")
    hand_in(store, "ada")
    for ended in [give_back] * 6 + [fail] * 4:
        taken = take(store, ELSEWHERE, HPARAMS_SHA256)
        assert taken is not None
        ended(store, taken, "so it went")
    assert raw("SELECT state FROM submissions") == [("queued",)]
    taken = take(store, ELSEWHERE, HPARAMS_SHA256)
    assert taken is not None
    fail(store, taken, "the fifth")
    assert raw("SELECT state FROM submissions") == [("failed",)]
    assert check(store).problems == ()
