"""Trusted states: read whole or not at all, for a wrong reference would reject honest submissions."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from harness.errors import Code, JudgeError
from harness.tensors.boxes import Box, StoredPiece, TensorSpec
from harness.tensors.stored import as_array, as_float32, is_floating, trusted_state

WHOLE = torch.arange(24, dtype=torch.float32).view(6, 4)
LAYOUT = {"w": TensorSpec((6, 4), "float32")}


def shard(path: Path, tensor: torch.Tensor, *offset: int, name: str = "w") -> Path:
    place = {"DCP_SHARDING_INFO": json.dumps({name: {"saved_offsets": list(offset)}})}
    save_file({name: tensor.contiguous()}, str(path), place)
    return path


def content(box: Box) -> torch.Tensor:
    """What `WHOLE` has in the box; a box beyond it, or of other dimensions, is filled up."""
    if len(box.shape) != 2:
        return torch.zeros(box.shape)
    rows, columns = (
        torch.arange(low, low + size, dtype=torch.float32)
        for low, size in zip(box.offset, box.shape, strict=True)
    )
    return 4 * rows[:, None] + columns


def shards(tmp_path: Path, *boxes: Box) -> list[Path]:
    """One file for each box."""
    return [
        shard(tmp_path / f"{number}.safetensors", content(box), *box.offset)
        for number, box in enumerate(boxes)
    ]


def broken(source: Path | list[Path], layout: dict[str, TensorSpec] = LAYOUT) -> str:
    with pytest.raises(JudgeError) as caught:
        trusted_state(source, layout)
    assert caught.value.code is Code.REFERENCE_FAILED
    return caught.value.message


def stored(data: bytes, dtype: str, shape: tuple[int, ...]) -> StoredPiece:
    box = Box((0,) * len(shape), shape)
    return StoredPiece("w", shape, box, dtype, np.frombuffer(data, np.uint8))


# --- states in files ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "boxes",
    [
        [Box((0, 0), (6, 4))],
        [Box((0, 0), (5, 4)), Box((5, 0), (1, 4))],
        [Box((3, 0), (3, 4)), Box((0, 2), (3, 2)), Box((0, 0), (3, 2))],
        [Box((0, 0), (6, 4)), Box((6, 0), (0, 4))],
        [Box((0, 0), (6, 4)), Box((2, 4), (3, 0))],
        [Box((0, 0), (0, 4)), Box((0, 0), (0, 4)), Box((0, 0), (6, 4))],
    ],
    ids=["whole", "rows", "blocks", "empty at the end", "empty beside", "empty twice"],
)
def test_shards_that_cover_a_tensor_once_are_its_state(tmp_path: Path, boxes: list[Box]) -> None:
    state = trusted_state(shards(tmp_path, *boxes), LAYOUT)
    assert [piece.box for piece in state["w"]] == boxes
    for piece in state["w"]:
        assert (piece.name, piece.tensor_shape, piece.dtype) == ("w", (6, 4), "float32")
        low, size = piece.box.offset, piece.box.shape
        there = WHOLE[low[0] : low[0] + size[0], low[1] : low[1] + size[1]]
        assert as_array(piece).tolist() == there.tolist()


@pytest.mark.parametrize(
    ("boxes", "said"),
    [
        ([], "w: 0 of 24 elements are stored"),
        ([Box((0, 0), (5, 4))], "w: 20 of 24 elements are stored"),
        ([Box((0, 0), (6, 3))], "w: 18 of 24 elements are stored"),
        ([Box((0, 0), (0, 4))], "w: 0 of 24 elements are stored"),
        ([Box((0, 0), (6, 4)), Box((0, 0), (6, 4))], "w has elements that are stored twice"),
        ([Box((0, 0), (6, 4)), Box((5, 3), (1, 1))], "w has elements that are stored twice"),
        ([Box((0, 0), (3, 4)), Box((2, 0), (3, 4))], "w has elements that are stored twice"),
        (
            [Box((0, 0), (2, 4)), Box((2, 0), (2, 4)), Box((1, 0), (2, 4))],
            "w has elements that are stored twice",
        ),
        ([Box((1, 0), (6, 4))], "is not inside shape (6, 4)"),
        ([Box((0, 1), (6, 4))], "is not inside shape (6, 4)"),
        ([Box((0, 0), (7, 4))], "is not inside shape (6, 4)"),
        ([Box((0, 0), (6, 4)), Box((7, 0), (0, 4))], "is not inside shape (6, 4)"),
        ([Box((0, 0, 0), (6, 4, 1))], "is not inside shape (6, 4)"),
        ([Box((0,), (24,))], "is not inside shape (6, 4)"),
        ([Box((), ())], "is not inside shape (6, 4)"),
    ],
    ids=str,
)
def test_shards_that_do_not_cover_a_tensor_once_are_refused(
    tmp_path: Path, boxes: list[Box], said: str
) -> None:
    assert said in broken(shards(tmp_path, *boxes))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, torch.int32])
def test_a_reference_of_another_dtype_is_refused(tmp_path: Path, dtype: torch.dtype) -> None:
    shard(tmp_path / "x.safetensors", WHOLE.to(dtype), 0, 0)
    name = str(dtype).removeprefix("torch.")
    assert broken(tmp_path) == f"w is stored as {name}, the benchmark's is float32"


def test_an_empty_shard_of_another_dtype_is_refused_too(tmp_path: Path) -> None:
    shard(tmp_path / "0.safetensors", WHOLE, 0, 0)
    shard(tmp_path / "1.safetensors", torch.zeros(0, 4, dtype=torch.float64), 0, 0)
    assert "w is stored as float64" in broken(tmp_path)


def test_a_tensor_without_elements_has_to_be_there_all_the_same(tmp_path: Path) -> None:
    layout = {**LAYOUT, "none": TensorSpec((0, 3), "float32")}
    shard(tmp_path / "0.safetensors", WHOLE, 0, 0)
    assert broken(tmp_path, layout) == "none: 0 of 0 elements are stored"
    shard(tmp_path / "1.safetensors", torch.zeros(0, 3), 0, 0, name="none")
    (piece,) = trusted_state(tmp_path, layout)["none"]
    assert as_array(piece).shape == (0, 3)


def test_a_scalar_is_a_state_of_one_element(tmp_path: Path) -> None:
    save_file({"s": torch.tensor(2.5)}, str(tmp_path / "x.safetensors"))
    (piece,) = trusted_state(tmp_path, {"s": TensorSpec((), "float32")})["s"]
    assert as_array(piece).tolist() == 2.5


def test_a_tensor_of_no_benchmark_is_refused(tmp_path: Path) -> None:
    shard(tmp_path / "0.safetensors", WHOLE, 0, 0)
    shard(tmp_path / "1.safetensors", WHOLE, 0, 0, name="v")
    assert "1.safetensors holds v, which is no tensor of the benchmark" in broken(tmp_path)


def test_only_the_safetensors_of_a_folder_are_read(tmp_path: Path) -> None:
    shard(tmp_path / "x.safetensors", WHOLE, 0, 0)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "x.safetensors.tmp").write_bytes(b"half")
    assert list(trusted_state(tmp_path, LAYOUT)) == ["w"]


def test_the_pieces_of_a_folder_are_in_the_order_of_its_names(tmp_path: Path) -> None:
    """The same state in the same order on every file system."""
    for row in (4, 0, 5, 2, 3, 1):
        shard(tmp_path / f"{row}.safetensors", WHOLE[row : row + 1], row, 0)
    state = trusted_state(tmp_path, LAYOUT)
    assert [piece.box.offset[0] for piece in state["w"]] == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("kind", ["cut", "absent"])
def test_a_file_that_cannot_be_read_is_our_failure(tmp_path: Path, kind: str) -> None:
    path = shard(tmp_path / "x.safetensors", WHOLE, 0, 0)
    if kind == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    else:
        path.unlink()
    assert broken([path]).startswith(f"cannot read {path}: ")


# --- one piece as an array ------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_floating_tensors_are_compared_by_their_update(dtype: str) -> None:
    assert is_floating(dtype)


@pytest.mark.parametrize("dtype", ["int64", "int32", "uint8", "bool", "complex64", "float8_e5m2"])
def test_all_others_are_compared_bit_by_bit(dtype: str) -> None:
    assert not is_floating(dtype)


@pytest.mark.parametrize(
    ("dtype", "kept_as"),
    [
        ("float64", "float64"),
        ("float32", "float32"),
        ("float16", "float16"),
        ("bfloat16", "uint16"),
        ("int64", "uint64"),
        ("int32", "uint32"),
        ("int16", "uint16"),
        ("int8", "uint8"),
        ("bool", "uint8"),
        ("float8_e4m3fn", "uint8"),
        ("complex64", "uint64"),
    ],
)
def test_a_piece_is_seen_in_its_boxs_shape_as_numbers_or_bits(dtype: str, kept_as: str) -> None:
    tensor = torch.tensor([[1, 0, 1], [0, 1, 1]]).to(getattr(torch, dtype))
    data = bytes(tensor.contiguous().view(torch.uint8).flatten().tolist())
    piece = stored(data, dtype, (2, 3))
    array = as_array(piece)
    assert (array.dtype, array.shape) == (np.dtype(kept_as), (2, 3))
    assert array.tobytes() == data
    assert np.shares_memory(array, piece.data)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int64", "bool"])
def test_a_piece_without_elements_is_an_empty_array(dtype: str) -> None:
    assert as_array(stored(b"", dtype, (3, 0))).shape == (3, 0)


@pytest.mark.parametrize(
    ("dtype", "size"),
    [
        ("float32", 23),
        ("float32", 25),
        ("float32", 48),
        ("bfloat16", 24),
        ("int64", 47),
        ("bool", 5),
        ("bool", 7),
        ("int64", 96),
        ("int64", 18),
    ],
)
def test_bytes_that_do_not_fit_their_box_are_a_defect(dtype: str, size: int) -> None:
    with pytest.raises(JudgeError) as caught:
        as_array(stored(bytes(size), dtype, (2, 3)))
    assert caught.value.code is Code.INTERNAL
    assert caught.value.message == f"w: {size} bytes are not a box of 6 x {dtype}"


@pytest.mark.parametrize("dtype", ["float32", "int64"])
def test_bytes_of_a_box_without_elements_are_a_defect(dtype: str) -> None:
    with pytest.raises(JudgeError, match="1 bytes are not a box of 0 x"):
        as_array(stored(b"x", dtype, (3, 0)))


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_the_values_of_a_piece_as_float32(dtype: str) -> None:
    values = [1.5, -2.0, 0.0, 3.140625, -0.0078125, float("inf")]
    tensor = torch.tensor(values, dtype=getattr(torch, dtype))
    data = bytes(tensor.view(torch.uint8).tolist())
    found = as_float32(as_array(stored(data, dtype, (6,))), dtype)
    assert found.dtype == np.float32
    assert found.tolist() == values
