"""The worker with a stand-in for the judge: every way in which a judge, or the worker, can end."""

import json
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from uuid import uuid4

import pytest

from harness.benchmark.hparams import LoadedHparams
from harness.benchmark.snapshot import Snapshot
from harness.board import judge_process, judging, patience, worker
from harness.board.artefacts import Artefacts
from harness.board.maintenance import check
from harness.board.organise import SeasonPlan, add_author, open_season
from harness.board.queue import take, this_worker
from harness.board.rule import ScoringRule
from harness.board.stopping import Stop
from harness.board.store import Store, open_store
from harness.board.submit import Handed, cancel, submit
from harness.board.worker import Job, work
from harness.errors import Code, InputError, JudgeError
from harness.host.timing import hold_machine
from harness.sandbox.removal import remove_tree
from harness.timed.workspace import left_folders
from tests.board.acting import job, works
from tests.board.conftest import Raw
from tests.board.examples import (
    HPARAMS_SHA256,
    accepted_result,
    board_with,
    error_result,
    rejected_result,
    train_file,
)
from tests.board.processes import kill, start, wait_until
from tests.project import ROOT


@dataclass
class Place:
    """A machine with a worker: its lock, its temporary folder, what its judges say of themselves."""

    store: Store
    folder: Path
    temporary: Path
    lock: str = field(default_factory=lambda: f"\0test-{uuid4()}")
    say: Callable[[str], None] = lambda line: None
    artefacts: Artefacts | None = None

    @property
    def options(self) -> tuple[str, ...]:
        return ("--results", str(self.folder), "--mark", str(self.folder / "marks"))

    def marks(self) -> list[tuple[str, int, str]]:
        """What judges did: starts or ends, process, detail."""
        path = self.folder / "marks"
        lines = path.read_text().splitlines() if path.exists() else []
        words = [line.split(" ", 2) for line in lines]
        return [(event, int(process), detail) for event, process, detail in words]

    def hand_in(self, what: str, seconds: float = 0.0, name: str = "train.py") -> int:
        source = f"# judge: {what} {seconds}\n".encode() + train_file()
        return submit(self.store, Handed("ada", name, source))

    def work(self, stop: Stop | None = None, once: bool = True) -> int:
        made = replace(job(self.lock, self.options, once), artefacts=self.artefacts)
        return work(self.store, made, stop or Stop(600), self.say)

    def free(self) -> bool:
        """Whether the machine can be timed on."""
        held = hold_machine(self.lock)
        if held is not None:
            held.close()
        return held is not None


@pytest.fixture
def place(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    made = Place(store, tmp_path / "judge", tmp_path / "tmp")
    for folder in (made.folder, made.temporary):
        folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(made.temporary))
    for name, result in (
        ("accepted", accepted_result()),
        ("rejected", rejected_result()),
        ("error", error_result(message="a cable was pulled")),
    ):
        (made.folder / f"{name}.json").write_text(result.model_dump_json())
    board_with(store, "ada", rule=ScoringRule(max_attempts=2, pairs=0))
    yield made
    assert check(store).problems == ()
    assert list(made.temporary.glob("trainjudge-*")) == [], "something was left behind"


class Beside:
    """A worker in a thread, to see what it does meanwhile."""

    def __init__(self, place: Place, stop: Stop, once: bool = True, fails: bool = False) -> None:
        self.finished: int | None = None

        def run() -> None:
            with suppress(*[JudgeError] if fails else []):
                self.finished = place.work(stop, once)

        self.thread = threading.Thread(target=run)
        self.thread.start()

    def end(self) -> int:
        self.thread.join(60)
        assert self.finished is not None
        return self.finished


def state(raw: Raw, number: int) -> tuple[object, ...]:
    (row,) = raw("SELECT state, verdict, state_why FROM submissions WHERE id = :n", n=number)
    return row


def causes(raw: Raw) -> list[str]:
    bodies = raw("SELECT body FROM events WHERE kind = 'evaluation_given_back' ORDER BY id")
    return [json.loads(body)["cause"] for (body,) in bodies]


# --- how a judge can end -------------------------------------------------------------------------


def test_a_worker_judges_what_waits_and_writes_down_what_came_of_it(place: Place, raw: Raw) -> None:
    place.hand_in("accepted")
    place.hand_in("rejected")
    place.hand_in("error")
    assert place.work() == 4  # our own failure is tried once more
    assert state(raw, 1) == ("judged", "accepted", "")
    assert state(raw, 2) == ("judged", "rejected", "")
    assert state(raw, 3) == (
        "failed", "error", "the judge failed 2 times, last: a cable was pulled"
    )  # fmt: skip
    assert [event for event, *_ in place.marks()] == ["starts", "ends"] * 4
    assert raw("SELECT * FROM workers") == []
    assert place.free()


