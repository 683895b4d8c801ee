"""Commitment digest: BLAKE3 in keyed mode, over the row-major, little-endian bytes of a tensor.

The clock of a run ends with this digest of the final state. It is a keyed hash, so it does two things at
once: it cannot be computed, nor begun, before the key is drawn, because the key enters the compression of
the very first block; and it binds, also for those who know the key, because nobody can find other bytes
with the same digest (BLAKE3 section 2.4 and 4: the keyed mode is the hash with another initial value). It
costs about as much as reading the bytes: the measurement is `measurements/digest.py`.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from blake3 import blake3

if TYPE_CHECKING:
    import torch

Bytes = npt.NDArray[np.uint8]

KEY_BYTES = 32
#: A strided tensor, or one on a GPU, is copied in spans of this size, of which two exist at a time.
SPAN_BYTES = 32 * 2**20
#: From here on all threads work on one tensor; smaller ones are shared out among them.
LARGE_BYTES = 32 * 2**20


def digest_bytes(data: Bytes, key: bytes) -> str:
    """Digest of row-major little-endian bytes, uint8 [n], such as a memory-mapped piece; 64 hex digits.

    Raises ValueError for a key that has not KEY_BYTES.
    """
    return _hash([data], key, threads=1)


def digest_many(tensors: "Sequence[torch.Tensor]", key: bytes, threads: int) -> list[str]:
    """Digests of the row-major bytes of dense tensors of any dtype, device and strides; 64 hex digits each.

    Tensors on a GPU are read after all its streams have finished.

    Args:
        tensors: any shapes, 0-d and empty ones included.
        key: KEY_BYTES.
        threads: at least 1.

    Raises ValueError for a key that has not KEY_BYTES.
    """
    _wait_for_devices(tensors)
    digests: dict[int, str] = {}
    longest_first = sorted(range(len(tensors)), key=lambda index: -tensors[index].nbytes)
    large = [index for index in longest_first if tensors[index].nbytes >= LARGE_BYTES]
    small = deque(longest_first[len(large) :])

    def take_turns() -> None:
        # One task for each thread and not for each tensor, of which there may be thousands.
        while True:
            try:
                index = small.popleft()
            except IndexError:
                return
            digests[index] = _hash(_spans_on_host(tensors[index], None), key, threads=1)

    with ThreadPoolExecutor(threads) as pool:
        for index in large:
            digests[index] = _hash(_spans_on_host(tensors[index], pool), key, threads)
        for done in [pool.submit(take_turns) for _ in range(threads)]:
            done.result()
    return [digests[index] for index in range(len(tensors))]


def _hash(spans: "Iterator[Bytes] | list[Bytes]", key: bytes, threads: int) -> str:
    state = blake3(key=key, max_threads=threads)
    for span in spans:
        state.update(span.data)
    return state.hexdigest()


def _wait_for_devices(tensors: "Sequence[torch.Tensor]") -> None:
    """What the training left on other streams of a GPU may still write."""
    import torch

    for device in {tensor.device for tensor in tensors}:
        if device.type == "cuda":
            torch.cuda.synchronize(device)


# --- tensors as spans of bytes in row-major order -----------------------------------------------


def _spans_on_host(tensor: "torch.Tensor", pool: ThreadPoolExecutor | None) -> Iterator[Bytes]:
    """The tensor's bytes, span by span; with a pool the next one is fetched while one is hashed."""
    spans = _spans(tensor)
    if tensor.device.type == "cuda":
        yield from _from_gpu(spans)
    elif pool is None or tensor.is_contiguous():
        yield from map(_host_bytes, spans)
    else:
        following = pool.submit(_host_bytes, spans[0])
        for number in range(len(spans)):
            span = following.result()
            if number + 1 < len(spans):
                following = pool.submit(_host_bytes, spans[number + 1])
            yield span


def _from_gpu(spans: "Sequence[torch.Tensor]") -> Iterator[Bytes]:
    """Two pinned buffers take turns: one is filled by the GPU while the other is hashed."""
    import torch

    if not spans:
        return
    device = spans[0].device
    stream = torch.cuda.Stream(device)
    size = max(span.nbytes for span in spans)
    buffers = [torch.empty(size, dtype=torch.uint8, pin_memory=True) for _ in spans[:2]]
    filled = [torch.cuda.Event() for _ in buffers]

    def fill(number: int) -> None:
        with torch.cuda.stream(stream):
            data = _byte_view(spans[number])
            buffers[number % 2][: len(data)].copy_(data, non_blocking=True)
            filled[number % 2].record(stream)

    fill(0)
    for number, span in enumerate(spans):
        if number + 1 < len(spans):
            fill(number + 1)
        filled[number % 2].synchronize()
        yield buffers[number % 2][: span.nbytes].numpy()


def _spans(tensor: "torch.Tensor") -> "list[torch.Tensor]":
    """Views that follow each other in row-major order.

    Nothing is copied here: a strided view becomes contiguous one span at a time.
    """
    tensor = tensor.detach()
    if not tensor.numel():
        return []
    if tensor.is_contiguous():
        tensor = tensor.view(-1)
    found: list[torch.Tensor] = []
    _split(tensor, found)
    return found


def _split(tensor: "torch.Tensor", found: "list[torch.Tensor]") -> None:
    if tensor.nbytes <= SPAN_BYTES:
        found.append(tensor)
        return
    slice_bytes = tensor.nbytes // len(tensor)
    if slice_bytes > SPAN_BYTES:
        for part in tensor.unbind(0):
            _split(part, found)
        return
    count = SPAN_BYTES // slice_bytes
    for start in range(0, len(tensor), count):
        found.append(tensor[start : start + count])


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
