"""What a submission may leave in the outbox, and that only the committed state is believed."""

import errno
import os
import resource
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import Code, SubmissionError
from harness.opening import read as outbox
from harness.opening.files import files_allowed
from harness.opening.read import read_opened
from harness.protocol.digest import KEY_BYTES, digest_bytes, digest_many
from harness.protocol.messages import Commitment, Piece
from harness.protocol.opening import file_name, write_opened
from harness.tensors.boxes import Box, StoredPiece

KEY = bytes(range(KEY_BYTES))
LIMIT = 1 << 20
FILES = 1024


@dataclass(frozen=True)
class Held:
    name: str
    offset: tuple[int, ...]
    tensor: torch.Tensor


STATE = (
    Held("a", (0, 0), torch.arange(12, dtype=torch.float32).view(3, 4)),
    Held("b", (2,), torch.arange(5).to(torch.bfloat16)),
    Held("a", (3, 0), torch.arange(8, dtype=torch.float32).view(2, 4)),
)
SHAPES = {"a": (5, 4), "b": (7,), **{f"n{number}": (16,) for number in range(8)}}


def commit(held: tuple[Held, ...] = STATE) -> Commitment:
    digests = digest_many([box.tensor for box in held], KEY, threads=1)
    return Commitment(
        run=0,
        pieces=tuple(
            Piece(
                name=box.name,
                tensor_shape=SHAPES[box.name],
                offset=box.offset,
                shape=tuple(box.tensor.shape),
                dtype=str(box.tensor.dtype).removeprefix("torch."),
                digest=digest,
            )
            for box, digest in zip(held, digests, strict=True)
        ),
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A rank's folder with an honest opening of STATE."""
    folder = tmp_path / "run0-rank3"
    write_opened(folder, STATE, shard=4)
    return folder


def read(folder: Path, max_bytes: int = LIMIT) -> dict[int, StoredPiece]:
    return read_opened(folder, commit(), [0, 1, 2], KEY, max_bytes, FILES)


def refused(folder: Path, **options: Any) -> SubmissionError:
    with pytest.raises(SubmissionError) as caught:
        read(folder, **options)
    assert "run0-rank3" in caught.value.message
    assert caught.value.message.isascii() and caught.value.message.isprintable()
    return caught.value


def test_an_honest_opening_is_read_back(folder: Path) -> None:
    pieces = read(folder)
    assert sorted(pieces) == [0, 1, 2]
    for index, held in enumerate(STATE):
        piece = pieces[index]
        assert (piece.name, piece.tensor_shape) == (held.name, SHAPES[held.name])
        assert piece.box == Box(held.offset, tuple(held.tensor.shape))
        assert bytes(piece.data) == bytes(held.tensor.reshape(-1).view(torch.uint8).numpy())
        with pytest.raises(ValueError, match="read-only"):
            piece.data[0] = 1


def test_only_what_was_ordered_may_be_there(tmp_path: Path) -> None:
    folder = tmp_path / "run0-rank3"
    write_opened(folder, STATE[:2], shard=4)
    assert sorted(read_opened(folder, commit(), [0, 1], KEY, LIMIT, FILES)) == [0, 1]
    with pytest.raises(SubmissionError, match="it holds 2 tensors, more than 1"):
        read_opened(folder, commit(), [0], KEY, LIMIT, FILES)
    with pytest.raises(SubmissionError, match="'a' was not asked for"):
        read_opened(folder, commit(), [1, 2], KEY, LIMIT, FILES)
    assert "'a' committed to, but not opened" in refused(folder).message


def test_nothing_is_read_after_the_first_box_that_was_not_asked_for(tmp_path: Path) -> None:
    """Else a thousand files of a rank with the longest of headers would keep the judge for an hour."""
    folder = tmp_path / "run0-rank3"
    write_opened(folder, [STATE[1]], shard=4)
    (folder / "shard-99999-model-00001-of-00001.safetensors").write_bytes(b"no safetensors")
    with pytest.raises(SubmissionError, match="'b' was not asked for"):
        read_opened(folder, commit(), [0, 2], KEY, LIMIT, FILES)


@pytest.mark.parametrize("index", range(3))
def test_a_changed_bit_breaks_the_commitment(tmp_path: Path, index: int) -> None:
    changed = [Held(box.name, box.offset, box.tensor.clone()) for box in STATE]
    changed[index].tensor.view(-1).view(torch.uint8)[-1] ^= 1
    folder = tmp_path / "run0-rank3"
    write_opened(folder, changed, shard=4)
    error = refused(folder)
    assert error.code == Code.COMMITMENT_BROKEN
    assert f"'{STATE[index].name}'" in error.message


def test_a_claimed_digest_is_computed_again(folder: Path) -> None:
    honest = commit()
    pieces = list(honest.pieces)
    pieces[1] = msgspec.structs.replace(pieces[1], digest="0123456789abcdef" * 4)
    claimed = msgspec.structs.replace(honest, pieces=tuple(pieces))
    with pytest.raises(SubmissionError) as caught:
        read_opened(folder, claimed, [0, 1, 2], KEY, LIMIT, FILES)
    assert caught.value.code == Code.COMMITMENT_BROKEN
    assert "clock stopped: 'b' differ" in caught.value.message


def test_a_digest_under_another_key_breaks_the_commitment(folder: Path) -> None:
    with pytest.raises(SubmissionError) as caught:
        read_opened(folder, commit(), [0, 1, 2], bytes(KEY_BYTES), LIMIT, FILES)
    assert caught.value.code == Code.COMMITMENT_BROKEN
    assert "'a', 'b', 'a' differ" in caught.value.message


def test_what_has_changed_is_named_in_the_order_of_the_commitment(tmp_path: Path) -> None:
    """Not in that of the sizes, in which it is found."""
    names = [f"n{number}" for number in range(8)]
    committed = tuple(
        Held(name, (0,), torch.full((4 + 3 * number % 8,), 1.0))
        for number, name in enumerate(names)
    )
    changed = [Held(it.name, it.offset, it.tensor + 1) for it in committed[:6]]
    folder = tmp_path / "run0-rank3"
    write_opened(folder, [*changed, *committed[6:]], shard=4)
    with pytest.raises(SubmissionError) as caught:
        read_opened(folder, commit(committed), range(8), KEY, LIMIT, FILES)
    listed = ", ".join(f"'{name}'" for name in names[:5])
    assert f"clock stopped: {listed} and 1 more differ." in caught.value.message


@pytest.mark.parametrize("threads", [1, 4])
def test_the_number_of_threads_changes_nothing(folder: Path, threads: int) -> None:
    pieces = read_opened(folder, commit(), [2, 0, 1], KEY, LIMIT, FILES, threads=threads)
    assert [pieces[index].data.size for index in range(3)] == [48, 10, 32]


def test_another_dtype_of_the_same_bytes_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "run0-rank3"
    as_ints = Held("a", (0, 0), STATE[0].tensor.view(torch.int32))
    write_opened(folder, [as_ints, *STATE[1:]], shard=4)
    assert "'a' is int32, committed as float32" in refused(folder).message


OTHER_BOXES: dict[str, Held] = {
    "another place": Held("a", (2, 0), STATE[0].tensor),
    "another name": Held("c", (0, 0), STATE[0].tensor),
    "another shape of the same bytes": Held("a", (0, 0), STATE[0].tensor.view(4, 3)),
    "a row more": Held("a", (0, 0), torch.zeros(4, 4)),
    "a row less": Held("a", (0, 0), torch.zeros(2, 4)),
    "another rank's": Held("a", (3, 2), torch.zeros(2, 2)),
}


@pytest.mark.parametrize("kind", OTHER_BOXES)
def test_another_box_than_the_one_committed_to_is_refused(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "run0-rank3"
    write_opened(folder, [OTHER_BOXES[kind], *STATE[1:]], shard=4)
    error = refused(folder)
    assert error.code == Code.OUTBOX_INVALID
    assert f"'{OTHER_BOXES[kind].name}' was not asked for" in error.message


def test_a_box_may_not_be_there_twice(folder: Path) -> None:
    (folder / file_name(4, 3, 3)).write_bytes((folder / file_name(4, 2, 2)).read_bytes())
    error = refused(folder)
    assert error.code == Code.OUTBOX_INVALID
    assert "a box of 'a' was not asked for, or is there twice" in error.message


def test_five_of_the_boxes_that_were_not_opened_are_named(tmp_path: Path) -> None:
    held = tuple(Held(f"n{number}", (0,), torch.ones(1)) for number in range(6))
    folder = tmp_path / "run0-rank3"
    folder.mkdir()
    for count, said in (
        (5, "run0-rank3: 'n0', 'n1', 'n2', 'n3', 'n4' committed to, but not opened"),
        (6, "run0-rank3: 'n0', 'n1', 'n2', 'n3', 'n4' and 1 more committed to, but not opened"),
    ):
        with pytest.raises(SubmissionError) as caught:
            read_opened(folder, commit(held), range(count), KEY, LIMIT, FILES)
        assert caught.value.code == Code.OUTBOX_INVALID
        assert said in caught.value.message


def test_nothing_ordered_is_nothing_opened(tmp_path: Path) -> None:
    folder = tmp_path / "run0-rank3"
    folder.mkdir()
    assert read_opened(folder, commit(), [], KEY, LIMIT, FILES) == {}


def test_more_files_than_descriptors_by_default_can_be_read(tmp_path: Path) -> None:
    """Per-expert names make one file for each expert; mapped files keep their descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2_000:
        pytest.skip("this machine allows too few open files")
    held = tuple(Held("a", (index % 5, index // 5), torch.ones(1, 1)) for index in range(20))
    folder = tmp_path / "run0-rank3"
    assert len(write_opened(folder, held, shard=4)) == 20
    used = len(list(Path("/proc/self/fd").iterdir()))
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + 10, hard))
        pieces = read_opened(folder, commit(held), range(20), KEY, LIMIT, files_allowed(2, 3))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(pieces) == 20


# --- things that are no files of an opening -----------------------------------------------------


def make_device(kind: int) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        try:
            os.mknod(path, kind | 0o600, os.makedev(1, 3))
        except PermissionError:
            pytest.skip("only root can make a device")

    return make


ADDITIONS: dict[str, Callable[[Path], object]] = {
    "symbolic link": lambda path: path.symlink_to("/etc/passwd"),
    "FIFO": os.mkfifo,
    "folder": Path.mkdir,
    "socket": lambda path: os.mknod(path, stat.S_IFSOCK | 0o600),
    "device": make_device(stat.S_IFCHR),
    "file": lambda path: path.write_bytes(b"x"),
}


@pytest.mark.parametrize("kind", ADDITIONS)
def test_anything_else_in_the_folder_is_refused_by_kind(folder: Path, kind: str) -> None:
    name = "ext\x1b[31mra" if kind == "file" else file_name(4, 9, 9)
    ADDITIONS[kind](folder / name)
    error = refused(folder)
    assert error.code == Code.OUTBOX_INVALID
    assert f"({kind})" in error.message


def test_digits_of_another_script_are_no_name_of_a_file_of_ours(folder: Path) -> None:
    name = file_name(4, 9, 9).replace("4", "\u0664")
    (folder / name).touch()
    message = refused(folder).message
    assert "unexpected in the outbox" in message
    assert message.isascii()


def test_a_disk_is_refused_as_a_device_too(folder: Path) -> None:
    make_device(stat.S_IFBLK)(folder / file_name(4, 9, 9))
    assert "(device)" in refused(folder).message


@pytest.mark.parametrize(
    "name",
    [
        "shard-00004-model-00003-of-00003.safetensors\n",
        "shard-00004-model-00003-of-00003.safetensors.tmp",
        "shard-00004-model-00003-of-00003-safetensors",
        " shard-00004-model-00003-of-00003.safetensors",
        "SHARD-00004-MODEL-00003-OF-00003.SAFETENSORS",
        "shard-0004-model-00003-of-00003.safetensors",
        "shard-000004-model-00003-of-00003.safetensors",
        "shard-00004-model-0003-of-00003.safetensors",
        "shard-00004-model-000003-of-00003.safetensors",
        "shard-00004-model-00003-of-0003.safetensors",
        "shard-00004-model-00003-of-000003.safetensors",
        "shard-00004-model-00003.safetensors",
        "model.safetensors",
        ".hidden",
    ],
    ids=ascii,
)
def test_a_file_of_any_other_name_is_refused_unread(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"")
    error = refused(folder)
    assert error.code == Code.OUTBOX_INVALID
    assert f"unexpected in the outbox: {name!a} (file)" in error.message


def test_five_of_the_unexpected_are_named(folder: Path) -> None:
    for number in range(5):
        (folder / f"x{number}").touch()
    assert "more" not in refused(folder).message
    (folder / "x5").touch()
    message = refused(folder).message
    assert message.count("(file)") == 5
    assert "and 1 more" in message


def test_not_all_of_a_crowd_is_looked_at(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sandbox may have left a hundred thousand of them."""
    looked_at: list[int] = []

    def kind(mode: int) -> str:
        looked_at.append(mode)
        return "file"

    monkeypatch.setattr(outbox, "_kind", kind)
    for number in range(50):
        (folder / f"x{number}").touch()
    assert "unexpected in the outbox" in refused(folder).message
    assert len(looked_at) < 10


def test_a_name_that_is_no_text_is_shown_escaped(folder: Path) -> None:
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff\xfe\n")).write_bytes(b"")
    assert "\\udcff" in refused(folder).message


@pytest.mark.parametrize("kind", ["link", "file", "nothing"])
def test_the_rank_folder_itself_must_be_a_folder(folder: Path, kind: str) -> None:
    moved = folder.rename(folder.parent / "elsewhere")
    if kind == "link":
        folder.symlink_to(moved)
    elif kind == "file":
        folder.write_bytes(b"")
    error = refused(folder)
    assert error.code == Code.OUTBOX_INVALID
    assert "no folder of this rank" in error.message


def test_a_sparse_giant_is_refused_without_reading_it(folder: Path) -> None:
    with (folder / file_name(4, 3, 3)).open("wb") as file:
        file.truncate(1 << 40)
    assert "bytes where" in refused(folder).message


def test_the_limit_is_for_all_files_together(folder: Path) -> None:
    total = sum(path.stat().st_size for path in folder.iterdir())
    assert read(folder, max_bytes=total)
    assert "bytes where" in refused(folder, max_bytes=total - 1).message


def test_a_hard_link_to_a_file_elsewhere_is_refused(folder: Path) -> None:
    (path, *_) = folder.iterdir()
    os.link(path, folder.parent / "second")
    assert "hard link" in refused(folder).message


# --- files that are none -------------------------------------------------------------------------


def test_the_first_malformed_file_by_name_is_the_one_that_is_named(folder: Path) -> None:
    """Not the first in the order of the disk: the same outbox gets the same verdict anywhere."""
    for number in (6, 3, 8, 5, 9, 4, 7):
        (folder / file_name(4, number, 9)).write_bytes(b"x")
    error = refused(folder)
    assert error.code == Code.OUTBOX_INVALID
    assert f"run0-rank3: {file_name(4, 3, 9)}: the file is too short" in error.message


@pytest.mark.parametrize("change", [-1, 1], ids=["cut", "grown"])
def test_a_file_whose_size_has_changed_is_refused(folder: Path, change: int) -> None:
    path = folder / file_name(4, 1, 2)
    os.truncate(path, path.stat().st_size + change)
    error = refused(folder)
    assert error.code == Code.OUTBOX_INVALID
    assert "bytes of data" in error.message


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user, so that modes count")
@pytest.mark.parametrize("mode", [0o000, 0o111, 0o444, 0o644])
def test_a_folder_that_a_rank_has_closed_is_its_own_fault(folder: Path, mode: int) -> None:
    """A judge that is an ordinary user may not look into it, and must not break down over that."""
    folder.chmod(mode)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setuid(65_534)
            read(folder)
        except SubmissionError as error:
            os.write(writing, f"{error.code}: {error.message}".encode())
        except BaseException as error:
            os.write(writing, repr(error).encode())
        finally:
            os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading) as said:
        assert said.read().startswith("outbox_invalid: run0-rank3: no folder of this rank that can")


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO])
def test_what_is_certainly_ours_is_not_held_against_a_rank(
    folder: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "scandir", fail)
    with pytest.raises(OSError, match=os.strerror(number)):
        read(folder)


