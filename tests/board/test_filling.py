"""A worker that has nothing to do keeps a bank filled, and stops at once where something waits."""

import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from uuid import uuid4

import pytest

from harness.bank.store import Bank
from harness.board import filling, worker
from harness.board.filling import Filler, Wanted, open_worlds
from harness.board.organise import close_season
from harness.board.stopping import Stop
from harness.board.store import Store
from harness.board.submit import Handed, submit
from harness.board.worker import work
from harness.host.timing import hold_machine
from tests.bank.made_up import put
from tests.board.acting import job
from tests.board.examples import HPARAMS_SHA256, accepted_result, board_with, train_file
from tests.board.processes import wait_until

#: Says that it is at it, and goes on until it is ended.
STEADY = "open({mark!r}, 'w').close(); import time; time.sleep(60)"


@dataclass
class Place:
    """A filler with a stand-in for `validator bank fill`; the machine is its own."""

    folder: Path
    held: socket.socket
    told: list[str] = field(default_factory=list)
    worlds: list[int] = field(default_factory=lambda: [2])

    @property
    def mark(self) -> Path:
        return self.folder / "mark"

    def wanted(self, program: str, count: int = 2) -> Wanted:
        command = (sys.executable, "-c", program.replace("{mark!r}", repr(str(self.mark))))
        return Wanted(Bank(self.folder / "bank"), "kind {}".format, count, ("--idle",), command)

    def filler(self, program: str, count: int = 2) -> Filler:
        return Filler(self.wanted(program, count), self.told.append)

    def fill(self, filler: Filler, needed: Callable[[], bool] = lambda: False) -> bool:
        return filler.fill(lambda: self.worlds, self.held, needed)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setattr(filling, "LOOK_SECONDS", 0.05)
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    held = hold_machine(f"\0test-{uuid4()}")
    assert held is not None
    with held:
        yield Place(tmp_path, held)
    assert list(temporary.iterdir()) == [], "something was left behind"


#: Adds an entry, as the real command does.
ADDING = (
    "import sys; from pathlib import Path; from harness.bank.store import Bank; "
    "from tests.bank.made_up import put; folder = Path({mark!r}).parent; "
    "put(Bank(folder / 'bank'), folder, 'made', 'kind ' + sys.argv[sys.argv.index('--world') + 1])"
)


def test_what_is_missing_is_added_by_a_child_that_is_told_what_is_wanted(place: Place) -> None:
    place.worlds = [2, 3]
    for name in ("one", "two"):
        put(Bank(place.folder / "bank"), place.folder, name, "kind 2")
    assert place.fill(place.filler(ADDING))
    assert len(Bank(place.folder / "bank").entries("kind 3")) == 1
    assert place.told == []


def test_the_child_gets_count_world_and_options(place: Place) -> None:
    program = "import sys; open({mark!r}, 'w').write(' '.join(sys.argv[1:]))"
    assert not place.fill(place.filler(program, 7))
    assert place.mark.read_text() == "--count 7 --world 2 --idle"


def test_where_there_is_enough_or_no_bank_nothing_is_started(place: Place) -> None:
    for name in ("one", "two"):
        put(Bank(place.folder / "bank"), place.folder, name, "kind 2")
    for filler in (place.filler(STEADY), Filler(None, place.told.append)):
        assert not place.fill(filler)
    assert not place.mark.exists() and place.told == []


def test_the_child_ends_as_soon_as_the_machine_is_needed(place: Place) -> None:
    started = time.monotonic()
    assert not place.fill(place.filler(STEADY), place.mark.exists)
    assert time.monotonic() - started < 30
    assert place.told == [], "that is no failure"


def test_the_child_holds_the_machine_for_as_long_as_it_lives(place: Place) -> None:
    program = (
        f"import os; assert os.environ['TRAINJUDGE_MACHINE_HELD']; os.fstat({place.held.fileno()})"
    )
    place.fill(place.filler(program))
    assert place.told == ["the bank cannot be filled: it said nothing"]  # it added nothing


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("import sys; sys.exit('no snapshot\x1b[2J')", "no snapshot"),
        ("raise SystemExit(3)", "it said nothing"),
        ("print('the bank is full', file=__import__('sys').stderr)", "the bank is full"),
    ],
)
def test_a_child_that_added_nothing_is_told_of_and_not_started_again_at_once(
    place: Place, program: str, said: str
) -> None:
    filler = place.filler(f"open({{mark!r}}, 'a').write('x'); {program}")
    assert not place.fill(filler) and not place.fill(filler)
    assert place.mark.read_text() == "x"
    assert len(place.told) == 1 and place.told[0].startswith(f"the bank cannot be filled: {said}")
    assert "\x1b" not in place.told[0]


def test_it_is_tried_again_later(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filling, "AGAIN_SECONDS", 0.0)
    filler = place.filler("open({mark!r}, 'a').write('x')")
    place.fill(filler)
    place.fill(filler)
    assert place.mark.read_text() == "xx"


def test_a_command_that_is_not_there_is_told_of(place: Place) -> None:
    wanted = replace(place.wanted(STEADY), command=(str(place.folder / "nothing"),))
    filler = Filler(wanted, place.told.append)
    assert not place.fill(filler)
    assert "nothing" in place.told[0]


def test_a_bank_that_cannot_be_read_stops_no_worker(place: Place) -> None:
    (place.folder / "bank").write_text("a file")
    (place.folder / "bank").chmod(0)

    def fails(_: int) -> str:
        raise PermissionError("it is another's")

    filler = Filler(replace(place.wanted(STEADY), kind_of=fails), place.told.append)
    assert not place.fill(filler)
    assert place.told == ["the bank cannot be filled: it is another's"]


def test_entries_are_wanted_for_the_ranks_of_open_seasons(store: Store) -> None:
    assert open_worlds(store, HPARAMS_SHA256) == []
    board_with(store, "ada")
    assert open_worlds(store, HPARAMS_SHA256) == [2]
    assert open_worlds(store, "0" * 64) == []
    close_season(store, "autumn")
    assert open_worlds(store, HPARAMS_SHA256) == []


def test_a_worker_fills_while_nothing_waits_and_judges_as_soon_as_something_does(
    store: Store, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "IDLE_SECONDS", 0.1)
    folder = place.folder / "judge"
    folder.mkdir()
    (folder / "accepted.json").write_text(accepted_result().model_dump_json())
    board_with(store, "ada")
    marks = folder / "marks"
    options = ("--results", str(folder), "--mark", str(marks))
    made = replace(job(f"\0test-{uuid4()}", options, False), bank=place.wanted(STEADY))
    stop, finished = Stop(600), list[int]()
    thread = threading.Thread(
        target=lambda: finished.append(work(store, made, stop, lambda line: None))
    )
    thread.start()
    try:
        wait_until(place.mark.exists)
        submit(store, Handed("ada", "train.py", b"# judge: accepted 0\n" + train_file()))
        wait_until(lambda: marks.exists() and "ends" in marks.read_text())
    finally:
        stop.request()
        thread.join()
    assert finished == [1]
