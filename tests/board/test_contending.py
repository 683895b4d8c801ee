"""A worker makes a comparison: what it does where a judge, the store or the worker itself fails."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from harness.benchmark.rules import Together
from harness.board import comparing, patience
from harness.board.comparing import Claimed, claim
from harness.board.contending import contend
from harness.board.history import history_of
from harness.board.judge_process import Judged
from harness.board.leaderboard import Leaderboard, rank_season
from harness.board.maintenance import check
from harness.board.patience import Patience
from harness.board.rule import ScoringRule
from harness.board.store import Store, open_store
from harness.errors import Code, InputError, JudgeError
from tests.board.examples import (
    ELSEWHERE,
    HPARAMS_SHA256,
    accepted_result,
    board_with,
    hand_in,
    judge_next,
    train_file,
)

BROKE_DOWN = Judged(None, 3, "it says this last", stopped=False)
MISFIT = Judged(None, 2, "no such device", stopped=False)
ASKED_TO_END = Judged(None, 143, "it says this last", stopped=True)


@pytest.fixture
def claimed(store: Store) -> Claimed:
    """Bob's 2 (0.50) is to be compared with Ada's 1 (0.40), in four pairs."""
    board_with(store, "ada", "bob", rule=ScoringRule(pairs=4))
    for number, (author, mfu) in enumerate((("ada", 0.40), ("bob", 0.50)), 1):
        hand_in(store, author, number)
        judge_next(store, accepted_result((mfu,)))
    found = claim(store, Leaderboard(store), ELSEWHERE, HPARAMS_SHA256)
    assert found is not None
    return found


@dataclass
class Judges:
    """Stands in for the processes: the contender is a little faster every time.

    Attributes:
        instead: what a turn, counted from 1, ends with; gives None for what it ends with by itself.
        options: of each turn.
    """

    instead: Callable[[int], Judged | None] = lambda turn: None
    options: list[tuple[str, ...]] = field(default_factory=list)

    def __call__(
        self,
        file: tuple[str, bytes],
        world_size: int,
        options: tuple[str, ...],
        renew_lease: Callable[[str], None],
    ) -> Judged:
        self.options.append(options)
        renew_lease("run 1 of 1")
        speed = 0.40 if file[1] == train_file(1) else 0.45 + len(self.options) / 1000
        return self.instead(len(self.options)) or Judged(
            accepted_result((speed,)), 0, "", stopped=False
        )


def contends(
    store: Store, claimed: Claimed, judges: Judges, strict: float | None = None
) -> tuple[bool, list[str]]:
    """Make it; gives whether it did not fail by our fault, and what was said."""
    said: list[str] = []
    bears = Patience(said.append, lambda: time.sleep(0.05), lambda: False)
    together = Together(strict_update_error=strict)
    return contend(store, claimed, together, judges, bears, said.append), said


def told(store: Store) -> str:
    with store.read() as session:
        return history_of(session, 2)[-1].text


def is_free(store: Store) -> bool:
    """Whether the comparison is owed and nobody's."""
    again = claim(store, Leaderboard(store), ELSEWHERE, HPARAMS_SHA256)
    if again is None:
        return False
    comparing.let_go(store, again)
    return True


def test_pairs_are_run_one_run_at_a_time_and_written_down(store: Store, claimed: Claimed) -> None:
    judges = Judges()
    assert contends(store, claimed, judges) == (
        True,
        ["comparing submission 2 against 1", "comparing submission 2 against 1: faster"],
    )
    assert judges.options == [("--runs", "1")] * 8
    assert rank_season(store, 1).leader == 2
    assert check(store).problems == ()


@pytest.mark.parametrize(("strict", "leader"), [(None, 2), (0.0051, 2), (0.0050, 1)])
def test_pairs_are_held_to_the_strict_bound_of_the_benchmark(
    store: Store, claimed: Claimed, strict: float | None, leader: int
) -> None:
    """The update error of every run of the examples is 0.0051."""
    contends(store, claimed, Judges(), strict)
    assert rank_season(store, 1).leader == leader