def test_a_broken_disk_is_not_the_submissions_fault(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(outbox, "read_shard", fail)
    with pytest.raises(OSError, match="Input/output error"):
        read(folder)


def test_no_descriptor_of_the_folder_is_left(folder: Path) -> None:
    def open_folders() -> list[str]:
        links = [str(path.readlink()) for path in Path("/proc/self/fd").iterdir() if path.is_dir()]
        return [link for link in links if link == str(folder)]

    read(folder)
    (folder / "x").touch()
    refused(folder)
    assert open_folders() == []


@given(position=st.integers(0, 10_000), bit=st.integers(0, 7))
@settings(max_examples=100, deadline=None)
def test_a_flipped_bit_anywhere_in_a_file_is_noticed_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, position: int, bit: int
) -> None:
    """Whatever parses must still be the committed bytes; whatever doesn't is the rank's fault."""
    folder = tmp_path_factory.mktemp("flip") / "run0-rank3"
    path, *_ = write_opened(folder, STATE, shard=4)
    raw = bytearray(path.read_bytes())
    raw[position % len(raw)] ^= 1 << bit
    path.write_bytes(raw)
    try:
        pieces = read(folder)
    except SubmissionError as error:
        assert error.code in (Code.OUTBOX_INVALID, Code.COMMITMENT_BROKEN)
    else:
        for index, piece in pieces.items():
            assert digest_bytes(np.array(piece.data), KEY) == commit().pieces[index].digest


def test_thousands_of_files_are_refused_before_the_first_is_opened(tmp_path: Path) -> None:
    """Every mapped file takes a descriptor of the judge's."""
    folder = tmp_path / "run0-rank3"
    folder.mkdir()
    for number in range(1_024):
        (folder / file_name(9, number, 99_999)).write_bytes(b"\2\0\0\0\0\0\0\0{}")
    assert read_opened(folder, commit(), [], KEY, LIMIT, FILES) == {}
    (folder / file_name(9, 1_024, 99_999)).touch()
    assert "more than 1024 files" in refused(folder).message
