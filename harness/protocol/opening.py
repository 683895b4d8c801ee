"""Opening: a rank writes the pieces that the judge asked for, as sharded safetensors.

The format is that of torch.distributed.checkpoint's
`HuggingFaceStorageWriter(save_distributed=True)`: tensors in safetensors files, with the offset of
each box in the header. That writer itself would need collectives, builds a whole file in memory, and
knows only one box of a tensor per rank.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch

MAX_FILE_BYTES = 1 << 30


class BoxToWrite(Protocol):
    """A box of tensor `name` that begins at `offset` of it; `tensor` are its elements."""

    @property
    def name(self) -> str: ...

    @property
    def offset(self) -> tuple[int, ...]: ...

    @property
    def tensor(self) -> "torch.Tensor": ...


def file_name(shard: int, number: int, count: int) -> str:
    """Name of a rank's file; `shard` and `number` count from 1."""
    return f"shard-{shard:05d}-model-{number:05d}-of-{count:05d}.safetensors"


def write_opened(
    folder: Path, boxes: Iterable[BoxToWrite], *, shard: int, max_bytes: int = MAX_FILE_BYTES
) -> list[Path]:
    """Write boxes into `folder`, which is made if it is not there; no box at all makes no file.

    A file holds at most one box of a name, and at most `max_bytes` of data unless one box alone is
    larger. At most one file's worth of copies is alive at a time (strided or CUDA tensors need one).

    Args:
        folder: this rank's own folder.
        boxes: of any device, strides and dtype that safetensors knows.
        shard: number of this rank's files, from 1: the files of all ranks may share a folder.
        max_bytes: data per file.

    Returns:
        The files written, in order.

    Raises:
        OSError or safetensors.SafetensorError: no space, or over the outbox's limit.
        KeyError: a dtype that safetensors doesn't know.
    """
    folder.mkdir(parents=True, exist_ok=True)
    groups = _group(boxes, max_bytes)
    paths = []
    for number, group in enumerate(groups, start=1):
        path = folder / file_name(shard, number, len(groups))
        _write(path, group)
        paths.append(path)
    return paths


def _group(boxes: Iterable[BoxToWrite], max_bytes: int) -> list[list[BoxToWrite]]:
    """Each box goes into the first file that has room and no box of its name yet.

    A state in per-expert names has hundreds of boxes of each fused tensor, one after the other: a
    file for each run of different names would make thousands of files of one box.
    """
    groups: list[list[BoxToWrite]] = []
    sizes: list[int] = []
    next_group: dict[str, int] = {}
    for box in boxes:
        group = next_group.get(box.name, 0)
        while group < len(groups) and sizes[group] + box.tensor.nbytes > max_bytes:
            group += 1
        if group == len(groups):
            groups.append([])
            sizes.append(0)
        groups[group].append(box)
        sizes[group] += box.tensor.nbytes
        next_group[box.name] = group + 1
    return groups


def _write(path: Path, boxes: Sequence[BoxToWrite]) -> None:
    from safetensors.torch import save_file

    tensors: dict[str, torch.Tensor] = {}
    storages: set[int] = set()
    for box in boxes:
        packed = box.tensor.detach().resolve_conj().resolve_neg().contiguous().cpu()
        # Views of one storage, such as tied or flattened parameters, are refused by save_file.
        if packed.untyped_storage().data_ptr() in storages:
            packed = packed.clone()
        storages.add(packed.untyped_storage().data_ptr())
        tensors[box.name] = packed
    offsets = {box.name: {"saved_offsets": list(box.offset)} for box in boxes}
    save_file(
        tensors,
        str(path),
        metadata={"format": "pt", "DCP_VERSION": "1.0", "DCP_SHARDING_INFO": json.dumps(offsets)},
    )
