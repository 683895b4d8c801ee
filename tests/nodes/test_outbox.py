"""What a sandbox has left on one machine reaches the judge as it is, or not at all."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.errors import Code, SubmissionError
from harness.nodes.outbox import Receiving, sent
from harness.nodes.words import PORTION, Folder, Odd, Piece

SHARD = "shard-00001-model-00001-of-00001.safetensors"


@pytest.fixture
def outbox(tmp_path: Path) -> Path:
    folder = tmp_path / "outbox"
    (folder / "run0-rank1").mkdir(parents=True)
    return folder


@pytest.fixture
def judges(tmp_path: Path) -> Path:
    folder = tmp_path / "judges"
    folder.mkdir()
    return folder


def receive(outbox: Path, judges: Path, most_bytes: int = 1 << 30, most_files: int = 4) -> None:
    receiving = Receiving(judges, frozenset({1}), most_bytes, most_files)
    for word in sent(outbox, 10):
        receiving.take(word)


@pytest.mark.parametrize("size", [0, 1, PORTION, PORTION + 1])
def test_files_of_any_size_arrive_byte_for_byte(outbox: Path, judges: Path, size: int) -> None:
    data = os.urandom(size)
    (outbox / "run0-rank1" / SHARD).write_bytes(data)
    (outbox / "run1-rank1").mkdir()
    receive(outbox, judges)
    assert (judges / "run0-rank1" / SHARD).read_bytes() == data
    assert list((judges / "run1-rank1").iterdir()) == []


def linked(outbox: Path) -> None:
    (outbox / "run0-rank1" / SHARD).symlink_to("/etc/passwd")


def linked_folder(outbox: Path) -> None:
    (outbox / "run1-rank1").symlink_to("/etc")


def pipe(outbox: Path) -> None:
    os.mkfifo(outbox / "run0-rank1" / SHARD)


def other_file(outbox: Path) -> None:
    (outbox / "run0-rank1" / "notes.txt").write_text("x")


def other_folder(outbox: Path) -> None:
    (outbox / "results").mkdir()


def file_beside(outbox: Path) -> None:
    (outbox / "flood").write_text("x")


def too_many(outbox: Path) -> None:
    for number in range(11):
        (outbox / "run0-rank1" / f"shard-{number:05d}-model-00001-of-00001.safetensors").touch()


@pytest.mark.parametrize(
    "leave", [linked, linked_folder, pipe, other_file, other_folder, file_beside, too_many]
)
def test_whatever_else_lies_there_is_said_and_not_sent(
    outbox: Path, judges: Path, leave: Callable[[Path], None]
) -> None:
    leave(outbox)
    with pytest.raises(SubmissionError) as refused:
        receive(outbox, judges)
    assert refused.value.code is Code.OUTBOX_INVALID
    assert not [path for path in judges.rglob("*") if path.is_symlink()]
    assert b"root:" not in b"".join(p.read_bytes() for p in judges.rglob("*") if p.is_file())


def test_more_bytes_than_the_limit_are_refused_before_they_are_written(
    outbox: Path, judges: Path
) -> None:
    (outbox / "run0-rank1" / SHARD).write_bytes(bytes(3 * PORTION))
    with pytest.raises(SubmissionError, match="more in the outbox than the limit"):
        receive(outbox, judges, most_bytes=2 * PORTION)
    assert (judges / "run0-rank1" / SHARD).stat().st_size <= 2 * PORTION


def test_no_machine_speaks_for_another_ones_rank(judges: Path) -> None:
    receiving = Receiving(judges, frozenset({1}), 1 << 20, 4)
    for word in (Folder(0, 0), Piece(0, 0, SHARD, 1, b"x")):
        with pytest.raises(SubmissionError, match="on which it was not"):
            receiving.take(word)


def test_what_is_odd_is_quoted_and_not_printed(outbox: Path) -> None:
    (outbox / "a\x1b[2Jb").mkdir()
    words = [word for word in sent(outbox, 4) if isinstance(word, Odd)]
    assert len(words) == 1 and "\x1b" not in words[0].what
