"""How fast a state is opened and read again, beside `dd` of the same bytes.

    python -m measurements.opening [--gigabytes 2] [--rounds 5] [--folder DIR] [--json FILE]

Both ways take turns in one run: a rank writes a state with `write_opened`, and the judge reads and hashes
it with `read_opened`; `dd` writes and reads as many bytes, in blocks of 16 MiB. Written is until the disk
has it (fdatasync), and read is what is not in memory (the pages are dropped before). Printed are medians
in GB/s (10^9 bytes a second), and the median of each round's ratio to `dd`.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from harness.opening.files import MAX_FILES
from harness.opening.read import read_opened
from harness.protocol.digest import KEY_BYTES, digest_many
from harness.protocol.messages import Commitment, Piece
from harness.protocol.opening import write_opened
from measurements.compare_states import seconds

KEY = bytes(range(KEY_BYTES))
TENSOR_BYTES = 64 << 20
BLOCK = "bs=16M"


@dataclass(frozen=True)
class Whole:
    """A tensor that one rank holds all of."""

    name: str
    tensor: torch.Tensor

    @property
    def offset(self) -> tuple[int, ...]:
        return (0,) * self.tensor.ndim


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=2.0, help="of the state")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="on the disk that is meant")
    parser.add_argument("--json", type=Path, help="file that gets every round's seconds")
    options = parser.parse_args()
    boxes = state(max(1, round(options.gigabytes * 1e9 / TENSOR_BYTES)))
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        rounds = [one_round(Path(folder), boxes) for _ in range(options.rounds)]
    if options.json:
        options.json.write_text(json.dumps(rounds, indent=2) + "\n", encoding="utf-8")
    size = sum(box.tensor.nbytes for box in boxes)
    for ours, dd in (("write_opened", "dd writes"), ("read_opened", "dd reads")):
        for name in (dd, ours):
            median = statistics.median(times[name] for times in rounds)
            print(f"{name:13} {median:7.3f} s {size / median / 1e9:6.2f} GB/s")
        ratio = statistics.median(times[dd] / times[ours] for times in rounds)
        print(f"{ours:13} {ratio:7.0%} of dd's speed")


def state(count: int) -> list[Whole]:
    generator = torch.Generator().manual_seed(0)
    shape = (TENSOR_BYTES // 4 // 1_024, 1_024)
    return [Whole(f"w{n}", torch.randn(shape, generator=generator)) for n in range(count)]


def one_round(folder: Path, boxes: list[Whole]) -> dict[str, float]:
    """Seconds of each way."""
    size = sum(box.tensor.nbytes for box in boxes)
    plain, opened = folder / "plain", folder / "run0-rank0"
    count = f"count={size >> 24}"
    found = {}
    found["dd writes"] = seconds(lambda: dd("if=/dev/zero", f"of={plain}", count, "conv=fdatasync"))
    found["write_opened"] = seconds(lambda: sync(write_opened(opened, boxes, shard=1)))
    commitment = committed(boxes)
    drop(plain, *opened.iterdir())
    found["dd reads"] = seconds(lambda: dd(f"if={plain}", "of=/dev/null"))
    found["read_opened"] = seconds(
        lambda: read_opened(opened, commitment, range(len(boxes)), KEY, 2 * size, MAX_FILES)
    )
    plain.unlink()
    shutil.rmtree(opened)
    return found


def committed(boxes: list[Whole]) -> Commitment:
    digests = digest_many([box.tensor for box in boxes], KEY, os.cpu_count() or 1)
    return Commitment(
        run=0,
        pieces=tuple(
            Piece(
                name=box.name,
                tensor_shape=tuple(box.tensor.shape),
                offset=box.offset,
                shape=tuple(box.tensor.shape),
                dtype="float32",
                digest=digest,
            )
            for box, digest in zip(boxes, digests, strict=True)
        ),
    )


def dd(*words: str) -> None:
    subprocess.run(["dd", BLOCK, "status=none", *words], check=True)


def sync(paths: list[Path]) -> None:
    for path in paths:
        with path.open("rb") as file:
            os.fdatasync(file.fileno())


def drop(*paths: Path) -> None:
    """Out of memory: what is read next comes from the disk."""
    for path in paths:
        with path.open("rb") as file:
            os.fdatasync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


if __name__ == "__main__":
    main()
