"""Commitment digest: a keyed, position-weighted sum of integer bit patterns modulo 2^64.

The clock of a run ends with this digest of the final state, so it has to need every bit of every
tensor and to cost little more than reading them once.

**Definition.** The row-major, little-endian bytes of a tensor, zero-padded to 32-bit words, are
signed integers x_p, 0 <= p < 2^32. With p = b·2^L + i (row b, column i < 2^L, L = 16)

    digest = Σ_p M[b] · W[i] · x_p + λ · bytes + μ   (mod 2^64)

where the tables come from the key. W[i] is random and odd, with a permutation of i in bits 1..L;
M[b] is random with M[b] ≡ 1 (mod 2^(L+1)) and a permutation of b in bits L+1..32; λ is odd. So a
row costs one dot product with W and one multiplication, and no weight is computed per element.

**What changes it, for every key.** Let w_p = M[b]·W[i] and v(n) the exponent of 2 in n.
The w_p are odd and differ from each other modulo 2^33: w_p ≡ w_q (mod 2^33) gives W[i] ≡ W[j]
(mod 2^(L+1)), as M ≡ 1 there, hence i = j; W[i] is a unit, hence M[b] ≡ M[c] (mod 2^33) and b = c.
So v(w_p − w_q) <= 32 for p ≠ q.

1. Any change inside one word, such as one flipped bit: |dx| < 2^32, v(w·dx) = v(dx) <= 31 < 64.
2. Swapping two different elements of k ∈ {8, 16, 32} bits, with patterns u ≠ v:
   in one word, by 1; at the same place (s bits up, s <= 32 − k) of two words, the change is
   ±2^s·(u − v)·(w_p − w_q), of exponent <= (32 − k) + (k − 1) + 32 = 63; at different places s < t
   it is w_p·2^s·(v − u) + w_q·2^t·(u − v), whose terms have different exponents, both below 32.
   (The topmost element of a word counts as signed, which keeps u − v modulo 2^k, and so v(u − v).)
3. Another length of the same padded words: λ is odd and the lengths differ by less than 2^35.

No sum Σ f_p(x_p) modulo 2^64 can promise 2 for 64-bit elements: f_p, f_q and f_p − f_q would be
permutations of Z/2^64, but the values of a permutation sum to 2^63, and 2^63 − 2^63 is not 2^63.
There, and for any other change, the key decides: a difference fixed before the key is drawn that has
an odd number in it passes with a probability of about 2^-30 at most (47 bits of W[i] are uniform, of
which 17 can be lost where the changes of a column add up to 0), one of multiples of 2^s with up to
2^s times that.

**What it does not do.** It is linear: whoever knows the key can change a few hundred low mantissa
bits so that the sum stays (generalised birthday; `tests/protocol/test_digest.py` does it). A rank
learns the key before it opens its state, so the pieces carry a SHA-256 too (`bind=True`).
"""

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

Bytes = npt.NDArray[np.uint8]
DeviceTables = tuple["torch.Tensor", "torch.Tensor"]

COLUMN_BITS = 16
COLUMNS = 1 << COLUMN_BITS
ROWS = 1 << (32 - COLUMN_BITS)
ROW_BYTES = 4 * COLUMNS
MAX_BYTES = ROWS * ROW_BYTES
# Large enough to hide the cost of a task or a kernel launch, small against a model.
SPAN_BYTES = 128 * ROW_BYTES
MODULUS = 1 << 64


@dataclass(frozen=True)
class TensorDigest:
    """`digest`: 16 hex digits. `sha256`: of the row-major bytes, 64 hex digits, or empty."""

    digest: str
    sha256: str


@dataclass(frozen=True)
class Weights:
    """The tables that a key stands for.

    Attributes:
        columns: W, int64 [COLUMNS].
        rows: M, int64 [ROWS].
        length: λ, the weight of the length in bytes.
        constant: μ, the digest of nothing.
    """

    columns: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]
    length: int
    constant: int


