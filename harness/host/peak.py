"""The peak of the devices here: as hparams say, measured for a CPU, from the vendors' table for a GPU."""

import statistics
import time

from harness.benchmark.hparams import Hparams
from harness.machine import Machine, threads_per_rank
from harness.score.peaks import Peak, listed_peak

GEMM_SIZE = 1024
MEASURE_SECONDS = 0.5
MIN_GEMMS = 5


def find_peak(device_name: str, override: float | None = None, threads: int | None = None) -> Peak:
    """The peak of one device.

    Args:
        device_name: as torch.cuda.get_device_name() says, or "cpu".
        override: `mfu.peak_tflops` of hparams, TFLOP/s; it goes before everything.
        threads: CPU only: threads of one rank; None: as many as torch uses.

    Raises InputError(UNKNOWN_PEAK) for a GPU that is not in the table.
    """
    if override is not None:
        return Peak(override, "hparams", device_name)
    if device_name == "cpu":
        return measure_cpu_peak(threads)
    return listed_peak(device_name)


def peak_of(found: Machine, hparams: Hparams, world_size: int) -> Peak:
    """The peak of one device of a machine, for a benchmark on so many ranks.

    Raises InputError(UNKNOWN_PEAK) for a GPU that is not in the table.
    """
    return find_peak(
        found.devices[0] if found.device == "cuda" else "cpu",
        hparams.mfu.peak_tflops,
        threads_per_rank(world_size),
    )


def measure_cpu_peak(threads: int | None = None) -> Peak:
    """Median speed of square fp32 matrix products, with the threads of one rank, in half a second.

    Measured while the other ranks' cores idle, so it is what a rank could have at best: ranks that
    share caches, memory and clock rates get less of it each, and the MFU shows that.

    Args:
        threads: as in `find_peak`. torch's own setting is put back.
    """
    import torch

    before = torch.get_num_threads()
    used = before if threads is None else threads
    torch.set_num_threads(used)
    try:
        seconds = statistics.median(_time_gemms())
    finally:
        torch.set_num_threads(before)
    tflops = 2 * GEMM_SIZE**3 / seconds / 1e12
    return Peak(tflops, "measured", f"cpu, {used} thread{'s' if used > 1 else ''}")


def _time_gemms() -> list[float]:
    """Seconds of each product, after one that does not count."""
    import torch

    with torch.no_grad():
        left = torch.rand(GEMM_SIZE, GEMM_SIZE)
        right = torch.rand(GEMM_SIZE, GEMM_SIZE)
        out = torch.mm(left, right)
        times: list[float] = []
        until = time.perf_counter() + MEASURE_SECONDS
        while len(times) < MIN_GEMMS or time.perf_counter() < until:
            start = time.perf_counter()
            torch.mm(left, right, out=out)
            times.append(time.perf_counter() - start)
    return times
