"""Peak throughput of the devices that MFU is measured against: dense bf16, never with sparsity.

A GPU's peak comes from a table of vendors' data sheets, a CPU's is measured, hparams can say
otherwise, and a device that is none of these is an error: a silent default would make every MFU of
that machine wrong.
"""

import re
import statistics
import time
from dataclasses import dataclass
from typing import Literal

from harness.errors import Code, InputError

Source = Literal["table", "measured", "hparams"]

GEMM_SIZE = 1024
MEASURE_SECONDS = 0.5
MIN_GEMMS = 5

# What stands before the model in torch.cuda.get_device_name(), and the memory that may stand after.
_VENDOR = r"(?:NVIDIA |AMD )?"
_MEMORY = r"(?: \d+ ?GB)?(?: HBM[23]E?)?"

# The whole name has to match. The variants of one model differ (H100 PCIe has 76 % of the SXM's
# peak), a MIG slice is a part of a device, a "4090 D" or "4090 Laptop GPU" is not a 4090: what is
# not listed stays unknown. MI250X: one of the two dies, which is what torch calls a device.
_TABLE: tuple[tuple[str, float], ...] = (
    (r"A100(?:[- ](?:SXM\d?|PCIE|\d+GB))*", 312),
    (r"H100(?: SXM\d?)?(?: \d+GB)? HBM3", 989),
    (r"H100 SXM\d?(?: \d+GB)?", 989),
    (r"H100(?: \d+GB)? PCIE", 756),
    (r"H100 NVL", 835),
    (r"H200(?: SXM\d?)?" + _MEMORY, 989),
    (r"B[23]00(?: SXM\d?)?(?: AC)?" + _MEMORY, 2250),
    (r"GB[23]00" + _MEMORY, 2500),
    (r"INSTINCT MI250X", 191.5),
    (r"INSTINCT MI3(?:00|25)X(?: OAM)?", 1307),
    (r"INSTINCT MI355X(?: OAM)?", 2500),
    (r"L40S" + _MEMORY, 362),
    (r"L4" + _MEMORY, 121),
    (r"GEFORCE RTX 4090", 165),
)


@dataclass(frozen=True)
class Peak:
    """What one device can do at best.

    Attributes:
        tflops: TFLOP/s (10^12 floating-point operations a second) of one device, that is of one rank.
        source: "table": dense bf16 of the vendor; "measured": fp32 matrix products on this CPU;
            "hparams": the benchmark's `mfu.peak_tflops`.
        device: the device's name, for a CPU with the number of threads.
    """

    tflops: float
    source: Source
    device: str


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
    name = " ".join(device_name.upper().split())
    for pattern, tflops in _TABLE:
        if re.fullmatch(_VENDOR + pattern, name):
            return Peak(tflops, "table", device_name)
    raise InputError(
        Code.UNKNOWN_PEAK,
        f"the peak of {device_name!r} is not known: set mfu.peak_tflops in hparams to its dense "
        "bf16 TFLOP/s",
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
