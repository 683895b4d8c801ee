"""What is new between two looks: every line once, in order."""

from typing import Any

import pytest

from harness.client import RemoteEvent, RemoteStatus, news


def _seen(**changes: Any) -> RemoteStatus:
    given: dict[str, Any] = {
        "id": 17,
        "author": "ada",
        "file_name": "train.py",
        "season": "autumn",
        "state": "running",
        "why": "",
        "verdict": None,
        "code": "",
        "message": "",
        "run_mfus": (),
        "position": None,
        "progress": (),
        "history": (),
    }
    return RemoteStatus(**(given | changes))


def test_the_first_look_shows_all_that_happened() -> None:
    events = (RemoteEvent(id=3, text="handed in"), RemoteEvent(id=4, text="queued"))
    assert news(None, _seen(history=events, progress=("loading",))) == [
        "handed in",
        "queued",
        "loading",
    ]


def test_an_event_is_told_once() -> None:
    first = RemoteEvent(id=3, text="handed in")
    second = RemoteEvent(id=9, text="started")
    before = _seen(history=(first,))
    assert news(before, _seen(history=(first, second))) == ["started"]
    assert news(before, before) == []


def test_its_turn_is_told_when_it_changes() -> None:
    third = _seen(state="queued", position=3)
    assert news(None, third) == ["it waits, 2 before it"]
    assert news(third, third) == []
    assert news(third, _seen(state="queued", position=1)) == ["it waits, and is next"]
    assert news(third, _seen(state="queued", position=None)) == ["it waits for its turn"]
    assert news(third, _seen(state="running")) == []


@pytest.mark.parametrize(
    ("before", "now", "new"),
    [
        ((), ("a", "b"), ["a", "b"]),
        (("a",), ("a", "b", "c"), ["b", "c"]),
        (("a", "b"), ("a", "b"), []),
        (("a", "b", "c"), ("b", "c", "d"), ["d"]),
        (("loading", "run 1", "run 2"), ("n 1", "run 2", "run 3"), ["run 3"]),
        (("run", "run"), ("run", "run", "run"), ["run"]),
        # Another evaluation, after the first was given back.
        (("loading", "run 1"), ("reading",), ["reading"]),
        (("a", "b"), (), []),
    ],
)
def test_a_line_of_the_judge_is_told_once(
    before: tuple[str, ...], now: tuple[str, ...], new: list[str]
) -> None:
    assert news(_seen(progress=before), _seen(progress=now)) == new
