"""One safetensors file as an enemy may write it: each rule has what it just allows, and just not."""

import errno
import json
import os
import resource
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from harness.protocol.text import quoted
from harness.tensors.shards import ShardEntry, ShardError, read_shard

LIMIT = 1 << 20


def shard(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    """A file's bytes; `length` is what it says of its header, if not the truth."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(begin: int, end: int, shape: Any = None, dtype: Any = "U8") -> dict[str, Any]:
    return {
        "dtype": dtype,
        "shape": [end - begin] if shape is None else shape,
        "data_offsets": [begin, end],
    }


def one(shape: Any, dtype: Any = "U8", data: bytes = b"x") -> bytes:
    return shard({"a": entry(0, len(data), shape, dtype)}, data)


def placed(offsets: Any, shape: Any = (1,), data: bytes = b"x") -> bytes:
    """A file of one tensor with what its metadata say of the tensor's place."""
    info = offsets if isinstance(offsets, str) else json.dumps(offsets)
    header = {"__metadata__": {"DCP_SHARDING_INFO": info}, "a": entry(0, len(data), list(shape))}
    return shard(header, data)


def offset(*numbers: Any) -> dict[str, Any]:
    return {"a": {"saved_offsets": list(numbers)}}


def read(tmp_path: Path, content: bytes, max_bytes: int = LIMIT) -> list[ShardEntry]:
    path = tmp_path / "x"
    path.write_bytes(content)
    return read_shard(path, max_bytes)


def refused(tmp_path: Path, content: bytes, max_bytes: int = LIMIT) -> str:
    with pytest.raises(ShardError) as caught:
        read(tmp_path, content, max_bytes)
    message = str(caught.value)
    assert message.isascii() and message.isprintable()
    return message


# --- what is read ---------------------------------------------------------------------------------


def test_tensors_come_in_the_order_of_their_data_with_zero_offsets(tmp_path: Path) -> None:
    header = {
        "__metadata__": {"format": "pt"},
        "b": entry(2, 6, [1, 4]),
        "a": entry(0, 2, [], "F16"),
    }
    first, second = read(tmp_path, shard(header, b"uvwxyz"))
    assert (first.name, first.offset, first.shape, first.dtype) == ("a", (), (), "float16")
    assert (second.name, second.offset, second.shape) == ("b", (0, 0), (1, 4))
    assert (bytes(first.data), bytes(second.data)) == (b"uv", b"wxyz")


def test_the_data_are_mapped_read_only(tmp_path: Path) -> None:
    (only,) = read(tmp_path, one([1]))
    with pytest.raises(ValueError, match="read-only"):
        only.data[0] = 1


def test_offsets_are_those_of_the_metadata(tmp_path: Path) -> None:
    (only,) = read(tmp_path, placed(offset(7, 0, 3), shape=(1, 1, 1)))
    assert (only.offset, only.shape) == ((7, 0, 3), (1, 1, 1))


def test_each_tensor_has_its_own_offset(tmp_path: Path) -> None:
    info = json.dumps({"b": {"saved_offsets": [5]}, "a": {"saved_offsets": [9]}})
    header = {"__metadata__": {"DCP_SHARDING_INFO": info}, "a": entry(0, 1), "b": entry(1, 2)}
    entries = read(tmp_path, shard(header, b"xy"))
    assert [(it.name, it.offset) for it in entries] == [("a", (9,)), ("b", (5,))]


def test_a_file_without_tensors_is_no_matter(tmp_path: Path) -> None:
    assert read(tmp_path, shard({})) == []


def test_tensors_without_elements_may_lie_anywhere_between_the_others(tmp_path: Path) -> None:
    header = {
        "full": entry(0, 2),
        "at the begin": entry(0, 0, [0, 3]),
        "rest": entry(2, 3),
        "between": entry(2, 2, [4, 0]),
        "at the end": entry(3, 3, [0]),
    }
    entries = read(tmp_path, shard(header, b"xyz"))
    assert [it.name for it in entries] == ["at the begin", "full", "between", "rest", "at the end"]
    assert [it.data.size for it in entries] == [0, 2, 0, 1, 0]


def test_what_safetensors_writes_is_read(tmp_path: Path) -> None:
    tensors = {"w": torch.arange(6, dtype=torch.float32).view(2, 3), "n": torch.tensor(7)}
    save_file(tensors, str(tmp_path / "x"))
    found = {it.name: it for it in read_shard(tmp_path / "x", LIMIT)}
    assert (found["w"].shape, found["w"].dtype) == ((2, 3), "float32")
    assert found["w"].data.view("<f4").tolist() == [0, 1, 2, 3, 4, 5]
    assert (found["n"].shape, found["n"].dtype) == ((), "int64")
    assert found["n"].data.view("<i8").tolist() == [7]


@pytest.mark.parametrize(
    ("dtype", "name", "itemsize"),
    [
        ("BOOL", "bool", 1),
        ("U8", "uint8", 1),
        ("I8", "int8", 1),
        ("F8_E4M3", "float8_e4m3fn", 1),
        ("F8_E5M2", "float8_e5m2", 1),
        ("F8_E8M0", "float8_e8m0fnu", 1),
        ("I16", "int16", 2),
        ("U16", "uint16", 2),
        ("F16", "float16", 2),
        ("BF16", "bfloat16", 2),
        ("I32", "int32", 4),
        ("U32", "uint32", 4),
        ("F32", "float32", 4),
        ("I64", "int64", 8),
        ("U64", "uint64", 8),
        ("F64", "float64", 8),
        ("C64", "complex64", 8),
    ],
)
def test_a_tensor_has_the_bytes_of_its_dtype_no_more_and_no_less(
    tmp_path: Path, dtype: str, name: str, itemsize: int
) -> None:
    (only,) = read(tmp_path, one([3], dtype, b"x" * (3 * itemsize)))
    assert (only.dtype, only.data.size) == (name, 3 * itemsize)
    for size in (3 * itemsize - 1, 3 * itemsize + 1):
        assert "don't agree" in refused(tmp_path, one([3], dtype, b"x" * size))
    # The table of dtypes is torch's and safetensors', not only ours.
    save_file({"t": torch.zeros(3, dtype=getattr(torch, name))}, str(tmp_path / "y"))
    assert f'"dtype":"{dtype}"'.encode() in (tmp_path / "y").read_bytes()
    assert [it.dtype for it in read_shard(tmp_path / "y", LIMIT)] == [name]


# --- limits: the last that is allowed, and the first that is not ----------------------------------

LIMITS: dict[str, tuple[bytes, bytes, str]] = {
    "longest name": (
        shard({"n" * 256: entry(0, 1)}, b"x"),
        shard({"n" * 257: entry(0, 1)}, b"x"),
        "a tensor's name has 257 characters, allowed are 1 to 256",
    ),
    "shortest name": (
        shard({"n": entry(0, 1)}, b"x"),
        shard({"": entry(0, 1)}, b"x"),
        "a tensor's name has 0 characters",
    ),
    "dimensions": (one([1] * 8), one([1] * 9), "the shape of 'a' is not a list of at most 8"),
    "largest size": (
        one([0, 2**48 - 1], data=b""),
        one([0, 2**48], data=b""),
        "the shape of 'a' holds something that is no size",
    ),
    "smallest size": (one([0], data=b""), one([-1], data=b""), "something that is no size"),
    "largest offset": (
        placed(offset(2**48 - 1)),
        placed(offset(2**48)),
        "the offset of 'a' holds something that is no size",
    ),
    "smallest offset": (placed(offset(0)), placed(offset(-1)), "something that is no size"),
    "dimensions of an offset": (
        placed(offset(*[1] * 8), shape=[1] * 8),
        placed(offset(*[1] * 9), shape=[1] * 8),
        "the offset of 'a' is not a list of at most 8",
    ),
    "header to the end of the file": (
        shard(b"{}"),
        shard(b"{}", length=3),
        "its header claims 3 bytes",
    ),
    "first byte of data": (
        shard({"a": entry(0, 1)}, b"x"),
        shard({"a": entry(1, 2)}, b"xy"),
        "the data of 'a' leave a gap or overlap",
    ),
    "last byte of data": (
        shard({"a": entry(0, 2)}, b"xy"),
        shard({"a": entry(0, 3)}, b"xy"),
        "the tensors fill 3 of 2 bytes of data",
    ),
    "bytes behind the tensors": (
        shard({"a": entry(0, 2)}, b"xy"),
        shard({"a": entry(0, 2)}, b"xyz"),
        "the tensors fill 2 of 3 bytes of data",
    ),
    "overlap": (
        shard({"a": entry(0, 2), "b": entry(2, 4)}, b"wxyz"),
        shard({"a": entry(0, 2), "b": entry(1, 4)}, b"wxyz"),
        "the data of 'b' leave a gap or overlap",
    ),
    "gap": (
        shard({"b": entry(2, 3), "a": entry(0, 2)}, b"xyz"),
        shard({"b": entry(2, 3), "a": entry(0, 1)}, b"xyz"),
        "the data of 'b' leave a gap or overlap",
    ),
}


@pytest.mark.parametrize("limit", LIMITS)
def test_a_limit_is_just_kept_or_just_not(tmp_path: Path, limit: str) -> None:
    within, beyond, said = LIMITS[limit]
    read(tmp_path, within)
    assert said in refused(tmp_path, beyond)


def test_a_header_may_have_16_mib_and_no_byte_more(tmp_path: Path) -> None:
    assert read(tmp_path, shard(b"{}" + b" " * (16 * 2**20 - 2)), max_bytes=1 << 30) == []
    beyond = shard(b"{}" + b" " * (16 * 2**20 - 1))
    assert refused(tmp_path, beyond, max_bytes=1 << 30) == "its header claims 16777217 bytes"


def many_tensors(count: int) -> bytes:
    empty = b'{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'
    return shard(b"{" + b",".join(b'"%d":%s' % (n, empty) for n in range(count)) + b"}")


def test_a_file_of_65537_tensors_is_refused(tmp_path: Path) -> None:
    """Before any of them is looked at: these would each be malformed."""
    named = {f"{number}": 0 for number in range(65_537)}
    assert refused(tmp_path, shard(named)) == "it holds 65537 tensors, more than 65536"
    del named["0"]
    assert "is malformed" in refused(tmp_path, shard(named))


def test_a_header_is_no_longer_than_its_tensors_need(tmp_path: Path) -> None:
    """It is not even parsed: what is no JSON is refused for its length."""
    file = tmp_path / "file"
    needed = 65_536 + 2 * 4_096
    for length, said in ((needed, "is not JSON"), (needed + 1, f"claims {needed + 1} bytes")):
        file.write_bytes(shard(b"{" + b" " * (length - 1)))
        with pytest.raises(ShardError, match=said):
            read_shard(file, LIMIT, max_tensors=2)


def test_a_file_holds_as_many_tensors_as_its_reader_allows(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(many_tensors(3))
    assert len(read_shard(file, LIMIT, max_tensors=3)) == 3
    with pytest.raises(ShardError, match="3 tensors, more than 2"):
        read_shard(file, LIMIT, max_tensors=2)


def test_a_file_may_have_the_allowed_bytes_and_no_byte_more(tmp_path: Path) -> None:
    content = one([4], data=b"wxyz")
    assert len(read(tmp_path, content, max_bytes=len(content))) == 1
    said = f"it has {len(content)} bytes where {len(content) - 1} are allowed"
    assert refused(tmp_path, content, max_bytes=len(content) - 1) == said


def test_a_sparse_file_counts_with_its_whole_length(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.touch()
    os.truncate(path, 1 << 40)
    with pytest.raises(ShardError, match="it has 1099511627776 bytes where 1048576 are allowed"):
        read_shard(path, LIMIT)


# --- headers that are none ------------------------------------------------------------------------

MALFORMED: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "too short"),
    "shorter than a length": (b"1234567", "too short"),
    "nothing but a length": (bytes(8), "its header is not JSON"),
    "header of 2^64 bytes": (shard(b"{}", length=2**64 - 1), "claims 18446744073709551615 bytes"),
    "no JSON": (shard(b"{"), "its header is not JSON"),
    "another encoding": (shard('{"a": 1}'.encode("utf-16")), "its header is not JSON"),
    "and without its mark": (shard('{"a": 1}'.encode("utf-16-le")), "its header is not JSON"),
    "no UTF-8": (shard(b'{"\xff":1}'), "its header is not JSON"),
    "a list": (shard([]), "its header is not a JSON object"),
    "NaN": (shard(b"NaN"), "its header is not a JSON object"),
    "deep nesting": (shard(b'{"a":' * 100_000), "its header is nested too deeply"),
    "deep lists": (shard(b"[" * 200_000), "its header is nested too deeply"),
    "endless number": (shard(b'{"a":' + b"9" * 10_000 + b"}"), "its header is not JSON"),
    "equal names": (shard(b'{"a":1,"a":2}'), "a key occurs twice"),
    "equal keys of a tensor": (
        shard(b'{"a":{"dtype":"U8","dtype":"U8","shape":[0],"data_offsets":[0,0]}}'),
        "a key occurs twice",
    ),
    "entry is a number": (shard({"a": 1}), "the header's entry of 'a' is malformed"),
    "entry is a list of its keys": (
        shard({"a": ["dtype", "shape", "data_offsets"]}),
        "the header's entry of 'a' is malformed",
    ),
    "entry without a dtype": (
        shard({"a": {"shape": [], "data_offsets": [0, 0]}}),
        "the header's entry of 'a' is malformed",
    ),
    "entry with more": (
        shard({"a": {**entry(0, 1), "more": 1}}, b"x"),
        "the header's entry of 'a' is malformed",
    ),
    "unknown dtype": (one([1], "F4"), "'a' has an unknown dtype"),
    "dtype by torch's name": (one([1], "uint8"), "'a' has an unknown dtype"),
    "dtype is a list": (one([1], ["U8"]), "'a' has an unknown dtype"),
    "shape is a number": (one(1), "the shape of 'a' is not a list"),
    "shape is an object": (one({}), "the shape of 'a' is not a list"),
    "size is true": (one([True]), "the shape of 'a' holds something that is no size"),
    "size is a float": (one([1.0]), "the shape of 'a' holds something that is no size"),
    "second size is negative": (one([1, -1]), "something that is no size"),
    "two negative sizes": (one([-1, -1]), "something that is no size"),
    "data_offsets are text": (
        shard({"a": {**entry(0, 1), "data_offsets": "01"}}, b"x"),
        "the data_offsets of 'a' is not a list",
    ),
    "data_offsets are true": (
        shard({"a": {**entry(0, 1), "data_offsets": [0, True]}}, b"x"),
        "the data_offsets of 'a' holds something that is no size",
    ),
    "no data_offset": (
        shard({"a": {**entry(0, 1), "data_offsets": []}}, b"x"),
        "shape and data_offsets of 'a' don't agree",
    ),
    "one data_offset": (
        shard({"a": {**entry(0, 1), "data_offsets": [0]}}, b"x"),
        "shape and data_offsets of 'a' don't agree",
    ),
    "three data_offsets": (
        shard({"a": {**entry(0, 1), "data_offsets": [0, 1, 1]}}, b"x"),
        "shape and data_offsets of 'a' don't agree",
    ),
    "end before begin": (
        shard({"a": {"dtype": "U8", "shape": [0], "data_offsets": [1, 0]}}, b"x"),
        "shape and data_offsets of 'a' don't agree",
    ),
    "sizes whose product is too large": (one([2**24, 2**40]), "don't agree"),
    "the same bytes twice": (
        shard({"a": entry(0, 2), "b": entry(0, 2)}, b"xy"),
        "the data of 'b' leave a gap or overlap",
    ),
    "an empty tensor inside another": (
        shard({"a": entry(0, 2), "b": entry(1, 1)}, b"xy"),
        "the data of 'b' leave a gap or overlap",
    ),
    "metadata are a list": (shard({"__metadata__": []}), "its metadata are malformed"),
    "metadata are null": (shard({"__metadata__": None}), "its metadata are malformed"),
    "offsets are no text": (
        shard({"__metadata__": {"DCP_SHARDING_INFO": {}}}),
        "its DCP_SHARDING_INFO is malformed",
    ),
    "offsets are no JSON": (placed("{"), "its DCP_SHARDING_INFO is not JSON"),
    "offsets are a list": (placed("[]"), "its DCP_SHARDING_INFO is not a JSON object"),
    "offsets nested deeply": (placed('{"a":' * 100_000), "its DCP_SHARDING_INFO is nested"),
    "offsets twice": (
        placed('{"a":{"saved_offsets":[0]},"a":{"saved_offsets":[0]}}'),
        "a key occurs twice",
    ),
    "offset missing": (placed({}), "its DCP_SHARDING_INFO is not about the tensors in the file"),
    "offset of a tensor that is not there": (
        placed({**offset(0), "b": {"saved_offsets": [0]}}),
        "its DCP_SHARDING_INFO is not about the tensors in the file",
    ),
    "offset of another tensor": (
        placed({"b": {"saved_offsets": [0]}}),
        "its DCP_SHARDING_INFO is not about the tensors in the file",
    ),
    "offset is a list": (placed({"a": [0]}), "the DCP_SHARDING_INFO of 'a' is malformed"),
    "offset is a list of its keys": (
        placed({"a": ["saved_offsets"]}),
        "the DCP_SHARDING_INFO of 'a' is malformed",
    ),
    "offset under another name": (
        placed({"a": {"offsets": [0]}}),
        "the DCP_SHARDING_INFO of 'a' is malformed",
    ),
    "offset with more": (
        placed({"a": {"saved_offsets": [0], "more": 1}}),
        "the DCP_SHARDING_INFO of 'a' is malformed",
    ),
    "offset of more dimensions": (
        placed(offset(0, 0)),
        "offset and shape of 'a' differ in dimensions",
    ),
    "offset of fewer dimensions": (placed(offset()), "offset and shape of 'a' differ"),
    "offset is true": (placed(offset(True)), "the offset of 'a' holds something that is no size"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_file_is_refused_in_words_that_say_why(tmp_path: Path, case: str) -> None:
    content, said = MALFORMED[case]
    assert said in refused(tmp_path, content)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("n" * 100, "'" + "n" * 100 + "'"),
        ("n" * 101, "'" + "n" * 97 + "...'"),
        ("evil\x1b[2J\n\u202e", "'evil\\x1b[2J\\n\\u202e'"),
        ("\ud800", "'\\ud800'"),
    ],
    ids=["100", "101", "escapes", "no text"],
)
def test_a_name_of_the_file_is_shown_escaped_and_short(
    tmp_path: Path, name: str, shown: str
) -> None:
    assert quoted(name) == shown
    assert shown in refused(tmp_path, shard({name: 1}))


# --- what is no file, and whose fault it is -------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("link", "it cannot be opened: Too many levels of symbolic links"),
        ("fifo", "it is not a regular file"),
        (".", "it is not a regular file"),
        ("absent", "it cannot be opened: No such file or directory"),
        ("a\0b", "its name is no file name"),
        ("second", "it has a second name (a hard link)"),
    ],
)
def test_what_is_no_file_of_its_own_is_neither_followed_nor_waited_for(
    tmp_path: Path, name: str, said: str
) -> None:
    for file in ("file", "linked"):
        (tmp_path / file).write_bytes(one([1]))
    (tmp_path / "link").symlink_to(tmp_path / "file")
    (tmp_path / "second").hardlink_to(tmp_path / "linked")
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ShardError) as caught:
        read_shard(f"{tmp_path}/{name}", LIMIT)
    assert str(caught.value) == said


