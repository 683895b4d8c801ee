"""A worker that has nothing to do keeps a bank filled, and stops at once where something waits."""

import sys
import threading
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from harness.bank.store import Bank, Entry
from harness.board import filling, worker
from harness.board.filling import Filler, Wanted
from harness.board.store import Store
from harness.board.submit import Handed, submit
from harness.board.worker import Stop, work
from harness.reference.outcome import RunFolders
from tests.board.acting import job
from tests.board.examples import accepted_result, board_with, train_file
from tests.board.processes import wait_until

#: Says that it is there, and goes on until it is ended.
STEADY = "import sys, time; print(sys.argv[1:], file=sys.stderr, flush=True); time.sleep(60)"


def wanted(folder: Path, program: str, count: int = 2) -> Wanted:
    command = (sys.executable, "-c", program)
    return Wanted(Bank(folder / "bank"), "kind", count, ("--world", "1"), command)


def put(folder: Path, name: str) -> None:
    made = RunFolders(folder / name / "asked", folder / name / "made", folder)
    for path in (made.asked, made.made):
        path.mkdir(parents=True)
    entry = Entry(
        id=name, kind="kind", benchmark="b", seed="5eed", steps=5, world_size=1, made_at="2026", seconds=1.0
    )  # fmt: skip
    Bank(folder / "bank").add(entry, made)


def test_a_child_is_started_while_entries_are_missing(tmp_path: Path) -> None:
    put(tmp_path, "one")
    filler = Filler(wanted(tmp_path, STEADY), print)
    filler.look()
    assert filler.running
    child = filler._child
    filler.look()
    assert filler._child is child, "one is enough"
    filler.end()
    assert not filler.running and child is not None and child.returncode is not None


def test_enough_entries_or_no_bank_start_nothing(tmp_path: Path) -> None:
    for name in ("one", "two"):
        put(tmp_path, name)
    for each in (wanted(tmp_path, STEADY), None):
        filler = Filler(each, print)
        filler.look()
        assert not filler.running
        filler.end()


def test_the_child_is_told_what_is_wanted(tmp_path: Path) -> None:
    program = f"import sys; open({str(tmp_path / 'told')!r}, 'w').write(' '.join(sys.argv[1:]))"
    filler = Filler(wanted(tmp_path, program, 7), print)
    filler.look()
    wait_until(lambda: not filler.running)
    assert (tmp_path / "told").read_text() == "--count 7 --world 1"


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("import sys; sys.exit('no snapshot\x1b[2J')", "no snapshot"),
        ("raise SystemExit(3)", "it said nothing"),
    ],
)
def test_a_child_that_failed_is_told_of_and_not_tried_again_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, said: str
) -> None:
    told: list[str] = []
    filler = Filler(wanted(tmp_path, program), told.append)
    filler.look()
    wait_until(lambda: not filler.running)
    assert len(told) == 1 and told[0].startswith(f"the bank cannot be filled: {said}")
    assert "\x1b" not in told[0]
    filler.look()
    assert not filler.running
    monkeypatch.setattr(filling, "AGAIN_SECONDS", 0.0)
    filler._failed("once more")
    filler.look()
    assert filler._child is not None
    filler.end()


def test_a_command_that_is_not_there_is_told_of(tmp_path: Path) -> None:
    told: list[str] = []
    missing = Wanted(Bank(tmp_path), "kind", 1, (), (str(tmp_path / "nothing"),))
    filler = Filler(missing, told.append)
    filler.look()
    assert not filler.running and "nothing" in told[0]


def test_a_worker_fills_while_nothing_waits_and_judges_as_soon_as_something_does(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The child holds the machine, as the real one does; only its end lets the worker judge."""
    monkeypatch.setattr(worker, "IDLE_SECONDS", 0.1)
    monkeypatch.setattr(worker, "HEARTBEAT_SECONDS", 0.2)
    folder, lock = tmp_path / "judge", f"\0test-{uuid4()}"
    folder.mkdir()
    (folder / "accepted.json").write_text(accepted_result().model_dump_json())
    board_with(store, "ada")
    program = (
        f"import socket, time; s = socket.socket(socket.AF_UNIX); s.bind({lock!r}); "
        f"open({str(tmp_path / 'at it')!r}, 'w'); time.sleep(60)"
    )
    options = ("--results", str(folder), "--mark", str(folder / "marks"))
    made = job(lock, options, False)
    stop, finished = Stop(600), list[int]()
    thread = threading.Thread(
        target=lambda: finished.append(
            work(store, replace(made, bank=wanted(tmp_path, program)), stop, lambda line: None)
        )
    )
    thread.start()
    try:
        wait_until((tmp_path / "at it").exists)
        submit(store, Handed("ada", "train.py", b"# judge: accepted 0\n" + train_file()))
        wait_until(lambda: (folder / "marks").exists() and "ends" in (folder / "marks").read_text())
    finally:
        stop.request()
        thread.join()
    assert finished == [1]
