"""Peak throughput of the devices that MFU is measured against: dense bf16, never with sparsity.

A GPU's peak comes from a table of vendors' data sheets, and a device that is not in it is an error: a
silent default would make every MFU of that machine wrong. `harness.host.peak` measures a CPU's.
"""

import re
from dataclasses import dataclass
from typing import Literal

from harness.errors import Code, InputError

Source = Literal["table", "measured", "hparams"]

# What stands before the model in torch.cuda.get_device_name(), and the memory that may stand after.
_VENDOR = r"(?:NVIDIA |AMD )?"
_MEMORY = r"(?: \d+ ?GB)?(?: HBM[23]E?)?"


@dataclass(frozen=True)
class Citation:
    """Where a peak stands in print. `docs/peaks.md` shows the same, and a test compares the two.

    Attributes:
        document: the vendor's document, with its number, version or date where one is known.
        row: the row and column of its table, in the document's words.
        printed: TFLOP/s that stand there.
        devices: how many devices the figure is of.
        sparse: whether it is with 2:4 sparsity, which doubles what dense matrices can have.
        read: "copy": read in a stored copy of the document's own text; "quoted": read as others
            quote the row, because the document itself was not at hand.
    """

    document: str
    row: str
    printed: float
    devices: int = 1
    sparse: bool = False
    read: Literal["copy", "quoted"] = "quoted"


@dataclass(frozen=True)
class KnownDevice:
    """A device whose peak is known from its vendor.

    Attributes:
        name: for people.
        pattern: regular expression that its name has to match as a whole, in capitals.
        tflops: dense bf16 TFLOP/s of what torch calls a device.
        citation: where the figure comes from.
    """

    name: str
    pattern: str
    tflops: float
    citation: Citation


_H100_WHITE_PAPER = "NVIDIA H100 Tensor Core GPU Architecture, white paper V1.04, table 1"
_CDNA3_WHITE_PAPER = "AMD CDNA 3 white paper, 2025, PID 2258402-B"

# The whole name has to match. The variants of one model differ (H100 PCIe has 76 % of the SXM's
# peak), a MIG slice is a part of a device, a "4090 D" or "4090 Laptop GPU" is not a 4090: what is
# not listed stays unknown.
KNOWN_DEVICES: tuple[KnownDevice, ...] = (
    KnownDevice(
        "A100",
        r"A100(?:[- ](?:SXM\d?|PCIE|\d+GB))*",
        312,
        Citation(
            "NVIDIA Ampere Architecture In-Depth, technical blog, May 2020, table 3",
            "Peak BF16 Tensor TFLOPS with FP32 Accumulate, A100: 312/624",
            312,
            read="copy",
        ),
    ),
    KnownDevice(
        "H100 SXM",
        r"H100(?:(?: SXM\d?)?(?: \d+GB)? HBM3| SXM\d?(?: \d+GB)?)",
        989,
        Citation(_H100_WHITE_PAPER, "Peak BF16 Tensor Core, SXM5: 989.4", 989.4),
    ),
    KnownDevice(
        "H100 PCIe",
        r"H100(?: \d+GB)? PCIE",
        756,
        Citation(_H100_WHITE_PAPER, "Peak BF16 Tensor Core, PCIe: 756", 756),
    ),
    KnownDevice(
        "H100 NVL",
        r"H100 NVL",
        835,
        Citation(
            "NVIDIA H100, product page, as of April 2026",
            "BFLOAT16 Tensor Core, H100 NVL: 1,671, with sparsity",
            1671,
            sparse=True,
        ),
    ),
    KnownDevice(
        "H200 SXM",
        r"H200(?: SXM\d?)?" + _MEMORY,
        989,
        Citation(
            "NVIDIA H200 datasheet 3367400, July 2024",
            "BFLOAT16 Tensor Core, H200 SXM: 1,979, with sparsity",
            1979,
            sparse=True,
        ),
    ),
    KnownDevice(
        "B200, B300",
        r"B[23]00(?: SXM\d?)?(?: AC)?" + _MEMORY,
        2250,
        Citation(
            "NVIDIA HGX Platform, product page, as of September 2026",
            "FP16/BF16 Tensor Core, HGX B300 and HGX B200, 8 GPUs: 36 PFLOPS, with sparsity",
            36_000,
            devices=8,
            sparse=True,
        ),
    ),
    KnownDevice(
        "GB200, GB300",
        r"GB[23]00" + _MEMORY,
        2500,
        Citation(
            "NVIDIA GB300 NVL72, product page, as of September 2026",
            "FP16/BF16 Tensor Core, 72 GPUs: 360 PFLOPS, with sparsity",
            360_000,
            devices=72,
            sparse=True,
        ),
    ),
    KnownDevice(
        "MI250X, one of its two dies",
        r"INSTINCT MI250X",
        191.5,
        Citation(
            _CDNA3_WHITE_PAPER + ", endnote MI325-019",
            "peak theoretical BF16, MI250X OAM: 383.0",
            383.0,
            devices=2,
            read="copy",
        ),
    ),
    KnownDevice(
        "MI300X, MI325X",
        r"INSTINCT MI3(?:00|25)X(?: OAM)?",
        1307,
        Citation(
            _CDNA3_WHITE_PAPER + ", endnotes MI300-11 and MI325-019",
            "peak theoretical BF16, MI300X and MI325X: 1307.4",
            1307.4,
            read="copy",
        ),
    ),
    KnownDevice(
        "MI355X",
        r"INSTINCT MI355X(?: OAM)?",
        2500,
        Citation(
            "AMD Instinct MI355X GPU data sheet, 2025",
            "BFLOAT16: 2.5166 PFLOPS",
            2516.6,
        ),
    ),
    KnownDevice(
        "L40S",
        r"L40S" + _MEMORY,
        362,
        Citation(
            "NVIDIA L40S datasheet 2841316, August 2023",
            "BFLOAT16 Tensor Core: 362.05 | 733*",
            362.05,
        ),
    ),
    KnownDevice(
        "L4",
        r"L4" + _MEMORY,
        121,
        Citation(
            "NVIDIA L4, product page",
            "BFLOAT16 Tensor Core: 242, with sparsity",
            242,
            sparse=True,
        ),
    ),
    KnownDevice(
        "GeForce RTX 4090",
        r"GEFORCE RTX 4090",
        165,
        Citation(
            "NVIDIA Ada GPU Architecture, white paper V2.1, appendix A",
            "Peak BF16 Tensor TFLOPS with FP32 Accumulate: 165.2/330.4",
            165.2,
        ),
    ),
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


def listed_peak(device_name: str) -> Peak:
    """The peak of a GPU, from the table.

    Args:
        device_name: as torch.cuda.get_device_name() says.

    Raises InputError(UNKNOWN_PEAK) for a device that is not in the table.
    """
    name = " ".join(device_name.upper().split())
    for known in KNOWN_DEVICES:
        if re.fullmatch(_VENDOR + known.pattern, name):
            return Peak(known.tflops, "table", device_name)
    raise InputError(
        Code.UNKNOWN_PEAK,
        f"the peak of {device_name!r} is not known: set mfu.peak_tflops in hparams to its dense "
        "bf16 TFLOP/s",
    )
