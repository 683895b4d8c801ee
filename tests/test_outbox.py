"""What a submission may leave in the outbox, and that only the committed state is believed."""

import hashlib
import json
import os
import resource
import stat
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import Code, SubmissionError
from harness.protocol.digest import digest_many
from harness.protocol.messages import Commitment, Piece
from harness.protocol.opening import file_name, write_opened
from harness.sandbox.outbox import MAX_FILES, read_opened
from harness.sandbox.shards import ShardError, read_shard
from harness.verify.pieces import Box, StoredPiece

KEY = 0xA5A5_0000_1234_FFFF
LIMIT = 1 << 20


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
SHAPES = {"a": (5, 4), "b": (7,)}


def commit(held: tuple[Held, ...] = STATE, bind: bool = True) -> Commitment:
    digests = digest_many([box.tensor for box in held], KEY, bind=bind, threads=1)
    return Commitment(
        run=0,
        pieces=tuple(
            Piece(
                name=box.name,
                tensor_shape=SHAPES[box.name],
                offset=box.offset,
                shape=tuple(box.tensor.shape),
                dtype=str(box.tensor.dtype).removeprefix("torch."),
                digest=digest.digest,
                sha256=digest.sha256,
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


def read(folder: Path, bind: bool = True, max_bytes: int = LIMIT) -> dict[int, StoredPiece]:
    return read_opened(folder, commit(bind=bind), [0, 1, 2], KEY, max_bytes, bind=bind)


def refused(folder: Path, **options: Any) -> SubmissionError:
    with pytest.raises(SubmissionError) as caught:
        read(folder, **options)
    assert "run0-rank3" in caught.value.message
    assert caught.value.message.isascii() and caught.value.message.isprintable()
    return caught.value


@pytest.mark.parametrize("bind", [True, False])
def test_an_honest_opening_is_read_back(folder: Path, bind: bool) -> None:
    pieces = read(folder, bind)
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
    assert sorted(read_opened(folder, commit(), [0, 1], KEY, LIMIT, bind=True)) == [0, 1]
    with pytest.raises(SubmissionError, match="not asked for"):
        read_opened(folder, commit(), [0], KEY, LIMIT, bind=True)
    assert "'a' committed to, but not opened" in refused(folder).message


@pytest.mark.parametrize("index", range(3))
def test_a_changed_bit_breaks_the_commitment(tmp_path: Path, index: int) -> None:
    changed = [Held(box.name, box.offset, box.tensor.clone()) for box in STATE]
    changed[index].tensor.view(-1).view(torch.uint8)[-1] ^= 1
    folder = tmp_path / "run0-rank3"
    write_opened(folder, changed, shard=4)
    error = refused(folder)
    assert error.code == Code.COMMITMENT_BROKEN
    assert f"'{STATE[index].name}' (the digest)" in error.message


def test_a_missing_sha256_breaks_the_commitment(folder: Path) -> None:
    with pytest.raises(SubmissionError, match="SHA-256") as caught:
        read_opened(folder, commit(bind=False), [0, 1, 2], KEY, LIMIT, bind=True)
    assert caught.value.code == Code.COMMITMENT_BROKEN


def test_another_dtype_of_the_same_bytes_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "run0-rank3"
    as_ints = Held("a", (0, 0), STATE[0].tensor.view(torch.int32))
    write_opened(folder, [as_ints, *STATE[1:]], shard=4)
    assert "int32, committed as float32" in refused(folder).message


def test_boxes_may_not_trade_places(tmp_path: Path) -> None:
    folder = tmp_path / "run0-rank3"
    write_opened(folder, [Held("a", (2, 0), STATE[0].tensor), *STATE[1:]], shard=4)
    assert refused(folder).code == Code.OUTBOX_INVALID


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
        pieces = read_opened(folder, commit(held), range(20), KEY, LIMIT, bind=True)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(pieces) == 20


# --- things that are no files of an opening -----------------------------------------------------


ADDITIONS: dict[str, Callable[[Path], object]] = {
    "symbolic link": lambda path: path.symlink_to("/etc/passwd"),
    "FIFO": os.mkfifo,
    "folder": Path.mkdir,
    "socket": lambda path: os.mknod(path, stat.S_IFSOCK | 0o600),
    "file": lambda path: path.write_bytes(b"x"),
}


@pytest.mark.parametrize("kind", ADDITIONS)
def test_anything_else_in_the_folder_is_refused_by_kind(folder: Path, kind: str) -> None:
    name = "ext\x1b[31mra" if kind == "file" else file_name(4, 9, 9)
    ADDITIONS[kind](folder / name)
    error = refused(folder)
    assert error.code == Code.OUTBOX_INVALID
    assert f"({kind})" in error.message


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
    assert "no folder of this rank" in refused(folder).message


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


# --- one file ---------------------------------------------------------------------------------


def shard(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(begin: int, end: int, shape: Any = None, dtype: Any = "U8") -> dict[str, Any]:
    return {
        "dtype": dtype,
        "shape": [end - begin] if shape is None else shape,
        "data_offsets": [begin, end],
    }


def dcp(info: Any) -> dict[str, str]:
    return {"DCP_SHARDING_INFO": info if isinstance(info, str) else json.dumps(info)}


MALFORMED: dict[str, bytes] = {
    "empty": b"",
    "shorter than a length": b"1234567",
    "header longer than the file": shard(b"{}", length=3),
    "header of 2^64 bytes": shard(b"{}", length=2**64 - 1),
    "no JSON": shard(b"{"),
    "no UTF-8": shard(b'{"\xff":1}'),
    "a list": shard([]),
    "NaN": shard(b"NaN"),
    "deep nesting": shard(b'{"a":' * 100_000),
    "deep lists": shard(b"[" * 200_000),
    "endless number": shard(b'{"a":' + b"9" * 10_000 + b"}"),
    "equal keys": shard(b'{"a":1,"a":2}'),
    "entry is a number": shard({"a": 1}),
    "entry without a dtype": shard({"a": {"shape": [], "data_offsets": [0, 0]}}),
    "entry with more": shard({"a": {**entry(0, 1), "more": 1}}, b"x"),
    "unknown dtype": shard({"a": entry(0, 1, dtype="F4")}, b"x"),
    "dtype is a list": shard({"a": entry(0, 1, dtype=["U8"])}, b"x"),
    "negative size": shard({"a": entry(0, 1, shape=[-1, -1])}, b"x"),
    "size is true": shard({"a": entry(0, 1, shape=[True])}, b"x"),
    "size is a float": shard({"a": entry(0, 1, shape=[1.0])}, b"x"),
    "nine dimensions": shard({"a": entry(0, 1, shape=[1] * 9)}, b"x"),
    "size beyond all": shard({"a": entry(0, 1, shape=[2**48])}, b"x"),
    "one offset": shard({"a": {**entry(0, 1), "data_offsets": [0]}}, b"x"),
    "end before begin": shard({"a": {"dtype": "U8", "shape": [0], "data_offsets": [1, 0]}}, b"x"),
    "beyond the data": shard({"a": entry(0, 2)}, b"x"),
    "shape is not the size": shard({"a": entry(0, 1, shape=[2])}, b"x"),
    "overlap": shard({"a": entry(0, 2), "b": entry(1, 3)}, b"xyz"),
    "the same bytes twice": shard({"a": entry(0, 2), "b": entry(0, 2)}, b"xy"),
    "gap": shard({"a": entry(0, 1), "b": entry(2, 3)}, b"xyz"),
    "data before": shard({"a": entry(1, 2)}, b"xy"),
    "data behind": shard({"a": entry(0, 1)}, b"xy"),
    "name too long": shard({"n" * 257: entry(0, 1)}, b"x"),
    "no name": shard({"": entry(0, 1)}, b"x"),
    "metadata are a list": shard({"__metadata__": []}),
    "offsets are no text": shard({"__metadata__": {"DCP_SHARDING_INFO": {}}}),
    "offsets are no JSON": shard({"__metadata__": dcp("{")}),
    "offsets nested deeply": shard({"__metadata__": dcp('{"a":' * 100_000)}),
    "offset missing": shard({"__metadata__": dcp({}), "a": entry(0, 1)}, b"x"),
    "offset of nothing": shard({"__metadata__": dcp({"b": {"saved_offsets": [0]}})}),
    "offset of other dimensions": shard(
        {"__metadata__": dcp({"a": {"saved_offsets": [0, 0]}}), "a": entry(0, 1)}, b"x"
    ),
    "offset negative": shard(
        {"__metadata__": dcp({"a": {"saved_offsets": [-1]}}), "a": entry(0, 1)}, b"x"
    ),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_file_is_refused_in_words(tmp_path: Path, case: str) -> None:
    folder = tmp_path / "run0-rank3"
    folder.mkdir()
    path = folder / file_name(1, 1, 1)
    path.write_bytes(MALFORMED[case])
    with pytest.raises(ShardError):
        read_shard(path, LIMIT)
    assert refused(folder).code == Code.OUTBOX_INVALID


def test_a_header_over_16_mib_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(shard(b"{}" + b" " * (16 * 2**20)))
    with pytest.raises(ShardError, match="header claims"):
        read_shard(path, 1 << 30)


def test_a_plain_file_has_zero_offsets(tmp_path: Path) -> None:
    path = tmp_path / "x"
    header = {
        "__metadata__": {"format": "pt"},
        "b": entry(2, 6, [1, 4]),
        "a": entry(0, 2, [], "F16"),
    }
    path.write_bytes(shard(header, b"uvwxyz"))
    first, second = read_shard(path, LIMIT)
    assert (first.name, first.offset, first.shape, first.dtype) == ("a", (), (), "float16")
    assert (second.name, second.offset, second.shape) == ("b", (0, 0), (1, 4))
    assert bytes(second.data) == b"wxyz"


def test_links_and_fifos_are_neither_followed_nor_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(shard({"a": entry(0, 1)}, b"x"))
    (tmp_path / "link").symlink_to(path)
    os.mkfifo(tmp_path / "fifo")
    for name in ("link", "fifo", ".", "absent", "a\0b"):
        with pytest.raises(ShardError):
            read_shard(f"{tmp_path}/{name}", LIMIT)


@given(position=st.integers(0, 10_000), bit=st.integers(0, 7))
@settings(max_examples=150, deadline=None)
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
            assert hashlib.sha256(np.asarray(piece.data).tobytes()).hexdigest() == (
                commit().pieces[index].sha256
            )


def test_thousands_of_files_are_refused_before_the_first_is_opened(folder: Path) -> None:
    for number in range(MAX_FILES + 1):
        (folder / file_name(9, number, 99_999)).touch()
    assert f"more than {MAX_FILES} files" in refused(folder).message
