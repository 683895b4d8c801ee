"""The peak of the devices here: as hparams say, measured for a CPU, from the vendors' table for a GPU.

A CPU's peak is that of all cores that ranks can reach, shared out: whoever has three of seven cores idle
has not used them. Noise only makes a product slower, so the fastest of them tells what the cores can do.
"""

import math
import time
from collections.abc import Sequence
from typing import Final, Literal

from harness.benchmark.hparams import Hparams
from harness.machine import Machine, cores, reachable_cores
from harness.score.peaks import Peak, listed_peak

Dtype = Literal["float32", "bfloat16"]

MEASURE_SECONDS: Final = 0.5
MIN_PRODUCTS: Final = 5
#: Times slower than another dtype, the setting up included.
HOPELESS: Final = 20
#: Up to so many cores, products of that size keep them all busy.
SIZES: Final = ((4, 1_024), (16, 2_048), (math.inf, 4_096))


def find_peak(
    device_name: str,
    override: float | None = None,
    world_size: int = 1,
    dtypes: Sequence[Dtype] = ("float32",),
) -> Peak:
    """The peak of one device.

    Args:
        device_name: as torch.cuda.get_device_name() says, or "cpu".
        override: `mfu.peak_tflops` of hparams, TFLOP/s; it goes before everything.
        world_size: CPU only: ranks that share the cores.
        dtypes: CPU only: in which matrix products may be computed; the fastest counts.

    Raises InputError(UNKNOWN_PEAK) for a GPU that is not in the table.
    """
    if override is not None:
        return Peak(override, "hparams", device_name)
    if device_name == "cpu":
        return measure_cpu_peak(world_size, dtypes)
    return listed_peak(device_name)


def peak_of(found: Machine, hparams: Hparams, world_size: int) -> Peak:
    """The peak of one device of a machine, for a benchmark on so many ranks.

    Raises InputError(UNKNOWN_PEAK) for a GPU that is not in the table.
    """
    bfloat16 = hparams.numerics.compute_dtype == "bfloat16"
    return find_peak(
        found.devices[0] if found.device == "cuda" else "cpu",
        hparams.mfu.peak_tflops,
        world_size,
        ("float32", "bfloat16") if bfloat16 else ("float32",),
    )


def measure_cpu_peak(world_size: int = 1, dtypes: Sequence[Dtype] = ("float32",)) -> Peak:
    """The share of each rank in the speed of the fastest square matrix product on all usable cores.

    Cores that this process may not use, but ranks can reach by asking for them, count as fast as its own.

    Args:
        world_size, dtypes: as in `find_peak`. torch's own settings are put back.
    """
    import torch

    own, reachable = cores(), reachable_cores()
    before = torch.get_num_threads()
    torch.set_num_threads(own)
    try:
        size = _product_size(own)
        seconds = math.inf
        for dtype in dtypes:
            seconds = min(seconds, _fastest_product(dtype, size, seconds))
    finally:
        torch.set_num_threads(before)
    tflops = 2 * size**3 / seconds / 1e12 * reachable / own / world_size
    shared = f" for {world_size} ranks" if world_size > 1 else ""
    count = f"{reachable} core{'s' if reachable > 1 else ''}"
    return Peak(tflops, "measured", f"cpu, {count}{shared}, {' or '.join(dtypes)}")


def _product_size(threads: int) -> int:
    """Rows and columns of square matrices whose product keeps so many cores busy."""
    return next(size for most, size in SIZES if threads <= most)


def _fastest_product(dtype: Dtype, size: int, known: float) -> float:
    """Seconds of the fastest of some products; the first does not count, as it also sets things up.

    Args:
        known: seconds in another dtype. One that is far slower from the start, as bfloat16 is on a CPU
            without instructions for it, is not measured to the end, which would take half a minute: inf.
    """
    import torch

    with torch.no_grad():
        left = torch.rand(size, size).to(getattr(torch, dtype))
        right = left.t().contiguous()
        start = time.perf_counter()
        out = torch.mm(left, right)
        if time.perf_counter() - start > HOPELESS * known:
            return math.inf
        times: list[float] = []
        until = time.perf_counter() + MEASURE_SECONDS
        while len(times) < MIN_PRODUCTS or time.perf_counter() < until:
            start = time.perf_counter()
            torch.mm(left, right, out=out)
            times.append(time.perf_counter() - start)
    return min(times)
