"""Nothing is lost by kill -9: whoever submits or judges is killed at random moments, again and again."""

import random
import time
from collections import Counter
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from uuid import uuid4

import pytest

from harness.board.maintenance import check
from harness.board.rule import ScoringRule
from harness.board.store import Store
from harness.board.submit import examine
from harness.host.timing import hold_machine
from tests.board.acting import hurries, submits
from tests.board.conftest import Raw
from tests.board.examples import accepted_result, board_with, train_file
from tests.board.processes import all_end, kill, start, wait_until

SOURCE = b"# judge: accepted 0.05\n" + train_file()


class Board:
    """Two who submit and two workers of one machine; whoever is killed starts again at once."""

    def __init__(self, url: str, folder: Path, seed: int) -> None:
        self.said, self.marks = folder / "said", folder / "marks"
        self.lock = f"\0test-{uuid4()}"
        self._random = random.Random(seed)
        (folder / "accepted.json").write_text(accepted_result().model_dump_json())
        options = ("--results", str(folder), "--mark", str(self.marks))
        examined = examine(SOURCE, world_size=2)

        def submitter() -> BaseProcess:
            return start(submits, url, examined, SOURCE, self.said, self._random.randrange(10**6))

        def worker(once: bool = False) -> BaseProcess:
            return start(hurries, url, self.lock, options, folder, once)

        self._start: list[Callable[[], BaseProcess]] = [submitter, submitter, worker, worker]
        self._last = lambda: worker(once=True)

    def live(self, kills: int) -> None:
        """Be killed so many times; then nobody submits any more, and what waits is judged."""
        living = [begin() for begin in self._start]
        try:
            for _ in range(kills):
                number = self._random.randrange(len(living))
                # On a busy machine too, something has to have happened that can be lost.
                self._wait_for_more_in(self.said if number < 2 else self.marks)
                time.sleep(self._random.uniform(0, 0.1))
                kill(living[number])
                living[number] = self._start[number]()
        finally:
            for process in living:
                kill(process)
        all_end([self._last()])

    def _wait_for_more_in(self, path: Path) -> None:
        def size() -> int:
            return path.stat().st_size if path.exists() else 0

        before = size()
        wait_until(lambda: size() > before)


def nothing_is_lost(board: Board, store: Store, raw: Raw) -> None:
    submitted = raw("SELECT note, id FROM submissions")
    # What was taken is there, under the number that was said, and once.
    taken = [tuple(line.split()) for line in board.said.read_text().splitlines()]
    assert taken
    assert {(note, str(number)) for note, number in submitted} >= set(taken)
    assert set(Counter(note for note, _ in submitted).values()) == {1}
    # Everything was judged, once.
    assert raw("SELECT DISTINCT state FROM submissions") == [("judged",)]
    judged = Counter(number for (number,) in raw("SELECT submission_id FROM evaluations"))
    assert judged == Counter(number for _, number in submitted)
    assert raw("SELECT DISTINCT state, verdict FROM evaluations") == [("finished", "accepted")]
    finished = raw("SELECT evaluation FROM events WHERE kind = 'evaluation_finished'")
    assert len(finished) == len(set(finished)) == len(submitted)
    # And the history says so, without a gap.
    assert check(store).problems == ()


def no_two_judged_at_once(board: Board) -> None:
    marks = [line.split()[:2] for line in board.marks.read_text().splitlines()]
    for (first, judge), (then, same) in zip(marks[::2], marks[1::2], strict=True):
        assert (first, then, judge) == ("starts", "ends", same)


@pytest.mark.parametrize(
    "kills", [pytest.param(10, id="10"), pytest.param(100, id="100", marks=pytest.mark.slow)]
)
def test_nothing_is_lost_by_kill_9(
    store: Store, url: str, raw: Raw, tmp_path: Path, kills: int
) -> None:
    board_with(store, "ada", rule=ScoringRule(submissions_per_day=100_000, pairs=0))
    folder = tmp_path / "life"
    folder.mkdir()
    board = Board(url, folder, seed=kills)
    board.live(kills)
    nothing_is_lost(board, store, raw)
    no_two_judged_at_once(board)
    held = hold_machine(board.lock)
    assert held is not None
    held.close()
    if kills >= 100:
        given_back = raw("SELECT id FROM events WHERE kind = 'evaluation_given_back'")
        assert given_back, "no worker was killed while it had something"