def test_a_judge_is_told_what_to_judge_and_how(place: Place) -> None:
    place.hand_in("accepted", name="fast.py")
    place.hand_in("accepted", name="../../etc/x\n;rm.py")
    place.work()
    first, second = [json.loads(detail) for event, _, detail in place.marks() if event == "starts"]
    assert Path(first[0]).name == "fast.py"
    assert first[1::2] == ["--json", "--hparams", "--world", "--results", "--mark"]
    assert first[4:8:2] == ["hparams.json", "2"]
    assert Path(second[0]).name == "submission.py"


def test_a_worker_with_nothing_to_do_ends_if_it_was_to_do_it_once(place: Place) -> None:
    assert place.work() == 0
    assert place.marks() == []


@pytest.mark.parametrize(
    ("what", "cause"),
    [
        ("crash", "the judge ended with status 3 and no result: it says this last"),
        ("killed", "the judge ended with signal 9 and no result: it says this last"),
        ("half", "the judge ended with status 3 and no result: it says this last"),
    ],
)
def test_a_judge_without_a_result_is_tried_again_and_not_for_ever(
    place: Place, raw: Raw, what: str, cause: str
) -> None:
    place.hand_in(what)
    assert place.work() == 0
    assert causes(raw) == [cause] * 4
    failed, verdict, why = state(raw, 1)
    assert (failed, verdict) == ("failed", None)
    assert why == f"started 5 times and never finished, last: {cause}"


def test_a_machine_that_cannot_judge_ends_its_worker_and_costs_nobody_a_try(
    place: Place, raw: Raw
) -> None:
    place.hand_in("misfit")
    for _ in range(6):
        with pytest.raises(InputError, match="cannot judge this benchmark: it says this last"):
            place.work()
    assert state(raw, 1) == ("queued", None, "")
    assert raw("SELECT * FROM workers") == []


def test_a_machine_that_cannot_run_a_judge_ends_its_worker_and_costs_nobody_a_try(
    place: Place, raw: Raw
) -> None:
    place.hand_in("accepted")
    place.temporary.rmdir()  # as where its disk is full: no folder can be made in it
    for _ in range(6):
        with pytest.raises(JudgeError, match=r"cannot run a judge: .* Is the disk of"):
            place.work()
    assert state(raw, 1) == ("queued", None, "")
    assert causes(raw) == ["its worker cannot run a judge: No such file or directory"] * 6
    assert raw("SELECT * FROM workers") == []
    place.temporary.mkdir()
    assert place.work() == 1


def test_what_a_judge_says_can_be_read_while_it_works(place: Place, raw: Raw) -> None:
    place.hand_in("hang", 600)
    stop = Stop(0)
    beside = Beside(place, stop)
    wait_until(lambda: raw("SELECT progress FROM evaluations") != [("",)])
    ((progress,),) = raw("SELECT progress FROM evaluations")
    assert (
        progress
        == "timed: run 1 of 2 \N{REPLACEMENT CHARACTER}[31mred\N{REPLACEMENT CHARACTER}[0m\n"
    )
    ((doing,),) = raw("SELECT doing FROM workers")
    assert doing == "evaluation 1"
    stop.request()
    assert beside.end() == 0
    assert raw("SELECT progress FROM evaluations") == [("",)]


