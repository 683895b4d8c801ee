"""The commitment digest: what it must notice, where it must agree, and what only SHA-256 catches."""

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import Code, SubmissionError
from harness.opening.read import read_opened
from harness.protocol import digest as digest_module
from harness.protocol.digest import (
    COLUMN_BITS,
    COLUMNS,
    MAX_BYTES,
    MODULUS,
    ROW_BYTES,
    ROWS,
    TensorDigest,
    device_tables,
    digest_bytes,
    digest_many,
    key_weights,
    sum_device,
)
from harness.protocol.messages import Commitment, Piece
from harness.protocol.opening import write_opened

KEYS = st.sampled_from([0, 1, MODULUS - 1, 0x0123456789ABCDEF])
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


def one(tensor: torch.Tensor, key: int = 7, threads: int = 2) -> TensorDigest:
    return digest_many([tensor], key, bind=True, threads=threads)[0]


def row_major_bytes(tensor: torch.Tensor) -> bytes:
    """Element by element through Python's own iteration order, independent of the code under test."""
    plain = tensor.cpu().resolve_conj().resolve_neg().clone(memory_format=torch.contiguous_format)
    return bytes(plain.reshape(-1).view(torch.uint8).numpy())


def by_definition(data: bytes, key: int) -> str:
    """The docstring's formula in Python's integers."""
    weights = key_weights(key)
    words = data + bytes(-len(data) % 4)
    total = weights.length * len(data) + weights.constant
    for position in range(len(words) // 4):
        word = int.from_bytes(words[4 * position : 4 * position + 4], "little", signed=True)
        row, column = divmod(position, COLUMNS)
        total += int(weights.rows[row]) * int(weights.columns[column]) * word
    return f"{total % MODULUS:016x}"


# --- it is what it says, everywhere ------------------------------------------------------------


@given(data=st.binary(max_size=300), key=KEYS)
@settings(max_examples=60, deadline=None)
def test_digest_is_the_documented_sum(data: bytes, key: int) -> None:
    assert digest_bytes(np.frombuffer(data, np.uint8), key) == by_definition(data, key)


def test_digest_is_the_documented_sum_over_several_rows() -> None:
    data = np.random.default_rng(1).integers(0, 256, 2 * ROW_BYTES + 5, dtype=np.uint8)
    assert digest_bytes(data, 99) == by_definition(bytes(data), 99)


def test_digest_of_a_key_never_changes() -> None:
    """Stored results stay verifiable: a changed generator or formula must be a new protocol version."""
    data = np.arange(256, dtype=np.uint8)
    assert digest_bytes(data, 0x0123456789ABCDEF) == "86b2663eec9ee297"


def test_tables_of_a_key_never_change() -> None:
    """All of them, hashed; worked out from Philox4x64-10 and the docstring in Python's integers."""
    weights = key_weights(0x0123456789ABCDEF)
    tables = [weights.columns.astype("<i8"), weights.rows.astype("<i8")]
    assert [table.shape for table in tables] == [(65_536,), (65_536,)]
    assert [hashlib.sha256(table.tobytes()).hexdigest() for table in tables] == [
        "ed765fd44bf1489f2308d9ce0da041e810b201abddea103304e3cb067b741fe0",
        "6375b5965467109d950622430b9563fa6687433ebcbbc27b73aa52cf3296d3e4",
    ]
    assert (weights.length, weights.constant) == (15776318158494808409, 4040359448450831055)


def test_the_digest_of_nothing_is_the_constant() -> None:
    nothing = np.zeros(0, dtype=np.uint8)
    assert digest_bytes(nothing, 0x0123456789ABCDEF) == f"{4040359448450831055:016x}"


def test_zeros_count_by_their_number_alone() -> None:
    """Four of them: the weight of the length four times, and nothing else."""
    zeros = np.zeros(4, dtype=np.uint8)
    expected = (4040359448450831055 + 4 * 15776318158494808409) % 2**64
    assert digest_bytes(zeros, 0x0123456789ABCDEF) == f"{expected:016x}"


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("count", [0, 1, 3, 1001])
def test_every_dtype_on_every_device(device: str, dtype: torch.dtype, count: int) -> None:
    source = torch.randint(0, 2 if dtype == torch.bool else 256, (count * 16,), dtype=torch.uint8)
    tensor = source.view(dtype)[:count].to(device)
    raw = row_major_bytes(tensor)
    assert one(tensor) == TensorDigest(by_definition(raw, 7), hashlib.sha256(raw).hexdigest())


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
@pytest.mark.parametrize("span_bytes", [8, 20, 64, 1 << 20])
@pytest.mark.parametrize("name", views())
def test_views_have_the_digest_of_their_row_major_copy(
    name: str, span_bytes: int, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small spans: strided views are cut in the middle of words, rows and dimensions."""
    monkeypatch.setattr(digest_module, "SPAN_BYTES", span_bytes)
    tensor = views()[name].to(device)
    raw = row_major_bytes(tensor)
    assert one(tensor) == TensorDigest(by_definition(raw, 7), hashlib.sha256(raw).hexdigest())
    assert one(tensor).digest == digest_bytes(np.frombuffer(raw, np.uint8), 7)


@pytest.mark.parametrize("device", ["cpu", CUDA])
def test_gpu_code_gives_the_sum_of_cpu_code(device: str) -> None:
    """`sum_device` is what runs on a GPU; it is plain torch, so it is checked on the CPU as well."""
    end = 3 * ROW_BYTES
    for start, stop in [(0, 10), (0, ROW_BYTES), (1, end), (ROW_BYTES + 6, end), (4, 4)]:
        check_device_sum(start, stop, device)


def check_device_sum(start: int, stop: int, device: str) -> None:
    data = torch.randint(0, 256, (3 * ROW_BYTES,), dtype=torch.uint8)
    weights = key_weights(5)
    tables = device_tables(weights, torch.device(device))
    whole = torch.zeros_like(data)
    whole[start:stop] = data[start:stop]
    expected = int(digest_bytes(whole.numpy(), 5), 16)
    total = int(sum_device(data[start:stop].to(device), start, tables))
    assert (total + weights.length * len(data) + weights.constant) % MODULUS == expected


def test_spans_may_begin_in_a_row_and_end_in_another(monkeypatch: pytest.MonkeyPatch) -> None:
    data = torch.randint(0, 256, (2 * ROW_BYTES + 20,), dtype=torch.uint8)
    expected = digest_bytes(data.numpy(), 7)
    for span_bytes in (ROW_BYTES - 40, ROW_BYTES + 40, ROW_BYTES + 41):
        monkeypatch.setattr(digest_module, "SPAN_BYTES", span_bytes)
        assert one(data).digest == expected


@pytest.mark.parametrize(
    ("before", "words"),
    [
        (0, [0x04030201, 0x05]),
        (1, [0x03020100, 0x0504]),
        (2, [0x02010000, 0x050403]),
        (3, [0x01000000, 0x05040302]),
    ],
)
def test_bytes_are_cut_into_words_where_those_of_the_tensor_are(
    before: int, words: list[int]
) -> None:
    found = digest_module._host_words(np.array([1, 2, 3, 4, 5], dtype=np.uint8), before)
    assert found.tolist() == words


def test_a_whole_row_at_an_odd_address_is_summed_as_elsewhere() -> None:
    """A view of bytes that is no view of words."""
    weights = key_weights(5)
    tables = device_tables(weights, torch.device("cpu"))
    data = torch.randint(0, 256, (ROW_BYTES + 5,), dtype=torch.uint8)
    for start in (0, 1, 2, 3, 5):
        row = data[start : start + ROW_BYTES]
        expected = int(digest_bytes(row.numpy(), 5), 16)
        total = int(sum_device(row, 0, tables)) + weights.length * len(row) + weights.constant
        assert total % MODULUS == expected


def test_a_span_on_a_device_has_the_sum_of_one_on_the_host() -> None:
    weights = key_weights(5)
    tables = device_tables(weights, torch.device("cpu"))
    span = torch.randn(30, 20).t()
    with ThreadPoolExecutor(1) as pool:
        there = digest_module._start_sum(pool, span, 12, weights, tables)()
        here = digest_module._start_sum(pool, span, 12, weights, None)()
    assert (there - here) % MODULUS == 0


@pytest.mark.parametrize(
    ("device", "expected"),
    [("cuda:1", ["wait for cuda:1", "tables on cuda:1"]), ("mps", ["tables on mps"])],
)
def test_a_gpu_is_waited_for_before_its_tensors_are_read(
    device: str, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The training may still write on another stream; a digest of that would be of unfinished weights."""
    done: list[str] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda at: done.append(f"wait for {at}"))
    monkeypatch.setattr(
        digest_module, "device_tables", lambda _, at: done.append(f"tables on {at}")
    )
    digest_module._prepare(torch.device(device), key_weights(5))
    assert done == expected


def test_every_gpu_gets_the_tables_once_and_a_cpu_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tensor without memory stands for one on a GPU."""
    prepared: list[tuple[str, bool]] = []
    summed: list[tuple[str, object]] = []

    def prepare(device: torch.device, weights: digest_module.Weights) -> str:
        prepared.append((device.type, weights is key_weights(7)))
        return "tables"

    def start(*arguments: Any) -> Callable[[], int]:
        _, span, _, _, tables = arguments
        summed.append((span.device.type, tables))
        return lambda: 0

    monkeypatch.setattr(digest_module, "_prepare", prepare)
    monkeypatch.setattr(digest_module, "_start_sum", start)
    devices = ["cpu", "meta", "meta", "cpu"]
    tensors = [torch.empty(3, device=device) for device in devices]
    digest_many(tensors, 7, bind=False, threads=1)
    assert prepared == [("meta", True)]
    assert summed == [("cpu", None), ("meta", "tables"), ("meta", "tables"), ("cpu", None)]


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
    spans = digest_module._spans(tensor)
    assert [span.nbytes for _, span in spans] == sizes
    assert [offset for offset, _ in spans] == [sum(sizes[:index]) for index in range(len(sizes))]


def test_the_longest_hash_is_started_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """It cannot be split: started last, all threads but one would wait for it on the clock."""
    started: list[int] = []

    def record(spans: Sequence[tuple[int, torch.Tensor]]) -> str:
        started.append(sum(span.nbytes for _, span in spans))
        return "hash"

    monkeypatch.setattr(digest_module, "_sha256", record)
    tensors = [torch.zeros(size) for size in (2, 9, 0, 5)]
    digest_many(tensors, 7, bind=True, threads=1)
    assert started == [36, 20, 8, 0]


def test_many_tensors_keep_their_order_and_threads_change_nothing() -> None:
    tensors = [torch.randn(size) for size in (5, 300_000, 0, 17, 1)]
    alone = [one(tensor, threads=1) for tensor in tensors]
    assert digest_many(tensors, 7, bind=True, threads=4) == alone
    unbound = digest_many(tensors, 7, bind=False, threads=2)
    assert [(it.digest, it.sha256) for it in unbound] == [(it.digest, "") for it in alone]


def test_a_piece_beyond_the_limit_is_refused_before_it_is_read() -> None:
    huge = torch.zeros(1, dtype=torch.uint8).expand(MAX_BYTES + 1)
    with pytest.raises(ValueError, match="over the limit"):
        digest_many([huge], 0, bind=False, threads=1)
    with pytest.raises(ValueError, match="17179869185 bytes is over the limit of 17179869184"):
        digest_bytes(np.broadcast_to(np.zeros(1, np.uint8), 16 * 2**30 + 1), 0)


def test_a_piece_of_16_gib_is_not_beyond_the_limit() -> None:
    """By its size alone: summing it would take a minute."""
    digest_module._check_size(16 * 2**30)


@pytest.mark.parametrize("key", [-1, MODULUS])
def test_a_key_has_64_bits(key: int) -> None:
    with pytest.raises(ValueError, match="64-bit"):
        digest_bytes(np.zeros(4, np.uint8), key)


# --- what it must notice, for every key --------------------------------------------------------


@given(data=st.binary(min_size=1, max_size=100), key=KEYS, draw=st.data())
@settings(max_examples=150, deadline=None)
def test_any_flipped_bit_changes_it(data: bytes, key: int, draw: st.DataObject) -> None:
    bit = draw.draw(st.integers(0, 8 * len(data) - 1))
    flipped = bytearray(data)
    flipped[bit // 8] ^= 1 << bit % 8
    assert digest_bytes(np.frombuffer(data, np.uint8), key) != digest_bytes(
        np.frombuffer(flipped, np.uint8), key
    )


@given(
    bits=st.sampled_from([8, 16, 32]),
    distance=st.integers(0, COLUMN_BITS + 2).map(lambda power: 1 << power)
    | st.integers(1, 4 * COLUMNS),
    key=KEYS,
    draw=st.data(),
)
@settings(max_examples=150, deadline=None)
def test_any_swap_of_different_elements_changes_it(
    bits: int, distance: int, key: int, draw: st.DataObject
) -> None:
    """Distances that are powers of 2 and values that differ in the top bit alone are the hardest."""
    patterns = st.integers(0, 2**bits - 1)
    one_value = draw.draw(patterns)
    other = one_value ^ draw.draw(
        st.integers(0, bits - 1).map(lambda bit: 1 << bit) | st.integers(1, 2**bits - 1)
    )
    first = draw.draw(st.integers(0, 40))
    elements = np.zeros(first + distance + 1, dtype=f"<u{bits // 8}")
    elements[[first, first + distance]] = one_value, other
    swapped = elements.copy()
    swapped[[first, first + distance]] = other, one_value
    assert digest_bytes(elements.view(np.uint8), key) != digest_bytes(swapped.view(np.uint8), key)


@given(data=st.binary(max_size=50), zeros=st.integers(1, 50), key=KEYS)
@settings(max_examples=60, deadline=None)
def test_appended_zeros_change_it(data: bytes, zeros: int, key: int) -> None:
    longer = data + bytes(zeros)
    assert digest_bytes(np.frombuffer(data, np.uint8), key) != digest_bytes(
        np.frombuffer(longer, np.uint8), key
    )


@pytest.mark.parametrize("key", [0, 1, MODULUS - 1, 0xDEADBEEF])
def test_weights_have_what_the_proof_uses(key: int) -> None:
    """Odd, and all 2^32 of them different modulo 2^33: here from the two tables that make them."""
    weights = key_weights(key)
    columns = weights.columns.view(np.uint64) % np.uint64(2 << COLUMN_BITS)
    rows = weights.rows.view(np.uint64) % np.uint64(1 << 33)
    assert np.array_equal(np.sort(columns), np.arange(1, 2 << COLUMN_BITS, 2))
    assert len(np.unique(rows)) == ROWS
    assert np.all(rows % np.uint64(2 << COLUMN_BITS) == 1)
    assert weights.length % 2 == 1


def test_the_weight_of_the_length_is_odd_whatever_the_key() -> None:
    """Or some appended zeros would change nothing. Of 12 raw numbers some are even."""
    assert [key_weights(key).length % 2 for key in range(12)] == [1] * 12


def test_another_key_gives_another_digest() -> None:
    data = np.arange(100, dtype=np.uint8)
    assert len({digest_bytes(data, key) for key in range(12)}) == 12


# --- what it can't notice, and why pieces carry a SHA-256 too ----------------------------------


@dataclass(frozen=True)
class Sums:
    """Candidate sums modulo 2^64, and for each which elements to nudge."""

    values: npt.NDArray[np.uint64]
    picks: npt.NDArray[np.int64]  # [candidates, lists]


def join(left: Sums, right: Sums, bits: int) -> Sums:
    """All pairs whose sum is 0 modulo 2^bits."""
    mask = np.uint64(2**bits - 1)
    order = np.argsort(right.values & mask)
    keys = (right.values & mask)[order]
    needed = (np.uint64(0) - left.values) & mask
    low, high = np.searchsorted(keys, needed, "left"), np.searchsorted(keys, needed, "right")
    count = high - low
    mine = np.repeat(np.arange(len(needed)), count)
    within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    theirs = order[np.repeat(low, count) + within]
    return Sums(
        left.values[mine] + right.values[theirs],
        np.concatenate([left.picks[mine], right.picks[theirs]], axis=1),
    )


def forge(cheat: torch.Tensor, committed: str, key: int) -> torch.Tensor:
    """A tensor within 1 ulp of `cheat` (float32) whose digest is `committed`, by Wagner's algorithm.

    Eight lists of the 2^17 ways to flip the lowest bits of 17 elements; joined on 17, 34 and 64 bits.
    """
    words = cheat.clone().view(torch.int32).numpy().reshape(-1)
    weights = key_weights(key)
    missing = int(committed, 16) - int(digest_bytes(words.view(np.uint8), key), 16)
    choices = np.arange(1 << 17)
    lists = []
    for number in range(8):
        elements = np.arange(17 * number, 17 * number + 17)
        change = (1 - 2 * (words[elements] & 1)) * weights.columns[elements] * weights.rows[0]
        flips = (choices[:, None] >> np.arange(17)) & 1
        lists.append(Sums((flips @ change).view(np.uint64), choices[:, None]))
    lists[0] = Sums(lists[0].values - np.uint64(missing % MODULUS), lists[0].picks)
    for bits in (17, 34, 64):
        lists = [join(a, b, bits) for a, b in zip(lists[::2], lists[1::2], strict=True)]
    for number, pick in enumerate(lists[0].picks[0]):
        words[17 * number : 17 * number + 17] ^= (int(pick) >> np.arange(17)).astype(np.int32) & 1
    return torch.from_numpy(words).view(torch.float32).view(cheat.shape)


@dataclass(frozen=True)
class Opened:
    name: str
    offset: tuple[int, ...]
    tensor: torch.Tensor


def test_a_forged_digest_is_caught_by_the_sha256(tmp_path: Path) -> None:
    """Commit to unfinished weights, finish them after the clock, nudge 136 elements by at most 1 ulp."""
    torch.manual_seed(3)
    key = 0xFEEDC0FFEE123457
    unfinished = torch.randn(64, 32)
    finished_late = unfinished - 0.1 * torch.randn(64, 32)
    committed = one(unfinished, key)
    forged = forge(finished_late, committed.digest, key)
    assert torch.allclose(forged, finished_late, rtol=3e-7, atol=0)
    assert one(forged, key).digest == committed.digest

    piece = Piece(
        name="w", tensor_shape=(64, 32), offset=(0, 0), shape=(64, 32), dtype="float32",
        digest=committed.digest, sha256=committed.sha256,
    )  # fmt: skip
    commitment = Commitment(run=0, pieces=(piece,))
    folder = tmp_path / "run0-rank0"
    write_opened(folder, [Opened("w", (0, 0), forged)], shard=1)
    assert 0 in read_opened(folder, commitment, [0], key, 1 << 20, bind=False)
    with pytest.raises(SubmissionError, match="'w' \\(the SHA-256\\)") as caught:
        read_opened(folder, commitment, [0], key, 1 << 20, bind=True)
    assert caught.value.code == Code.COMMITMENT_BROKEN
