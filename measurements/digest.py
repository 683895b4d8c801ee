"""How fast the commitment digest is, beside a plain read of the same bytes (numpy sum) and SHA-256.

Usage: python measurements/digest.py [--mebibytes 256] [--rounds 7]

All ways take turns in one run, so that what else the machine does hits them alike; printed is the
median of each way over the rounds, in GB/s (10^9 bytes a second).
"""

import argparse
import hashlib
import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from harness.protocol.digest import digest_bytes, digest_many

KEY = 0x0123456789ABCDEF


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--mebibytes", type=int, default=256, help="size of the state")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    size = options.mebibytes << 20
    ways = make_ways(size)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(options.rounds + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            # The first round touches memory and expands the key.
            if number:
                seconds[name].append(time.perf_counter() - start)
    for name, taken in seconds.items():
        print(f"{name:54s} {size / statistics.median(taken) / 1e9:7.2f} GB/s")


def make_ways(size: int) -> dict[str, Callable[[], object]]:
    """What to compare, over `size` bytes of float32 in eight tensors."""
    whole = torch.randn(size // 4)
    tensors = list(whole.chunk(8))
    halves = [tensor.to(torch.bfloat16) for tensor in tensors for _ in range(2)]
    data = whole.numpy().view(np.uint8)
    ways: dict[str, Callable[[], object]] = {
        "numpy sum, 64-bit words": lambda: data.view(np.int64).sum(),
        "numpy sum, 32-bit words into 64 bits": lambda: data.view(np.int32).sum(dtype=np.int64),
        "digest_bytes, 1 thread": lambda: digest_bytes(data, KEY),
        "SHA-256, 1 thread": lambda: hashlib.sha256(data.data).hexdigest(),
    }
    for threads in (1, 2):
        for what, bind in (("digest", False), ("digest and SHA-256", True)):
            ways[f"digest_many float32, {what}, threads: {threads}"] = partial(
                digest_many, tensors, KEY, bind=bind, threads=threads
            )
    ways["digest_many bfloat16, digest, threads: 2"] = partial(
        digest_many, halves, KEY, bind=False, threads=2
    )
    if torch.cuda.is_available():
        on_device = [tensor.cuda() for tensor in tensors]
        ways["digest_many float32 on the GPU, digest"] = partial(
            digest_many, on_device, KEY, bind=False, threads=1
        )
    return ways


if __name__ == "__main__":
    main()
