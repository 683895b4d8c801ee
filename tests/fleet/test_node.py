"""Judging on a node, without Ray: a seat, an order, reports."""

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest

from harness.board.judging import Asked
from harness.errors import InputError
from harness.fleet import node
from harness.fleet.node import SEAT, HeldBenchmark, Seat, this_seat, work_here
from harness.fleet.reports import Ended, Order, Report, Said, Unable
from harness.host.timing import hold_machine
from harness.result import EvaluationResult
from harness.timed.workspace import JUDGE
from tests.board.acting import STANDIN
from tests.board.examples import accepted_result, train_file
from tests.fleet.test_offer import OFFER

BENCHMARK = "a" * 64


@dataclass
class Here:
    """This machine as a node.

    Attributes:
        folder: with the file that names the seat, and what judges say.
        temporary: where judges have their folders.
    """

    folder: Path
    temporary: Path
    seat: Seat

    def judge(self, what: str, seconds: float = 0.0) -> Iterator[Report]:
        source = f"# judge: {what} {seconds}\n".encode() + train_file()
        return work_here(Order(BENCHMARK, Asked("train.py", source, 2, ("--runs", "3"))))

    def marks(self) -> list[str]:
        path = self.folder / "marks"
        return path.read_text().splitlines() if path.exists() else []

    def sit(self, **changes: object) -> None:
        self.seat = self.seat.model_copy(update=changes)
        (self.folder / "seat.json").write_text(self.seat.model_dump_json())


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Here]:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.setenv(SEAT, str(tmp_path / "seat.json"))
    (tmp_path / "accepted.json").write_text(accepted_result().model_dump_json())
    made = Here(
        tmp_path,
        temporary,
        Seat(
            offer=OFFER,
            benchmarks={BENCHMARK: HeldBenchmark(hparams=Path("h.json"), snapshot=Path("s"))},
            options=("--results", str(tmp_path), "--mark", str(tmp_path / "marks")),
            judge=STANDIN,
            lock=f"\0test-{uuid4()}",
        ),
    )
    made.sit()
    yield made
    assert list(temporary.glob("trainjudge-*")) == []


def test_a_file_is_judged_with_what_the_node_and_the_order_say(here: Here) -> None:
    *said, ended = here.judge("accepted")
    assert all(isinstance(each, Said) for each in said)
    assert isinstance(ended, Ended)
    assert (ended.status, ended.last_line) == (0, "it says this last")
    assert ended.document is not None
    assert EvaluationResult.model_validate_json(ended.document) == accepted_result()
    starts = here.marks()[0]
    assert '"--hparams", "h.json", "--snapshot", "s", "--world", "2", "--results"' in starts
    assert starts.endswith('"--runs", "3"]')


def test_a_judge_without_a_result_has_no_document(here: Here) -> None:
    *_, ended = here.judge("crash")
    assert ended == Ended(None, 3, "it says this last")


def test_whoever_stops_listening_ends_the_judge(here: Here) -> None:
    reports = here.judge("hang", 600)
    assert isinstance(next(reports), Said)
    while not here.marks():
        next(reports)
    reports.close()  # type: ignore[attr-defined]
    assert [line.split()[0] for line in here.marks()] == ["starts", "ends"]
    held = hold_machine(here.seat.lock)
    assert held is not None
    held.close()


def test_a_machine_that_is_in_use_is_waited_for_and_not_for_ever(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node, "HOLD_SECONDS", 0.3)
    held = hold_machine(here.seat.lock)
    assert held is not None
    with held:
        assert list(here.judge("accepted")) == [Unable("something else is timed on this machine")]
    assert here.marks() == []


def test_a_node_that_cannot_run_a_judge_says_why(here: Here) -> None:
    here.sit(judge=("/no/such/program",))
    assert list(here.judge("accepted")) == [Unable("No such file or directory")]


def test_what_a_killed_judge_left_is_cleared_before_the_next(here: Here) -> None:
    left = here.temporary / "trainjudge-worker-dead"
    (left / "private").mkdir(parents=True)
    namespace = Path("/proc/self/ns/pid").readlink()
    (left / "private" / JUDGE).write_text(f"{namespace} 999999999 1")
    list(here.judge("accepted"))
    assert not left.exists()


def test_threads_that_ray_has_limited_are_not_the_judge_s(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_start = b"OMP_NUM_THREADS=" in Path("/proc/self/environ").read_bytes()
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    list(here.judge("accepted"))
    assert ("OMP_NUM_THREADS" in os.environ) == at_start


def test_a_process_on_no_node_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SEAT, raising=False)
    with pytest.raises(InputError, match="no node that `validator fleet join` has started"):
        this_seat()