def test_a_judge_that_breaks_down_once_costs_no_comparison(store: Store, claimed: Claimed) -> None:
    judges = Judges(lambda turn: BROKE_DOWN if turn in (3, 5) else None)
    assert contends(store, claimed, judges)[0]
    assert len(judges.options) == 10
    assert rank_season(store, 1).leader == 2


def test_a_judge_that_always_breaks_down_ends_it_and_the_organiser_can_read_why(
    store: Store, claimed: Claimed
) -> None:
    judges = Judges(lambda turn: BROKE_DOWN)
    done, said = contends(store, claimed, judges)
    assert not done
    assert len(judges.options) == 3
    why = (
        "3 runs of the comparison failed by the judge's fault, the last one with: the judge ended "
        "with status 3 and no result: it says this last"
    )
    assert said[-1] == f"comparing submission 2 against 1: not now: {why}"
    assert told(store) == f"the comparison of 2 with 1 failed and is still owed: {why}"
    assert is_free(store)


def test_a_worker_that_was_asked_to_end_lets_it_go_without_a_failure(
    store: Store, claimed: Claimed
) -> None:
    judges = Judges(lambda turn: ASKED_TO_END if turn == 3 else None)
    before = store.last_event()
    done, said = contends(store, claimed, judges)
    assert done and len(judges.options) == 3
    assert said[-1].endswith("not now: the worker was asked to end")
    assert store.last_event() == before
    assert is_free(store)


def test_a_machine_that_cannot_judge_lets_it_go(store: Store, claimed: Claimed) -> None:
    before = store.last_event()
    with pytest.raises(InputError, match="cannot judge this benchmark: no such device"):
        contends(store, claimed, Judges(lambda turn: MISFIT))
    assert store.last_event() == before
    assert is_free(store)


def test_a_machine_that_cannot_run_a_judge_lets_it_go(store: Store, claimed: Claimed) -> None:
    def full(turn: int) -> None:
        raise OSError(28, "No space left on device")

    before = store.last_event()
    with pytest.raises(OSError, match="No space left"):
        contends(store, claimed, Judges(full))
    assert store.last_event() == before
    assert is_free(store)


class Blocking:
    """From the eighth turn, the last, nobody can write for a second; until then all is well."""

    def __init__(self, store: Store, seconds: float) -> None:
        self._store, self._seconds = store, seconds
        self._thread = threading.Thread(target=self._block)
        self._blocked = threading.Event()

    def __call__(self, turn: int) -> None:
        if turn == 8:
            self._thread.start()
            assert self._blocked.wait(30)

    def _block(self) -> None:
        with self._store.write():
            self._blocked.set()
            time.sleep(self._seconds)

    def join(self) -> None:
        self._thread.join(30)


def test_pairs_are_written_down_when_the_store_works_again(
    store: Store, url: str, claimed: Claimed
) -> None:
    blocking, impatient = Blocking(store, 1.0), open_store(url, busy_seconds=0.1)
    done, said = contends(impatient, claimed, Judges(blocking))
    blocking.join()
    impatient.close()
    assert done
    assert sum("the worker waits for it" in line for line in said) == 1
    assert rank_season(store, 1).leader == 2


def test_a_store_that_fails_for_too_long_is_no_failure_of_the_comparison(
    store: Store, url: str, claimed: Claimed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "PATIENCE_SECONDS", 0.2)
    blocking, impatient = Blocking(store, 2.0), open_store(url, busy_seconds=0.1)
    before = store.last_event()
    with pytest.raises(JudgeError) as caught:
        contends(impatient, claimed, Judges(blocking))
    blocking.join()
    impatient.close()
    assert caught.value.code is Code.STORE_FAILED
    assert store.last_event() == before
