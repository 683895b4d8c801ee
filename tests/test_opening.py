"""Opened pieces are files of torch's own distributed format, whatever the tensors' memory looks like."""

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint import HuggingFaceStorageReader

from harness.protocol.opening import write_opened


@dataclass(frozen=True)
class Opened:
    name: str
    offset: tuple[int, ...]
    tensor: torch.Tensor


def header(path: Path) -> dict[str, Any]:
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    parsed: dict[str, Any] = json.loads(raw[8 : 8 + length])
    return parsed


def test_torchs_reader_puts_the_boxes_of_all_ranks_together(tmp_path: Path) -> None:
    """Two ranks; two boxes of one tensor on one rank; strided boxes; files of one box and of many."""
    matrix, vector = torch.randn(6, 8), torch.randn(5).to(torch.bfloat16)
    first = write_opened(
        tmp_path,
        [
            Opened("layer.matrix", (0, 0), matrix[:3, :4]),
            Opened("layer.vector", (0,), vector),
            Opened("layer.matrix", (3, 0), matrix[3:, :4]),
        ],
        shard=1,
    )
    second = write_opened(tmp_path, [Opened("layer.matrix", (0, 4), matrix[:, 4:])], shard=2)
    assert [path.name for path in first + second] == [
        "shard-00001-model-00001-of-00002.safetensors",
        "shard-00001-model-00002-of-00002.safetensors",
        "shard-00002-model-00001-of-00001.safetensors",
    ]
    read = {"layer.matrix": torch.zeros(6, 8), "layer.vector": torch.zeros(5, dtype=torch.bfloat16)}
    dcp.load(read, storage_reader=HuggingFaceStorageReader(str(tmp_path)), no_dist=True)
    assert torch.equal(read["layer.matrix"], matrix)
    assert torch.equal(read["layer.vector"], vector)


def test_header_is_that_of_torchs_writer(tmp_path: Path) -> None:
    """Written by both, the metadata are the same but for the offsets' place in the tensor."""
    (tmp_path / "torch").mkdir()
    tensor = torch.randn(2, 3)
    writer = dcp.HuggingFaceStorageWriter(str(tmp_path / "torch"), save_distributed=True)
    dcp.save({"w": tensor}, storage_writer=writer, no_dist=True)
    (theirs,) = (tmp_path / "torch").iterdir()
    (ours,) = write_opened(tmp_path / "ours", [Opened("w", (0, 0), tensor)], shard=1)
    assert ours.name == theirs.name
    assert header(ours) == header(theirs)


def test_files_stay_below_the_limit_but_for_a_box_that_alone_is_larger(tmp_path: Path) -> None:
    sizes = [40, 40, 40, 300, 10]
    boxes = [Opened(f"t{i}", (0,), torch.zeros(size)) for i, size in enumerate(sizes)]
    paths = write_opened(tmp_path, boxes, shard=1, max_bytes=400)
    names = [sorted(set(header(path)) - {"__metadata__"}) for path in paths]
    assert names == [["t0", "t1", "t4"], ["t2"], ["t3"]]


def test_experts_one_after_the_other_share_files_with_those_of_other_layers(tmp_path: Path) -> None:
    """One box of a name per file, but not one file per box."""
    boxes = [
        Opened(f"layer{layer}.experts", (expert, 0), torch.zeros(1, 2))
        for layer in range(6)
        for expert in range(8)
    ]
    paths = write_opened(tmp_path, boxes, shard=1)
    assert len(paths) == 8
    assert all(len(header(path)) == 1 + 6 for path in paths)


def test_tied_views_and_parameters_are_written_as_they_are(tmp_path: Path) -> None:
    flat = torch.randn(12)
    parameter = torch.nn.Parameter(flat.view(3, 4))
    boxes = [
        Opened("a", (0, 0), parameter),
        Opened("tied", (0, 0), parameter),
        Opened("view", (0,), flat[2:7]),
        Opened("transposed", (0, 0), parameter.t()),
        Opened("scalar", (), flat[3]),
        Opened("empty", (0, 0), torch.empty(0, 4)),
    ]
    write_opened(tmp_path, boxes, shard=1)
    read = {box.name: torch.zeros_like(box.tensor.detach()) for box in boxes}
    dcp.load(read, storage_reader=HuggingFaceStorageReader(str(tmp_path)), no_dist=True)
    for box in boxes:
        assert torch.equal(read[box.name], box.tensor), box.name


def test_nothing_to_open_makes_an_empty_folder(tmp_path: Path) -> None:
    assert write_opened(tmp_path / "run0-rank1", [], shard=2) == []
    assert list((tmp_path / "run0-rank1").iterdir()) == []


def test_a_dtype_that_the_format_does_not_know_is_an_error(tmp_path: Path) -> None:
    with pytest.raises((KeyError, ValueError, RuntimeError)):
        write_opened(tmp_path, [Opened("c", (0,), torch.zeros(2, dtype=torch.complex128))], shard=1)
