"""A node as a place, without Ray: every way in which a task on it can go."""

from collections.abc import Iterable

import pytest

from harness.board.judge_process import Judged
from harness.board.judging import Asked
from harness.board.queue import LeaseLostError
from harness.fleet import remote
from harness.fleet.remote import NodePlace
from harness.fleet.reports import Ended, Lost, Order, Report, Said, Unable
from tests.board.examples import accepted_result

ASKED = Asked("train.py", b"pass", 2)


class Task:
    def __init__(self, reports: Iterable[Report | None]) -> None:
        self.reports, self.ended = list(reports), False

    def next(self, seconds: float) -> Report | None:
        return self.reports.pop(0) if self.reports else None

    def end(self) -> None:
        self.ended = True


class Node:
    """A place whose task reports what it is told to."""

    def __init__(self, *reports: Report | None) -> None:
        self.task, self.told, self.lost = Task(reports), list[str](), False
        self.orders: list[Order] = []

    def judge(self, due_after: int = 1000) -> Judged:
        def start(order: Order) -> Task:
            self.orders.append(order)
            return self.task

        def lose() -> None:
            self.lost = True

        looks = iter(range(due_after))
        place = NodePlace(start, "a" * 64, lose)
        holding = place.hold()
        assert holding is not None
        with holding as held:
            return held.judge(ASKED, self.told.append, lambda: next(looks, None) is None)


def test_what_the_judge_says_is_passed_on_and_its_document_is_the_result() -> None:
    document = accepted_result().model_dump_json().encode()
    node = Node(None, Said("a"), Said("a"), Said("b"), Ended(document, 0, "done"))
    judged = node.judge()
    assert judged.result == accepted_result()
    assert node.orders == [Order("a" * 64, ASKED)]
    assert node.told[-2:] == ["a", "b"]
    assert node.task.ended
    assert not node.lost


def test_a_judge_without_a_result_ends_as_one_on_this_machine() -> None:
    judged = Node(Said(""), Ended(None, 3, "it says this last")).judge()
    assert judged.cause == "the judge ended with status 3 and no result: it says this last"


@pytest.mark.parametrize("document", [b"", b"{}", b"\x80\x04N."])
def test_what_is_no_document_is_no_result(document: bytes) -> None:
    judged = Node(Said(""), Ended(document, 0, "")).judge()
    assert judged.result is None
    assert judged.cause == "its node sent what is no result document"


def test_a_node_that_dies_is_told_and_counts_as_a_try_only_if_it_had_begun() -> None:
    begun, new = Node(Said(""), Lost("its node died")), Node(Lost("its node died"))
    assert (begun.judge().stopped, new.judge().stopped) == (False, True)
    assert begun.lost
    assert new.lost


def test_a_silent_node_is_a_lost_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "SILENCE_SECONDS", -1.0)
    node = Node(Said(""), None)
    assert "nothing was heard" in node.judge().cause
    assert node.task.ended


def test_a_node_that_can_run_no_judge_says_so() -> None:
    node = Node(Unable("its disk is full"))
    with pytest.raises(OSError, match="its disk is full"):
        node.judge()
    assert node.task.ended


def test_when_it_is_due_the_task_is_ended() -> None:
    node = Node(Said("a"))
    assert node.judge(due_after=3).stopped
    assert node.task.ended


def test_when_the_lease_is_lost_the_task_is_ended() -> None:
    task = Task([Said("a")])

    def tell(said: str) -> None:
        raise LeaseLostError

    with pytest.raises(LeaseLostError):
        NodePlace(lambda order: task, "", lambda: None).judge(ASKED, tell, lambda: False)
    assert task.ended


def test_a_machine_that_is_somebody_else_s_is_not_asked_for() -> None:
    taken = True
    document = accepted_result().model_dump_json().encode()
    place = NodePlace(lambda order: Task([Ended(document, 0, "")]), "", lambda: None, lambda: taken)
    assert place.hold() is None
    taken = False
    holding = place.hold()
    assert holding is not None
    with holding as held:
        held.judge(ASKED, lambda said: None, lambda: False)
    taken = True  # Ray's word for our own task, a moment after
    assert place.hold() is not None
