"""Opened pieces are files of torch's own distributed format, whatever the tensors' memory looks like."""

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.distributed.checkpoint.hf_storage import (
    HuggingFaceStorageReader,
    HuggingFaceStorageWriter,
)
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from harness.protocol import opening
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
    load(read, storage_reader=HuggingFaceStorageReader(str(tmp_path)), no_dist=True)
    assert torch.equal(read["layer.matrix"], matrix)
    assert torch.equal(read["layer.vector"], vector)


def test_header_is_that_of_torchs_writer(tmp_path: Path) -> None:
    """Written by both, the metadata are the same but for the offsets' place in the tensor."""
    (tmp_path / "torch").mkdir()
    tensor = torch.randn(2, 3)
    writer = HuggingFaceStorageWriter(str(tmp_path / "torch"), save_distributed=True)
    save({"w": tensor}, storage_writer=writer, no_dist=True)
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


def test_a_file_may_be_as_large_as_the_limit_and_no_larger(tmp_path: Path) -> None:
    boxes = [Opened(f"t{i}", (0,), torch.zeros(50)) for i in range(3)]
    for max_bytes, count in [(600, 1), (599, 2), (400, 2), (399, 3), (0, 3)]:
        folder = tmp_path / str(max_bytes)
        assert len(write_opened(folder, boxes, shard=1, max_bytes=max_bytes)) == count, max_bytes


def test_a_file_holds_a_gibibyte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of tensors without memory, so only which of them share a file is looked at."""
    written: list[list[str]] = []
    monkeypatch.setattr(
        opening, "_write", lambda path, boxes: written.append([box.name for box in boxes])
    )
    half = 512 * 2**20
    sizes = {"a": half, "b": half - 1, "c": 1, "d": 1, "e": 2 * half + 1, "f": half}
    boxes = [
        Opened(name, (0,), torch.empty(size, dtype=torch.uint8, device="meta"))
        for name, size in sizes.items()
    ]
    write_opened(tmp_path, boxes, shard=1)
    assert written == [["a", "b", "c"], ["d", "f"], ["e"]]


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
    load(read, storage_reader=HuggingFaceStorageReader(str(tmp_path)), no_dist=True)
    for box in boxes:
        assert torch.equal(read[box.name], box.tensor), box.name


def test_flags_of_a_view_become_values(tmp_path: Path) -> None:
    """A conjugated or negated view is other bytes, marked: the format has no such mark."""
    plain = torch.randn(4, dtype=torch.complex64)
    negated = torch._neg_view(torch.tensor([1.0, -2.0]))
    boxes = [Opened("conjugate", (0,), plain.conj()), Opened("negative", (0,), negated)]
    (path,) = write_opened(tmp_path, boxes, shard=1)
    read = load_file(path)
    assert torch.equal(read["conjugate"], torch.complex(plain.real, -plain.imag))
    assert read["negative"].tolist() == [-1.0, 2.0]


def test_files_are_numbered_and_named_for_the_rank_and_returned_in_order(tmp_path: Path) -> None:
    boxes = [Opened("w", (row, 0), torch.full((1, 2), float(row))) for row in (2, 0, 1)]
    paths = write_opened(tmp_path / "a" / "b", boxes, shard=12)
    assert paths == [
        tmp_path / "a/b/shard-00012-model-00001-of-00003.safetensors",
        tmp_path / "a/b/shard-00012-model-00002-of-00003.safetensors",
        tmp_path / "a/b/shard-00012-model-00003-of-00003.safetensors",
    ]
    assert [load_file(path)["w"].tolist() for path in paths] == [
        [[2.0, 2.0]],
        [[0.0, 0.0]],
        [[1.0, 1.0]],
    ]
    offsets = [json.loads(header(path)["__metadata__"]["DCP_SHARDING_INFO"]) for path in paths]
    assert offsets == [{"w": {"saved_offsets": [row, 0]}} for row in (2, 0, 1)]


def test_nothing_to_open_makes_an_empty_folder(tmp_path: Path) -> None:
    assert write_opened(tmp_path / "run0-rank1", [], shard=2) == []
    assert list((tmp_path / "run0-rank1").iterdir()) == []


def test_a_dtype_that_the_format_does_not_know_is_an_error(tmp_path: Path) -> None:
    with pytest.raises((KeyError, ValueError, RuntimeError)):
        write_opened(tmp_path, [Opened("c", (0,), torch.zeros(2, dtype=torch.complex128))], shard=1)