def test_a_name_is_looked_up_in_the_folder_that_is_given(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(one([1]))
    descriptor = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        assert len(read_shard("x", LIMIT, folder=descriptor)) == 1
    finally:
        os.close(descriptor)


def descriptors() -> set[int]:
    return {int(path.name) for path in Path("/proc/self/fd").iterdir()}


@pytest.mark.parametrize("content", [one([1]), b"12345678"], ids=["read", "refused"])
def test_no_descriptor_is_left_when_a_file_has_been_read(tmp_path: Path, content: bytes) -> None:
    before = descriptors()
    with suppress(ShardError):
        read(tmp_path, content)
    assert descriptors() <= before


def test_a_judge_without_descriptors_blames_its_machine(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(one([1]))
    used = max(descriptors())
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    held: list[int] = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + 2, hard))
        with suppress(OSError):
            while True:
                held.append(os.open("/dev/null", os.O_RDONLY))
        with pytest.raises(OSError) as caught:
            read_shard(tmp_path / "x", LIMIT)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in held:
            os.close(descriptor)
    assert caught.value.errno == errno.EMFILE


@pytest.mark.parametrize(
    ("number", "ours"),
    [
        (errno.EMFILE, True),
        (errno.ENFILE, True),
        (errno.ENOMEM, True),
        (errno.EIO, True),
        (errno.EACCES, False),
        (errno.ENXIO, False),
        (errno.ENAMETOOLONG, False),
    ],
    ids=lambda value: errno.errorcode.get(value, "") if type(value) is int else str(value),
)
def test_only_what_no_submission_can_cause_is_the_machines_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, ours: bool
) -> None:
    def fail(*_: object, **__: object) -> int:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as broken, pytest.raises(OSError if ours else ShardError):
        broken.setattr(os, "open", fail)
        read_shard(tmp_path / "x", LIMIT)


def test_what_has_been_read_outlives_the_name_of_its_file(tmp_path: Path) -> None:
    (only,) = read(tmp_path, one([4], data=b"wxyz"))
    (tmp_path / "x").unlink()
    assert np.asarray(only.data).tobytes() == b"wxyz"


def test_an_entry_says_where_in_its_file_it_lies(tmp_path: Path) -> None:
    """Another process maps it by that."""
    path = tmp_path / "x"
    path.write_bytes(shard({"a": entry(0, 3), "b": entry(3, 8)}, b"aaabbbbb"))
    content = path.read_bytes()
    found = {each.name: each for each in read_shard(path, LIMIT)}
    for each in found.values():
        assert each.file == str(path)
        assert content[each.start : each.start + each.data.size] == each.data.tobytes()
    assert found["b"].start == found["a"].start + 3
