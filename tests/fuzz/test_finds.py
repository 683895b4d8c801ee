"""What fuzzing has found stays mended; and the targets do notice a defect."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.protocol.wire import FrameBuffer
from tests.fuzz import targets
from tests.fuzz.targets import FINDS, TARGETS


def found() -> Iterator[tuple[str, Path]]:
    for name in TARGETS:
        for path in sorted((FINDS / name).glob("*")):
            yield name, path


@pytest.mark.parametrize(
    ("name", "path"), list(found()), ids=lambda value: getattr(value, "name", value)
)
def test_what_was_found_is_mended(name: str, path: Path) -> None:
    TARGETS[name].feed(path.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_are_fed(name: str) -> None:
    seeds = list(TARGETS[name].seeds())
    assert len(seeds) >= 3
    for seed in seeds:
        TARGETS[name].feed(seed)


def test_every_find_is_of_a_target() -> None:
    assert {path.name for path in FINDS.iterdir()} <= set(TARGETS)


class Hasty(FrameBuffer):
    """Takes what has arrived for a whole frame."""

    def pop(self, limit: int) -> bytes | None:
        whole = bytes(self._data)
        self._data.clear()
        return whole or None


def test_frames_that_depend_on_the_portions_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "FrameBuffer", Hasty)
    with pytest.raises(AssertionError, match="portions"):
        targets.frames(b"\x02\x00\x00\x00\x08abcdefgh")


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("messages", "parse_from_rank"),
        ("shards", "read_shard"),
        ("strategies", "strategy_of"),
    ],
)
def test_an_undeclared_exception_is_noticed(
    name: str, function: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*given: object) -> None:
        raise KeyError(json.dumps("a defect"))

    monkeypatch.setattr(targets, function, broken)
    with pytest.raises(KeyError):
        TARGETS[name].feed(next(iter(TARGETS[name].seeds())))