@lru_cache(maxsize=4)
def key_weights(key: int) -> Weights:
    """Expand a 64-bit key with Philox4x64, a raw stream that numpy keeps the same over versions."""
    if not 0 <= key < MODULUS:
        raise ValueError(f"a digest key is an unsigned 64-bit number, not {key}")
    generator = np.random.Philox(key=key)
    length, constant, step, shift = (int(number) for number in generator.random_raw(4))
    permutation = np.argsort(generator.random_raw(COLUMNS), kind="stable").astype(np.uint64)
    columns = generator.random_raw(COLUMNS) << np.uint64(COLUMN_BITS + 1)
    columns |= (permutation << np.uint64(1)) | np.uint64(1)
    row = np.arange(ROWS, dtype=np.uint64)
    distinct = (row * np.uint64(step | 1) + np.uint64(shift)) & np.uint64(ROWS - 1)
    rows = generator.random_raw(ROWS) << np.uint64(33)
    rows |= (distinct << np.uint64(COLUMN_BITS + 1)) | np.uint64(1)
    return Weights(columns.view(np.int64), rows.view(np.int64), length | 1, constant)


def digest_bytes(data: Bytes, key: int) -> str:
    """Digest of row-major little-endian bytes, uint8 [n], such as a memory-mapped piece.

    Returns the 16 hex digits that `digest_many` gives for a tensor of these bytes.
    Raises ValueError for more than MAX_BYTES (16 GiB) or a key that is not 64-bit unsigned.
    """
    _check_size(data.size)
    weights = key_weights(key)
    total = sum(
        _sum_host(data[start : start + SPAN_BYTES], start, weights)
        for start in range(0, data.size, SPAN_BYTES)
    )
    return _finish(total, data.size, weights)


def digest_many(
    tensors: "Sequence[torch.Tensor]", key: int, *, bind: bool, threads: int
) -> list[TensorDigest]:
    """Digests of the row-major bytes of dense tensors of any dtype, device and strides.

    CPU tensors are read by `threads` Python threads: numpy and hashlib release the interpreter
    lock. CUDA tensors are summed on their device, after all its streams have finished.

    Args:
        tensors: any shapes, 0-d and empty ones included.
        key: 64-bit unsigned.
        bind: also compute the SHA-256 of the same bytes, streamed to the host in spans.
        threads: at least 1.

    Raises:
        ValueError: a tensor of more than MAX_BYTES (16 GiB), or a key that is not 64-bit unsigned.
    """
    weights = key_weights(key)
    spans = [_spans(tensor) for tensor in tensors]
    tables = {
        device: _prepare(device, weights)
        for device in {tensor.device for tensor in tensors}
        if device.type != "cpu"
    }
    with ThreadPoolExecutor(threads) as pool:
        # SHA-256 of a tensor can't be split, so the longest ones start first; sums fill the gaps.
        hashes: dict[int, Future[str]] = {}
        if bind:
            for index in sorted(range(len(spans)), key=lambda index: -tensors[index].nbytes):
                hashes[index] = pool.submit(_sha256, spans[index])
        sums = [
            [
                _start_sum(pool, span, offset, weights, tables.get(span.device))
                for offset, span in pieces
            ]
            for pieces in spans
        ]
        return [
            TensorDigest(
                digest=_finish(sum(part() for part in parts), tensor.nbytes, weights),
                sha256=hashes[index].result() if bind else "",
            )
            for index, (tensor, parts) in enumerate(zip(tensors, sums, strict=True))
        ]


def _finish(total: int, size: int, weights: Weights) -> str:
    return f"{(total + weights.length * size + weights.constant) % MODULUS:016x}"


def _check_size(size: int) -> None:
    if size > MAX_BYTES:
        raise ValueError(
            f"a piece of {size} bytes is over the limit of {MAX_BYTES}: return it in smaller shards"
        )


# --- sums: linear, so a tensor's sum is that of its spans, wherever these begin ----------------


def _start_sum(
    pool: ThreadPoolExecutor,
    span: "torch.Tensor",
    offset: int,
    weights: Weights,
    tables: "DeviceTables | None",
) -> Callable[[], int]:
    """Start summing one span; the result is called for its value."""
    if tables is None:
        return pool.submit(lambda: _sum_host(_host_bytes(span), offset, weights)).result
    total = sum_device(_byte_view(span), offset, tables)
    return lambda: int(total.item())


