"""How fast the commitment digest is, beside a plain read of the same bytes and SHA-256.

Usage: python measurements/digest.py [--mebibytes 256] [--rounds 7]

All ways take turns in one run, so that what else the machine does hits them alike; printed is the
median of each way over the rounds, in GB/s (10^9 bytes a second).
"""

import argparse
import hashlib
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

from harness.protocol.digest import KEY_BYTES, digest_bytes, digest_many

KEY = bytes(range(KEY_BYTES))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--mebibytes", type=int, default=256, help="size of the state")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path, help="file that gets every round's seconds")
    options = parser.parse_args()
    torch.set_num_threads(1)
    size = options.mebibytes << 20
    ways = make_ways(size)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(options.rounds + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            # The first round touches memory.
            if number:
                seconds[name].append(time.perf_counter() - start)
    if options.json:
        options.json.write_text(json.dumps(seconds, indent=2) + "\n", encoding="utf-8")
    for name, taken in seconds.items():
        print(f"{name:54s} {size / statistics.median(taken) / 1e9:7.2f} GB/s")


def make_ways(size: int) -> dict[str, Callable[[], object]]:
    """What to compare, over `size` bytes of float32: as eight tensors, and as many small ones."""
    whole = torch.randn(size // 4)
    eight, many = list(whole.chunk(8)), list(whole.chunk(1_024))
    wide = torch.randn(size // 4).view(1_024, -1).t()
    data = whole.numpy().view(np.uint8)
    ways: dict[str, Callable[[], object]] = {
        "numpy sum, 64-bit words": lambda: data.view(np.int64).sum(),
        "SHA-256, 1 thread": lambda: hashlib.sha256(data.data).hexdigest(),
        "digest_bytes, 1 thread": lambda: digest_bytes(data, KEY),
    }
    for threads in (1, 2):
        for what, tensors in (("8 tensors", eight), ("1,024", many), ("1, transposed", [wide])):
            ways[f"digest_many, {what}, threads: {threads}"] = partial(
                digest_many, tensors, KEY, threads
            )
    if torch.cuda.is_available():
        on_device = [tensor.cuda() for tensor in eight]
        ways["digest_many, 8 tensors on the GPU, threads: 2"] = partial(
            digest_many, on_device, KEY, 2
        )
    return ways


if __name__ == "__main__":
    main()
