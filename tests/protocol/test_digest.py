"""The commitment digest: keyed BLAKE3 of a tensor's row-major bytes, whatever holds it and reads it."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from blake3 import blake3

from harness.protocol import digest as digest_module
from harness.protocol.digest import KEY_BYTES, digest_bytes, digest_many

KEY = bytes(range(KEY_BYTES))
# Without a GPU one test says that it was skipped, not one for each dtype and view.
DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
CUDA = pytest.param(
    "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
)
DTYPES = [
    torch.bool,
    torch.uint8,
    torch.int8,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.bfloat16,
    torch.float16,
    torch.int32,
    torch.float32,
    torch.int64,
    torch.float64,
    torch.complex64,
    torch.complex128,
]


def one(tensor: torch.Tensor, threads: int = 2) -> str:
    return digest_many([tensor], KEY, threads)[0]


def row_major_bytes(tensor: torch.Tensor) -> bytes:
    """Element by element through Python's own iteration order, independent of the code under test."""
    plain = tensor.cpu().resolve_conj().resolve_neg().clone(memory_format=torch.contiguous_format)
    return bytes(plain.reshape(-1).view(torch.uint8).numpy())


def expected(tensor: torch.Tensor) -> str:
    return blake3(row_major_bytes(tensor), key=KEY).hexdigest()


@pytest.mark.parametrize(
    ("length", "digest"),
    [
        (0, "92b2b75604ed3c761f9d6f62392c8a9227ad0ea3f09573e783f1498a4ed60d26"),
        (1, "6d7878dfff2f485635d39013278ae14f1454b8c0a3a2d34bc1ab38228a80c95b"),
        (1_025, "357dc55de0c7e382c900fd6e320acc04146be01db6a8ce7210b7189bd664ea69"),
        (102_400, "1c35d1a5811083fd7119f5d5d1ba027b4d01c0c6c49fb6ff2cf75393ea5db4a7"),
    ],
)
def test_it_is_blake3_with_a_key_as_its_authors_publish_it(length: int, digest: str) -> None:
    """From test_vectors.json of the reference implementation."""
    data = (np.arange(length) % 251).astype(np.uint8)
    assert digest_bytes(data, b"whats the Elvish word for friend") == digest
    tensor = torch.from_numpy(data)
    assert digest_many([tensor], b"whats the Elvish word for friend", threads=1) == [digest]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("count", [0, 1, 3, 1001])
def test_every_dtype_on_every_device(device: str, dtype: torch.dtype, count: int) -> None:
    source = torch.randint(0, 2 if dtype == torch.bool else 256, (count * 16,), dtype=torch.uint8)
    tensor = source.view(dtype)[:count].to(device)
    assert one(tensor) == expected(tensor)
    assert digest_bytes(np.frombuffer(row_major_bytes(tensor), np.uint8), KEY) == expected(tensor)


