"""One safetensors file, read as if an enemy had written it.

Nothing in the file is trusted: it is opened without following links, mapped read-only, and its header
is checked against the format's rules before a byte of data is handed out. The data themselves are
only ever numbers. Mapped files must not shrink while they are read, or the reader is killed
(SIGBUS): callers read an outbox only after every process that could write to it is gone.

Format: https://github.com/huggingface/safetensors#format, with the optional offsets of boxes that
torch.distributed.checkpoint stores in the metadata.
"""

import errno
import json
import math
import mmap
import os
import stat
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from harness.protocol.messages import MAX_DIMS, MAX_PIECES
from harness.protocol.text import quoted

MAX_HEADER_BYTES = 16 * 2**20
#: A tensor's name stands in a header twice, each of its characters escaped at worst.
HEADER_BYTES_A_TENSOR = 4096
HEADER_BYTES_BESIDE = 2**16
MAX_NAME = 256
MAX_EXTENT = 2**48
_LENGTH = struct.Struct("<Q")
#: Of what can go wrong with a file: certainly this machine's fault, whoever wrote it.
OUR_FAULT = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO)

# safetensors' name of a dtype: torch's name and bytes an element.
DTYPES: Mapping[str, tuple[str, int]] = {
    "BOOL": ("bool", 1),
    "U8": ("uint8", 1),
    "I8": ("int8", 1),
    "F8_E4M3": ("float8_e4m3fn", 1),
    "F8_E5M2": ("float8_e5m2", 1),
    "F8_E8M0": ("float8_e8m0fnu", 1),
    "I16": ("int16", 2),
    "U16": ("uint16", 2),
    "F16": ("float16", 2),
    "BF16": ("bfloat16", 2),
    "I32": ("int32", 4),
    "U32": ("uint32", 4),
    "F32": ("float32", 4),
    "I64": ("int64", 8),
    "U64": ("uint64", 8),
    "F64": ("float64", 8),
    "C64": ("complex64", 8),
}


class ShardError(ValueError):
    """The file is not what it should be. The message quotes nothing unescaped from the file."""


@dataclass(frozen=True)
class ShardEntry:
    """One tensor of one file: a box that begins at `offset` of the whole tensor.

    The format doesn't say how large the whole tensor is: callers know it from elsewhere.

    Attributes:
        offset: as many numbers as `shape`; zeros where the file has no offsets.
        dtype: torch's name without the prefix.
        data: row-major little-endian bytes, uint8 [numel * itemsize], read-only, not copied.
        file: name of the file as it was opened.
        start: byte of the file at which the data begin.
    """

    name: str
    offset: tuple[int, ...]
    shape: tuple[int, ...]
    dtype: str
    data: npt.NDArray[np.uint8]
    file: str
    start: int


def read_shard(
    path: Path | str, max_bytes: int, folder: int | None = None, max_tensors: int = MAX_PIECES
) -> list[ShardEntry]:
    """Parse one safetensors file and map its data.

    Args:
        path: the file; its last component is not followed if it is a link.
        max_bytes: largest file to accept, in bytes (a sparse file counts with its full length).
        folder: descriptor of an open folder that `path` is relative to.
        max_tensors: in the file; a header that is longer than so many need is not parsed.

    Returns:
        The tensors, in the order of their data. The mapping lives as long as one of them.

    Raises:
        ShardError: not a regular file, too large, or not well formed.
        OSError: this machine's fault: out of descriptors or memory, or a broken disk.
    """
    content = _map_file(path, max_bytes, folder)
    if content.size < _LENGTH.size:
        raise ShardError("the file is too short for a safetensors header")
    (length,) = _LENGTH.unpack(content[: _LENGTH.size].tobytes())
    needed = HEADER_BYTES_BESIDE + max_tensors * HEADER_BYTES_A_TENSOR
    if length > min(MAX_HEADER_BYTES, needed, content.size - _LENGTH.size):
        raise ShardError(f"its header claims {length} bytes")
    base = _LENGTH.size + length
    data = content[base:]
    header = _parse_object(content[_LENGTH.size : _LENGTH.size + length].tobytes(), "its header")
    metadata = header.pop("__metadata__", {})
    if len(header) > max_tensors:
        raise ShardError(f"it holds {len(header)} tensors, more than {max_tensors}")
    layouts = {name: _layout(name, description) for name, description in header.items()}
    offsets = _offsets(metadata, layouts)
    ordered = sorted(layouts.items(), key=lambda item: (item[1].begin, item[1].end))
    position = 0
    for name, layout in ordered:
        if layout.begin != position:
            raise ShardError(f"the data of {quoted(name)} leave a gap or overlap")
        position = layout.end
    if position != data.size:
        raise ShardError(f"the tensors fill {position} of {data.size} bytes of data")
    return [
        ShardEntry(
            name,
            offsets[name],
            it.shape,
            it.dtype,
            data[it.begin : it.end],
            str(path),
            base + it.begin,
        )
        for name, it in ordered
    ]