def test_what_is_cancelled_is_stopped_and_the_next_one_judged(
    place: Place, raw: Raw, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = place.hand_in("hang", 600)
    place.hand_in("accepted")
    monkeypatch.setattr(judging, "HEARTBEAT_SECONDS", 0.5)  # it is heard of at the next renewal
    beside = Beside(place, Stop(600))
    wait_until(lambda: raw("SELECT progress FROM evaluations WHERE id = 1") != [("",)])
    cancel(place.store, first)
    assert beside.end() == 1
    assert state(raw, 1)[0] == "cancelled"
    assert state(raw, 2)[:2] == ("judged", "accepted")
    events = [event for event, *_ in place.marks()]
    assert events == ["starts", "ends", "starts", "ends"]


# --- how a worker can end ------------------------------------------------------------------------


def test_asked_to_end_it_finishes_what_it_has_and_takes_nothing_more(
    place: Place, raw: Raw
) -> None:
    place.hand_in("accepted", 1.0)
    place.hand_in("accepted")
    stop = Stop(600)
    beside = Beside(place, stop, once=False)
    wait_until(place.marks)
    stop.request()
    assert beside.end() == 1
    assert state(raw, 1)[0] == "judged"
    assert state(raw, 2)[0] == "queued"


def test_asked_twice_it_gives_back_what_it_has_at_once(place: Place, raw: Raw) -> None:
    place.hand_in("hang", 600)
    stop = Stop(600)
    beside = Beside(place, stop)
    wait_until(place.marks)
    stop.request()
    stop.request()
    assert beside.end() == 0
    assert state(raw, 1) == ("queued", None, "")
    assert causes(raw) == ["the worker was asked to end"]
    assert [event for event, *_ in place.marks()] == ["starts", "ends"]
    assert place.free()


def test_an_idle_worker_ends_soon_after_it_is_asked(place: Place, raw: Raw) -> None:
    stop = Stop(600)
    beside = Beside(place, stop, once=False)
    wait_until(lambda: raw("SELECT doing FROM workers") == [("waiting",)])
    stop.request()
    assert beside.end() == 0
    assert raw("SELECT * FROM workers") == []


def test_a_judge_that_does_not_end_is_killed(
    place: Place, raw: Raw, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judge_process, "END_SECONDS", 0.5)
    place.hand_in("stubborn", 600)
    stop = Stop(0)
    beside = Beside(place, stop)
    wait_until(lambda: len(place.marks()) == 2)
    stop.request()
    assert beside.end() == 0
    assert state(raw, 1)[0] == "queued"
    assert not Path(f"/proc/{place.marks()[0][1]}").exists()


@pytest.mark.parametrize("signals", [1, 2])
def test_a_worker_s_process_hears_signals_as_the_command_does(
    place: Place, url: str, raw: Raw, signals: int
) -> None:
    place.hand_in("accepted", 2.0)
    process = start(works, url, place.lock, place.options, place.temporary, False)
    wait_until(place.marks)
    assert process.pid is not None
    for _ in range(signals):
        os.kill(process.pid, signal.SIGTERM)
        time.sleep(0.3)  # two of one signal at once are one
    process.join(60)
    assert process.exitcode == 0
    assert state(raw, 1)[0] == {1: "judged", 2: "queued"}[signals]


def test_a_killed_worker_takes_its_judge_with_it_and_another_goes_on(
    place: Place, url: str, raw: Raw
) -> None:
    place.hand_in("hang", 600)
    process = start(works, url, place.lock, place.options, place.temporary, True)
    wait_until(place.marks)
    kill(process)
    # Until the judge has cleaned up, nobody else may time: it still uses the machine.
    wait_until(place.free)
    assert [event for event, *_ in place.marks()] == ["starts", "ends"]
    taken = take(place.store, this_worker(), HPARAMS_SHA256)
    assert taken is not None
    assert (taken.evaluation, taken.start) == (1, 2)
    assert "ended without a word" in causes(raw)[0]
    # Only the killed one's folder is left, and `validator clean` knows that nobody will come for it.
    (left,) = place.temporary.glob("trainjudge-*")
    assert left_folders() == [left]
    remove_tree(left)


def test_two_workers_of_one_machine_judge_one_after_the_other(
    place: Place, url: str, raw: Raw
) -> None:
    for _ in range(4):
        place.hand_in("accepted", 0.2)
    processes = [
        start(works, url, place.lock, place.options, place.temporary, True) for _ in range(2)
    ]
    for process in processes:
        process.join(60)
    assert [event for event, *_ in place.marks()] == ["starts", "ends"] * 4
    assert raw("SELECT DISTINCT state FROM submissions") == [("judged",)]
    assert raw("SELECT DISTINCT starts FROM evaluations") == [(1,)]


def test_a_worker_for_once_waits_for_a_machine_that_is_in_use(place: Place, raw: Raw) -> None:
    place.hand_in("accepted")
    held = hold_machine(place.lock)
    assert held is not None
    threading.Timer(0.5, held.close).start()
    assert place.work() == 1


# --- what is kept -------------------------------------------------------------------------------


def test_a_judged_evaluation_is_kept_where_that_is_asked_for(place: Place, tmp_path: Path) -> None:
    place.artefacts = Artefacts(tmp_path / "kept", 10**9)
    place.hand_in("accepted")
    place.work()
    assert [kept.name for kept in (tmp_path / "kept").iterdir()] == ["1"]


def test_nothing_is_kept_of_an_evaluation_whose_lease_was_lost(
    place: Place, raw: Raw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.artefacts = Artefacts(tmp_path / "kept", 10**9)
    number = place.hand_in("hang", 600)
    monkeypatch.setattr(judging, "HEARTBEAT_SECONDS", 0.5)  # it is heard of at the next renewal
    beside = Beside(place, Stop(600))
    wait_until(lambda: raw("SELECT progress FROM evaluations") != [("",)])
    assert (tmp_path / "kept" / "1").is_dir()
    cancel(place.store, number)
    assert beside.end() == 0
    assert list((tmp_path / "kept").iterdir()) == []


def test_a_disk_that_keeps_nothing_ends_no_worker(place: Place, raw: Raw, tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("no folder")
    place.artefacts = Artefacts(tmp_path / "kept" / "here", 10**9)
    said: list[str] = []
    place.say = said.append
    place.hand_in("accepted")
    assert place.work() == 1
    assert state(raw, 1) == ("judged", "accepted", "")
    assert any(line.startswith("evaluations cannot be kept: ") for line in said)


# --- a store that fails -------------------------------------------------------------------------


@contextmanager
def blocked(store: Store) -> Iterator[None]:
    """Nobody else can write, for as long as this lasts."""
    with store.write():
        yield


@pytest.fixture
def impatient(place: Place, url: str) -> Iterator[Place]:
    """The same place, seen by a worker to whom a store that is busy for a moment has failed."""
    opened = open_store(url, busy_seconds=0.1)
    yield replace(place, store=opened)
    opened.close()


def test_a_result_is_written_down_when_the_store_works_again(
    place: Place, impatient: Place, raw: Raw, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.hand_in("accepted", 1.0)
    said: list[str] = []
    monkeypatch.setattr(impatient, "say", said.append)
    beside = Beside(impatient, Stop(600))

    def told() -> int:
        return sum("the worker waits for it" in line for line in said)

    wait_until(place.marks)
    with blocked(place.store):
        before = told()  # a busy machine is a failure too, to one that is as impatient
        wait_until(lambda: [event for event, *_ in place.marks()] == ["starts", "ends"])
        wait_until(told)
        time.sleep(1)
        assert told() - before <= 1
    assert beside.end() == 1
    assert state(raw, 1) == ("judged", "accepted", "")
    assert raw("SELECT starts FROM evaluations") == [(1,)]


def test_a_store_that_never_works_again_ends_the_worker(
    place: Place, impatient: Place, raw: Raw, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "PATIENCE_SECONDS", 0.5)
    monkeypatch.setattr(worker, "IDLE_SECONDS", 0.1)
    place.hand_in("accepted")
    with blocked(place.store), pytest.raises(JudgeError) as caught:
        impatient.work()
    assert caught.value.code is Code.STORE_FAILED
    assert state(raw, 1)[0] == "queued"


def test_asked_to_end_a_worker_does_not_wait_for_a_store(
    place: Place, impatient: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.hand_in("accepted")
    said: list[str] = []
    monkeypatch.setattr(impatient, "say", said.append)
    stop = Stop(600)
    began = time.monotonic()
    with blocked(place.store):
        beside = Beside(impatient, stop, once=False, fails=True)
        wait_until(lambda: said)
        stop.request()
        beside.thread.join(60)
    assert time.monotonic() - began < 30


# --- a real judge --------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_a_real_evaluation_from_handing_in_to_the_board(
    store: Store, loaded: LoadedHparams, snapshot: Snapshot, raw: Raw
) -> None:
    rule = ScoringRule(isolation=("none",), pairs=0)
    open_season(store, SeasonPlan("autumn", loaded.sha256, loaded.hparams.name, 2, "", rule))
    add_author(store, "ada")
    source = (ROOT / "submissions" / "train_ep.py").read_bytes()
    submit(store, Handed("ada", "train_ep.py", source))
    made = Job(
        loaded.path,
        loaded.sha256,
        ("--sandbox", "none", "--runs", "1", "--snapshot", str(snapshot.directory)),
        once=True,
        lock=f"\0test-{uuid4()}",
    )
    assert work(store, made, Stop(600), lambda line: None) == 1
    assert state(raw, 1) == ("judged", "accepted", "")
    ((isolation, mfus, hardware),) = raw("SELECT isolation, run_mfus, hardware FROM evaluations")
    assert isolation == "none"
    assert len(bytes(mfus)) == 8
    assert "CPU cores" in hardware
    assert check(store).problems == ()