def views() -> dict[str, torch.Tensor]:
    base = torch.randn(6, 10, 7)
    half = torch.randn(9, 11).to(torch.bfloat16)
    return {
        "scalar": torch.tensor(3.25),
        "scalar of one byte": torch.tensor(True),
        "no elements": torch.empty(3, 0, 2),
        "transposed": base.transpose(0, 2),
        "every other row": base[::2],
        "every other column": base[..., ::2],
        "inner part": base[1:5, 3:, 2:6],
        "broadcast": torch.randn(5, 1).expand(5, 9),
        "odd offset of 16 bits": half.view(-1)[1:],
        "odd offset of 8 bits": torch.arange(50, dtype=torch.uint8)[3:],
        "odd rows of 16 bits": half.t(),
        "conjugate": torch.randn(4, 5, dtype=torch.complex64).conj(),
        "negative": torch._neg_view(torch.randn(8)),
        "negative and strided": torch.randn(8, dtype=torch.complex64).conj().imag,
        "needs a gradient": torch.nn.Parameter(torch.randn(4, 4)).t(),
    }


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("span_bytes", [8, 20, 64, 1 << 20])
@pytest.mark.parametrize("name", views())
def test_views_have_the_digest_of_their_row_major_copy(
    name: str, span_bytes: int, large: bool, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small spans: strided views are cut in the middle of words, rows and dimensions."""
    monkeypatch.setattr(digest_module, "SPAN_BYTES", span_bytes)
    monkeypatch.setattr(digest_module, "LARGE_BYTES", 0 if large else 1 << 40)
    tensor = views()[name].to(device)
    assert one(tensor) == expected(tensor)


@pytest.mark.parametrize(
    ("tensor", "sizes"),
    [
        (torch.zeros(16), [64]),
        (torch.zeros(17), [64, 4]),
        # Contiguous, so rows of 36 bytes need not end with a span.
        (torch.zeros(3, 9), [64, 44]),
        # Strided: whole rows, as many as there is room for, or parts of one that has none.
        (torch.zeros(9, 4).t(), [36, 36, 36, 36]),
        (torch.zeros(6, 5).t(), [48, 48, 24]),
        (torch.zeros(20, 2).t(), [64, 16, 64, 16]),
        (torch.zeros(3), [12]),
        (torch.zeros(3, 0), []),
        (torch.zeros(()), [4]),
    ],
    ids=lambda it: str(tuple(it.shape)) if isinstance(it, torch.Tensor) else None,
)
def test_a_tensor_is_read_in_spans_that_follow_each_other(
    tensor: torch.Tensor, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A strided span is copied, so its size is the memory that a commitment needs beside the model."""
    monkeypatch.setattr(digest_module, "SPAN_BYTES", 64)
    assert [span.nbytes for span in digest_module._spans(tensor)] == sizes


def test_of_a_strided_tensor_at_most_two_spans_are_copied_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One is hashed, the next one fetched: that is the memory beside the model."""
    copied = threading.Semaphore(2)
    host_bytes, update = digest_module._host_bytes, blake3.update

    def count(span: torch.Tensor) -> object:
        assert copied.acquire(timeout=5), "a third copy was made before one was hashed"
        return host_bytes(span)

    class Counting:
        def __init__(self, **options: Any) -> None:
            self.state = blake3(**options)

        def update(self, data: memoryview) -> None:
            update(self.state, data)
            copied.release()

        def hexdigest(self) -> str:
            return self.state.hexdigest()

    monkeypatch.setattr(digest_module, "SPAN_BYTES", 64)
    monkeypatch.setattr(digest_module, "LARGE_BYTES", 0)
    monkeypatch.setattr(digest_module, "_host_bytes", count)
    monkeypatch.setattr(digest_module, "blake3", Counting)
    tensor = torch.randn(40, 16).t()
    assert one(tensor) == expected(tensor)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, int]]]:
    """Bytes of each tensor in the order in which they were begun, and threads at work on it."""
    began: list[tuple[int, int]] = []

    def record(spans: Any, key: bytes, threads: int) -> str:
        began.append((sum(len(span) for span in spans), threads))
        return "hash"

    monkeypatch.setattr(digest_module, "_hash", record)
    yield began


def test_the_longest_are_begun_first_and_large_ones_by_all_threads(
    started: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Begun last, one thread would work on it while all others wait on the clock."""
    monkeypatch.setattr(digest_module, "LARGE_BYTES", 32)
    digest_many([torch.zeros(size) for size in (2, 9, 0, 8, 5)], KEY, threads=3)
    assert started[:2] == [(36, 3), (32, 3)]
    assert sorted(started[2:], reverse=True) == [(20, 1), (8, 1), (0, 1)]


def test_devices_are_waited_for_before_anything_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    monkeypatch.setattr(digest_module, "_wait_for_devices", lambda _: order.append("wait"))
    monkeypatch.setattr(digest_module, "_hash", lambda *_, **__: order.append("read"))
    digest_many([torch.zeros(1), torch.zeros(2)], KEY, threads=1)
    assert order == ["wait", "read", "read"]


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_many_tensors_keep_their_order_and_threads_change_nothing(
    threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digest_module, "LARGE_BYTES", 100_000)
    tensors = [torch.randn(size) for size in (5, 300_000, 0, 17, 1, 30_000)]
    assert digest_many(tensors, KEY, threads) == [expected(tensor) for tensor in tensors]
    assert digest_many([], KEY, threads) == []


def test_what_fails_for_one_tensor_fails_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> str:
        raise IndexError("a defect")

    monkeypatch.setattr(digest_module, "_hash", fail)
    with pytest.raises(IndexError, match="a defect"):
        digest_many([torch.zeros(1)], KEY, threads=2)


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_key_has_32_bytes(length: int) -> None:
    for compute in (
        lambda key: digest_bytes(np.zeros(4, np.uint8), key),
        lambda key: digest_many([torch.zeros(4)], key, threads=1),
    ):
        call: Callable[[bytes], object] = compute
        with pytest.raises(ValueError, match="32"):
            call(bytes(length))


def test_another_key_a_flipped_bit_and_another_length_change_it() -> None:
    data = np.zeros(100, np.uint8)
    other = data.copy()
    other[99] = 128
    keys = [KEY, bytes(KEY_BYTES), KEY[:-1] + b"\0"]
    found = {digest_bytes(each, key) for key in keys for each in (data, other, data[:-1])}
    assert len(found) == 9


@pytest.mark.parametrize("device", ["cuda:1", "meta", "cpu"])
def test_a_gpu_is_waited_for_before_its_tensors_are_read(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The training may still write on another stream; a digest of that would be of unfinished weights."""
    waited: list[str] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda at: waited.append(str(at)))

    class On:
        def __init__(self, name: str) -> None:
            self.device = torch.device(name)

    digest_module._wait_for_devices([On(device), On("cpu"), On(device)])  # type: ignore[list-item]
    assert waited == (["cuda:1"] if device == "cuda:1" else [])


@pytest.mark.parametrize("device", [CUDA])
@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_on_a_gpu_two_buffers_take_turns(
    device: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digest_module, "SPAN_BYTES", 4_096)
    tensors = [
        torch.randn(1_024 * count - 7, device=device),
        torch.randn(64, 16 * count).t().to(device),
    ]
    assert digest_many(tensors, KEY, threads=2) == [expected(tensor) for tensor in tensors]