# --- the file -----------------------------------------------------------------------------------


def _map_file(path: Path | str, max_bytes: int, folder: int | None) -> npt.NDArray[np.uint8]:
    try:
        # Without O_NONBLOCK, opening a FIFO would wait for a writer.
        descriptor = os.open(
            path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder
        )
    except ValueError:
        raise ShardError("its name is no file name") from None
    except OSError as error:
        if error.errno in OUR_FAULT:
            raise
        raise ShardError(f"it cannot be opened: {error.strerror}") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ShardError("it is not a regular file")
        if status.st_nlink != 1:
            raise ShardError("it has a second name (a hard link)")
        if status.st_size > max_bytes:
            raise ShardError(f"it has {status.st_size} bytes where {max_bytes} are allowed")
        if status.st_size == 0:
            return np.empty(0, dtype=np.uint8)
        mapped = mmap.mmap(descriptor, status.st_size, prot=mmap.PROT_READ)
        return np.frombuffer(mapped, dtype=np.uint8)
    finally:
        os.close(descriptor)


# --- the header ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Layout:
    """What the header says of one tensor, in agreement with itself."""

    shape: tuple[int, ...]
    dtype: str
    begin: int
    end: int


def _parse_object(text: bytes | str, what: str) -> dict[str, object]:
    try:
        # Bytes of another encoding would be guessed, and other readers take UTF-8 alone.
        decoded = text.decode("utf-8") if isinstance(text, bytes) else text
        parsed = json.loads(decoded, object_pairs_hook=_unique)
    except RecursionError:
        raise ShardError(f"{what} is nested too deeply") from None
    except ShardError:
        raise
    except ValueError:
        raise ShardError(f"{what} is not JSON") from None
    if not isinstance(parsed, dict):
        raise ShardError(f"{what} is not a JSON object")
    return parsed


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    # Readers that keep the first and readers that keep the last of two equal keys would disagree.
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ShardError("a key occurs twice in its header")
    return found


def _layout(name: str, description: object) -> _Layout:
    if not 0 < len(name) <= MAX_NAME:
        raise ShardError(f"a tensor's name has {len(name)} characters, allowed are 1 to {MAX_NAME}")
    if not isinstance(description, dict) or set(description) != {"dtype", "shape", "data_offsets"}:
        raise ShardError(f"the header's entry of {quoted(name)} is malformed")
    dtype = description["dtype"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ShardError(f"{quoted(name)} has an unknown dtype")
    shape = _numbers(description["shape"], f"the shape of {quoted(name)}")
    place = _numbers(description["data_offsets"], f"the data_offsets of {quoted(name)}")
    torch_name, itemsize = DTYPES[dtype]
    if len(place) != 2 or place[1] - place[0] != math.prod(shape) * itemsize:
        raise ShardError(f"shape and data_offsets of {quoted(name)} don't agree")
    return _Layout(shape, torch_name, place[0], place[1])


def _numbers(value: object, what: str) -> tuple[int, ...]:
    """A JSON list of at most MAX_DIMS numbers below MAX_EXTENT; `true` is no number."""
    if not isinstance(value, list) or len(value) > MAX_DIMS:
        raise ShardError(f"{what} is not a list of at most {MAX_DIMS} numbers")
    if any(type(number) is not int or not 0 <= number < MAX_EXTENT for number in value):
        raise ShardError(f"{what} holds something that is no size")
    return tuple(value)


def _offsets(metadata: object, layouts: Mapping[str, _Layout]) -> dict[str, tuple[int, ...]]:
    """Offset of every tensor, from DCP_SHARDING_INFO or zeros without it."""
    if not isinstance(metadata, dict):
        raise ShardError("its metadata are malformed")
    info = metadata.get("DCP_SHARDING_INFO")
    if info is None:
        return {name: (0,) * len(layout.shape) for name, layout in layouts.items()}
    if not isinstance(info, str):
        raise ShardError("its DCP_SHARDING_INFO is malformed")
    places = _parse_object(info, "its DCP_SHARDING_INFO")
    if set(places) != set(layouts):
        raise ShardError("its DCP_SHARDING_INFO is not about the tensors in the file")
    offsets = {}
    for name, place in places.items():
        if not isinstance(place, dict) or set(place) != {"saved_offsets"}:
            raise ShardError(f"the DCP_SHARDING_INFO of {quoted(name)} is malformed")
        offset = _numbers(place["saved_offsets"], f"the offset of {quoted(name)}")
        if len(offset) != len(layouts[name].shape):
            raise ShardError(f"offset and shape of {quoted(name)} differ in dimensions")
        offsets[name] = offset
    return offsets