def _sum_host(data: Bytes, offset: int, weights: Weights) -> int:
    """Σ w_p·x_p over bytes that begin at `offset` of the tensor's."""
    words = _host_words(data, offset % 4)
    buffer = np.empty(min(COLUMNS, words.size), dtype=np.int64)
    total = 0
    done, position = 0, offset // 4
    while done < words.size:
        row, column = divmod(position, COLUMNS)
        count = min(COLUMNS - column, words.size - done)
        # Buffer, words and weights of one row fit into a core's L2 cache.
        products = buffer[:count]
        np.copyto(products, words[done : done + count])
        np.multiply(products, weights.columns[column : column + count], out=products)
        total += int(products.sum()) * int(weights.rows[row])
        done += count
        position += count
    return total


def _host_words(data: Bytes, before: int) -> npt.NDArray[np.int32]:
    """The bytes as 32-bit words, with `before` zero bytes in front and zeros up to a whole word."""
    if before or data.size % 4:
        padded = np.zeros(-(-(before + data.size) // 4) * 4, dtype=np.uint8)
        padded[before : before + data.size] = data
        data = padded
    return data.view("<i4")


def sum_device(data: "torch.Tensor", offset: int, tables: "DeviceTables") -> "torch.Tensor":
    """`_sum_host` in torch, on the device of `data` (uint8 [n]); int64 [], not waited for."""
    import torch

    row, before = divmod(offset, ROW_BYTES)
    size = before + len(data)
    count = -(-size // ROW_BYTES)
    if before or size % ROW_BYTES or data.storage_offset() % 4:
        padded = data.new_zeros(count * ROW_BYTES)
        padded[before:size] = data
        data = padded
    words = data.view(torch.int32).view(count, COLUMNS)
    columns, rows = tables
    return ((words * columns).sum(dim=1) * rows[row : row + count]).sum()


def device_tables(weights: Weights, device: "torch.device") -> "DeviceTables":
    """W and M, int64, on `device`."""
    import torch

    columns, rows = weights.columns.copy(), weights.rows.copy()
    return torch.from_numpy(columns).to(device), torch.from_numpy(rows).to(device)


def _prepare(device: "torch.device", weights: Weights) -> "DeviceTables":
    """Tables on a GPU, once the work that the training left on other streams of it has finished."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return device_tables(weights, device)


def _sha256(spans: "Sequence[tuple[int, torch.Tensor]]") -> str:
    state = hashlib.sha256()
    for _, span in spans:
        state.update(_host_bytes(span).data)
    return state.hexdigest()


# --- tensors as spans of bytes in row-major order -----------------------------------------------


def _spans(tensor: "torch.Tensor") -> "list[tuple[int, torch.Tensor]]":
    """Views that follow each other in row-major order, with the byte at which each begins.

    Nothing is copied here: a strided view becomes contiguous one span at a time.
    """
    tensor = tensor.detach()
    _check_size(tensor.nbytes)
    if not tensor.numel():
        return []
    if tensor.is_contiguous():
        tensor = tensor.view(-1)
    found: list[tuple[int, torch.Tensor]] = []
    _split(tensor, 0, found)
    return found


def _split(tensor: "torch.Tensor", offset: int, found: "list[tuple[int, torch.Tensor]]") -> None:
    if tensor.nbytes <= SPAN_BYTES:
        found.append((offset, tensor))
        return
    slice_bytes = tensor.nbytes // len(tensor)
    if slice_bytes > SPAN_BYTES:
        for index, part in enumerate(tensor.unbind(0)):
            _split(part, offset + index * slice_bytes, found)
        return
    count = SPAN_BYTES // slice_bytes
    for start in range(0, len(tensor), count):
        found.append((offset + start * slice_bytes, tensor[start : start + count]))


def _byte_view(span: "torch.Tensor") -> "torch.Tensor":
    """uint8 [n] of the row-major elements, on the same device; copied only if strided."""
    import torch

    # A conjugated or negated view is a flag on other bytes.
    plain = span.resolve_conj().resolve_neg().contiguous()
    # A dimension of size 1 may have any stride in a contiguous tensor; `view(dtype)` wants 1.
    return plain.as_strided((plain.numel(),), (1,)).view(torch.uint8)


def _host_bytes(span: "torch.Tensor") -> Bytes:
    data: Bytes = _byte_view(span).cpu().numpy()
    return data
