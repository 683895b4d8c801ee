"""What a rank opened, checked against what it committed to while the clock was running.

Call this only after the sandbox is gone: nothing may change the outbox while it is read.
"""

import os
import re
import stat
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from harness.errors import Code, SubmissionError
from harness.protocol.digest import digest_bytes
from harness.protocol.messages import Commitment, Piece
from harness.protocol.text import quoted
from harness.tensors.boxes import Box, StoredPiece
from harness.tensors.shards import OUR_FAULT, ShardEntry, ShardError, read_shard

_FILE = re.compile(r"shard-[0-9]{5}-model-[0-9]{5}-of-[0-9]{5}\.safetensors")
_SHOWN = 5

# What identifies a box of a rank: name, offset, shape.
_Place = tuple[str, tuple[int, ...], tuple[int, ...]]


def read_opened(
    folder: Path,
    commitment: Commitment,
    indices: Sequence[int],
    key: bytes,
    max_bytes: int,
    max_files: int,
    threads: int = 2,
) -> dict[int, StoredPiece]:
    """Read the pieces that one rank was asked to open, and verify that they are the committed ones.

    Args:
        folder: the rank's own folder; its parent is the judge's, and no link below it is followed.
        commitment: what the rank sent when the clock stopped.
        indices: the pieces of `commitment` that it had to open.
        key: of the digests, drawn by the judge after all ranks were done.
        max_bytes: of all files in `folder` together.
        max_files: in `folder`, as `files.files_allowed` has it.
        threads: how many pieces are hashed at the same time.

    Returns:
        Index in the commitment -> the piece, memory-mapped.

    Raises:
        SubmissionError(OUTBOX_INVALID): the folder holds something else than the files of the
            opening, or a file is malformed, or a piece is missing or not asked for.
        SubmissionError(COMMITMENT_BROKEN): a piece's bytes are not those committed to.
        OSError: this machine's fault, such as no descriptors or memory left.
    """
    rank = folder.name
    found: dict[int, StoredPiece] = {}
    # File by file, so that no more is read than up to the first box that was not asked for.
    with closing(_entries(folder, max_bytes, max_files, len(indices), rank)) as entries:
        wanted = {_place(commitment.pieces[index]): index for index in indices}
        for entry in entries:
            index = wanted.get((entry.name, entry.offset, entry.shape))
            if index is None or index in found:
                raise _invalid(
                    rank, f"a box of {quoted(entry.name)} was not asked for, or is there twice"
                )
            found[index] = _piece(entry, commitment.pieces[index], folder)
    missing = [quoted(commitment.pieces[index].name) for index in indices if index not in found]
    if missing:
        raise _invalid(rank, f"{_some(missing)} committed to, but not opened")
    _verify(found, commitment, key, threads, rank)
    return found


def _place(piece: Piece) -> _Place:
    return piece.name, piece.offset, piece.shape


def _piece(entry: ShardEntry, committed: Piece, folder: Path) -> StoredPiece:
    if entry.dtype != committed.dtype:
        raise _invalid(
            folder.name, f"{quoted(entry.name)} is {entry.dtype}, committed as {committed.dtype}"
        )
    return StoredPiece(
        name=entry.name,
        tensor_shape=committed.tensor_shape,
        box=Box(entry.offset, entry.shape),
        dtype=entry.dtype,
        data=entry.data,
        file=str(folder / entry.file),
        start=entry.start,
    )


# --- the folder ---------------------------------------------------------------------------------


def _entries(
    folder: Path, max_bytes: int, max_files: int, max_tensors: int, rank: str
) -> Generator[ShardEntry]:
    """All tensors of all files of the folder, which is as the sandbox has left it: also unreadable."""
    try:
        yield from _read_entries(folder, max_bytes, max_files, max_tensors, rank)
    except OSError as error:
        if error.errno in OUR_FAULT:
            raise
        raise _invalid(rank, f"no folder of this rank that can be read: {error.strerror}") from None


def _read_entries(
    folder: Path, max_bytes: int, max_files: int, max_tensors: int, rank: str
) -> Iterator[ShardEntry]:
    """Everything is relative to the folder's descriptor."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        left = max_bytes
        for name in _files(descriptor, max_files, rank):
            try:
                yield from read_shard(name, left, descriptor, max_tensors)
            except ShardError as error:
                raise _invalid(rank, f"{name}: {error}") from None
            left -= os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_size
    finally:
        os.close(descriptor)


def _files(descriptor: int, max_files: int, rank: str) -> list[str]:
    """Names of the files, sorted; anything that `write_opened` doesn't write is refused."""
    names: list[str] = []
    unexpected: list[str] = []
    with os.scandir(descriptor) as listing:
        for entry in listing:
            mode = entry.stat(follow_symlinks=False).st_mode
            if stat.S_ISREG(mode) and _FILE.fullmatch(entry.name):
                names.append(entry.name)
                if len(names) > max_files:
                    raise _invalid(rank, f"more than {max_files} files")
                continue
            unexpected.append(f"{quoted(entry.name)} ({_kind(mode)})")
            if len(unexpected) > _SHOWN:
                break
    if unexpected:
        raise _invalid(rank, f"unexpected in the outbox: {_some(unexpected)}")
    return sorted(names)


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFLNK: "symbolic link",
        stat.S_IFIFO: "FIFO",
        stat.S_IFSOCK: "socket",
        stat.S_IFDIR: "folder",
        stat.S_IFCHR: "device",
        stat.S_IFBLK: "device",
    }
    return kinds.get(stat.S_IFMT(mode), "file")


# --- the bytes ----------------------------------------------------------------------------------


def _verify(
    found: dict[int, StoredPiece],
    commitment: Commitment,
    key: bytes,
    threads: int,
    rank: str,
) -> None:
    """Compute every digest again, largest piece first so that the threads end together."""
    order = sorted(found, key=lambda index: -found[index].data.size)

    def broken(index: int) -> bool:
        return digest_bytes(found[index].data, key) != commitment.pieces[index].digest

    with ThreadPoolExecutor(threads) as pool:
        results = list(zip(order, pool.map(broken, order), strict=True))
    failures = [quoted(found[index].name) for index, differs in sorted(results) if differs]
    if failures:
        raise SubmissionError(
            Code.COMMITMENT_BROKEN,
            f"{rank}: the opened state is not the one committed to when the clock stopped: "
            f"{_some(failures)} differ. final_state must not change after inner_steps returns.",
        )


def _some(items: Sequence[str]) -> str:
    more = len(items) - _SHOWN
    return ", ".join(items[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _invalid(rank: str, problem: str) -> SubmissionError:
    return SubmissionError(
        Code.OUTBOX_INVALID,
        f"{rank}: {problem}. The outbox is written by the environment; leave it alone.",
    )
