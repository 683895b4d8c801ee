"""What is compared next, what is written down of it, and what a rejected run costs whom."""

import io

import pytest
from rich.console import Console

from harness.benchmark.rules import Together
from harness.board import comparing
from harness.board.comparing import Claimed, claim
from harness.board.history import alarms_of, history_of
from harness.board.leaderboard import Leaderboard, rank_season
from harness.board.maintenance import check
from harness.board.organise import invalidate, release
from harness.board.pairs import compare, plan_of
from harness.board.queue import LeaseLostError, WorkerId
from harness.board.rule import ScoringRule
from harness.board.store import Store
from harness.board.tell import board_table
from harness.errors import Code, InputError, Verdict
from tests.board.examples import (
    ELSEWHERE,
    HPARAMS_SHA256,
    accepted_result,
    board_with,
    hand_in,
    judge_next,
)
from tests.board.test_pairs import CLEAR, Machine, result

REJECTED = result(0.0, Verdict.REJECTED, Code.UPDATE_MISMATCH)


@pytest.fixture
def contested(store: Store) -> Store:
    """Ada's 1 leads with 0.40, Bob's 2 (0.50) and Cyd's 3 (0.60) are to be compared with it."""
    board_with(store, "ada", "bob", "cyd", rule=ScoringRule())
    for number, (author, mfu) in enumerate((("ada", 0.40), ("bob", 0.50), ("cyd", 0.60)), 1):
        hand_in(store, author, number)
        judge_next(store, accepted_result((mfu,)))
    assert owed(store) == ((3, 1), (2, 1))
    return store


def owed(store: Store) -> tuple[tuple[int, int], ...]:
    return rank_season(store, 1).pending


def claimed_next(store: Store, worker: WorkerId = ELSEWHERE) -> Claimed | None:
    return claim(store, Leaderboard(store), worker, HPARAMS_SHA256)


def compare_next(store: Store, machine: Machine) -> tuple[int, int]:
    """Make the comparison that is due; gives who was compared with whom."""
    claimed = claimed_next(store)
    assert claimed is not None
    comparing.finish(store, claimed, compare(machine, plan_of(claimed.rule, Together())))
    return claimed.contender, claimed.leader


def leader_fails() -> Machine:
    """In the second pair, in which it goes first."""
    return Machine([result(0.5)], [result(0.4), REJECTED])


def faster() -> Machine:
    return Machine([result(0.4 * ratio) for ratio in CLEAR], [result(0.4)] * 5)


def told(store: Store, submission: int) -> str:
    with store.read() as session:
        return history_of(session, submission)[-1].text


def alarms(store: Store, submission: int) -> tuple[str, ...]:
    with store.read() as session:
        return alarms_of(session, submission)


def test_who_is_shown_to_be_faster_leads(contested: Store) -> None:
    assert compare_next(contested, faster()) == (3, 1)
    assert rank_season(contested, 1).leader == 3
    assert check(contested).problems == ()


def test_a_contender_whose_run_is_rejected_has_lost_and_an_alarm(contested: Store) -> None:
    compare_next(contested, Machine([result(0.5), REJECTED], [result(0.4)] * 2))
    assert owed(contested) == ((2, 1),)
    assert alarms(contested, 3) == (
        "alarm: accepted before, and rejected in a paired run (update_mismatch): as the test wants it",
    )
    assert alarms(contested, 1) == ()


def test_a_leader_whose_run_is_rejected_costs_its_contender_nothing(contested: Store) -> None:
    compare_next(contested, leader_fails())
    (alarm,) = alarms(contested, 1)
    assert "rejected in a paired run (update_mismatch)" in alarm
    assert "Nothing is compared with it until it is invalidated or released" in alarm
    assert told(contested, 3) == (
        "the comparison of 3 with 1 failed and is still owed: a run of submission 1 was rejected "
        "(update_mismatch)"
    )
    release(contested, 1, "a loose cable")
    # The same comparison is made, and won.
    assert set(owed(contested)) == {(3, 1), (2, 1)}
    compare_next(contested, faster())
    assert rank_season(contested, 1).leader != 1
    assert check(contested).problems == ()


def test_nothing_is_run_against_a_leader_that_failed_until_the_organiser_has_looked(
    contested: Store,
) -> None:
    compare_next(contested, leader_fails())
    ranking = rank_season(contested, 1)
    assert (ranking.leader, ranking.stopped, ranking.pending) == (1, True, ())
    assert claimed_next(contested) is None
    screen = Console(width=200, file=io.StringIO())
    with screen.capture() as printed:
        screen.print(board_table("autumn", ranking, limit=10))
    assert "Nothing is compared with 1 until the organiser has looked" in printed.get()
    release(contested, 1, "a loose cable")
    assert not rank_season(contested, 1).stopped
    assert claimed_next(contested) is not None


def test_a_leader_that_fails_again_is_stopped_again(contested: Store) -> None:
    for _ in range(2):
        compare_next(contested, leader_fails())
        assert owed(contested) == ()
        release(contested, 1, "it may have another try")
    assert len(alarms(contested, 1)) == 2


def test_without_the_leader_that_failed_the_others_go_on(contested: Store) -> None:
    compare_next(contested, leader_fails())
    invalidate(contested, 1, "it fails on purpose since noon")
    ranking = rank_season(contested, 1)
    assert (ranking.leader, ranking.stopped, ranking.pending) == (2, False, ((3, 2),))


def test_who_has_an_alarm_of_another_kind_has_nothing_to_be_released_from(contested: Store) -> None:
    compare_next(contested, Machine([REJECTED], []))
    with pytest.raises(InputError, match="no alarm stops its comparisons"):
        release(contested, 3, "why not")


def test_a_comparison_that_failed_by_our_fault_lets_the_others_pass(contested: Store) -> None:
    claimed = claimed_next(contested)
    assert claimed is not None and claimed.contender == 3
    comparing.failed(contested, claimed, "a cable was pulled")
    assert told(contested, 3) == (
        "the comparison of 3 with 1 failed and is still owed: a cable was pulled"
    )
    # It is the same for a worker that knows nothing of it.
    for worker in (ELSEWHERE, WorkerId("other:x:1", "machine-2")):
        other = claimed_next(contested, worker)
        assert other is not None and other.contender == 2
        comparing.let_go(contested, other)
    compare_next(contested, Machine([result(0.3)] * 5, [result(0.4)] * 5))  # 2 has lost
    assert compare_next(contested, faster()) == (3, 1)
    assert check(contested).problems == ()


def test_of_those_that_failed_the_one_that_waits_longest_is_next(contested: Store) -> None:
    tried = []
    for _ in range(4):
        claimed = claimed_next(contested)
        assert claimed is not None
        tried.append(claimed.contender)
        comparing.failed(contested, claimed, "a cable was pulled")
    assert tried == [3, 2, 3, 2]


def test_a_leader_that_failed_puts_its_contender_behind_nobody(contested: Store) -> None:
    assert compare_next(contested, leader_fails()) == (3, 1)
    release(contested, 1, "a loose cable")
    assert compare_next(contested, faster()) == (3, 1)


def test_who_has_lost_its_lease_has_nothing_to_say_of_a_comparison(contested: Store) -> None:
    claimed = claimed_next(contested)
    assert claimed is not None
    comparing.let_go(contested, claimed)
    before = contested.last_event()
    comparing.failed(contested, claimed, "a cable was pulled")
    assert contested.last_event() == before
    with pytest.raises(LeaseLostError):
        comparing.finish(contested, claimed, compare(faster(), plan_of(claimed.rule, Together())))
