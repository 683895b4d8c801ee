"""What a sandbox has left on one machine reaches the judge as it is, or not at all."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from harness.errors import Code, SubmissionError
from harness.nodes.outbox import Receiving, sent
from harness.nodes.words import FROM_AGENT, PORTION, Folder, Odd, Piece, Word

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


HERE = range(1, 2)
AMPLE = 1 << 30


def over_the_wire(word: Word) -> Folder | Piece | Odd:
    """What does not fit the words would be a lost machine: it has to be said as odd."""
    found = FROM_AGENT.decode(msgspec.msgpack.encode(word))
    assert isinstance(found, (Folder, Piece, Odd))
    return found


def receive(outbox: Path, judges: Path, most_there: int = AMPLE, most_here: int = AMPLE) -> None:
    receiving = Receiving(judges, HERE, most_here)
    for word in sent(outbox, HERE, 10, most_there):
        receiving.take(over_the_wire(word))


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


def unknown_rank(outbox: Path) -> None:
    (outbox / "run0-rank99999").mkdir()


def other_machines_rank(outbox: Path) -> None:
    (outbox / "run0-rank0").mkdir()


def second_name(outbox: Path) -> None:
    (outbox / "run00-rank1").mkdir()


def other_digits(outbox: Path) -> None:
    (outbox / "run0-rank\u0661").mkdir()


def sparse(outbox: Path) -> None:
    with (outbox / "run0-rank1" / SHARD).open("wb") as file:
        file.truncate(AMPLE + 1)


def too_many(outbox: Path) -> None:
    for number in range(11):
        (outbox / "run0-rank1" / f"shard-{number:05d}-model-00001-of-00001.safetensors").touch()


@pytest.mark.parametrize(
    "leave",
    [
        linked, linked_folder, pipe, other_file, other_folder, file_beside, unknown_rank,
        other_machines_rank, second_name, other_digits, sparse, too_many,
    ],
)  # fmt: skip
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
    for limits in ((2 * PORTION, AMPLE), (AMPLE, 2 * PORTION)):
        with pytest.raises(SubmissionError, match="more than the limit"):
            receive(outbox, judges, *limits)
        assert (judges / "run0-rank1" / SHARD).stat().st_size <= 2 * PORTION
        shutil.rmtree(judges / "run0-rank1")


def test_no_machine_speaks_for_another_ones_rank(judges: Path) -> None:
    receiving = Receiving(judges, HERE, AMPLE)
    for word in (Folder(0, 0), Piece(0, 0, SHARD, b"x")):
        with pytest.raises(SubmissionError, match="on which it was not"):
            receiving.take(word)


def test_a_folder_that_is_sent_twice_is_refused(judges: Path) -> None:
    receiving = Receiving(judges, HERE, AMPLE)
    receiving.take(Folder(0, 1))
    with pytest.raises(SubmissionError, match="twice"):
        receiving.take(Folder(0, 1))


def test_what_is_odd_is_quoted_and_not_printed(outbox: Path) -> None:
    (outbox / "a\x1b[2Jb").mkdir()
    words = [word for word in sent(outbox, HERE, 4, AMPLE) if isinstance(word, Odd)]
    assert len(words) == 1 and "\x1b" not in words[0].what
