"""Which GPUs a sandbox gets: those that count, and no others. Standard library only, but for `gpu_ids`."""

import os
import re
from pathlib import Path

DEVICES = Path("/dev")
#: What the driver says of each GPU: its id, and the number in the name of its device file.
DRIVER = Path("/proc/driver/nvidia/gpus")


def gpu_ids(count: int) -> tuple[str, ...]:
    """The first `count` GPUs that the judge itself would use, by the names that outlast renumbering."""
    named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    if named and all(name.strip().startswith(("GPU-", "MIG-")) for name in named):
        return tuple(name.strip() for name in named[:count])
    import torch

    return tuple(f"GPU-{torch.cuda.get_device_properties(n).uuid}" for n in range(count))


def device_files(count: int) -> tuple[Path, ...]:
    """The device files of `gpu_ids(count)` and those that all GPUs share.

    NVIDIA's library leaves out a GPU whose file it cannot open, as in a container that was given a part of
    them. Where the driver does not tell which file is whose, and for slices of a GPU (MIG): all files.
    """
    every = sorted(DEVICES.glob("nvidia*"))
    minors = _minors()
    ids = gpu_ids(count)
    if any(name not in minors for name in ids):
        return tuple(every)
    counted = {f"nvidia{minors[name]}" for name in ids}
    return tuple(file for file in every if not is_gpu(file) or file.name in counted)


def told_apart(count: int) -> bool:
    """Whether `device_files` are those of `count` GPUs and of no more."""
    return sum(map(is_gpu, device_files(count))) == count


def is_gpu(file: Path) -> bool:
    """Whether a device file is that of one GPU, as /dev/nvidia0 is and /dev/nvidiactl is not."""
    return re.fullmatch(r"nvidia[0-9]+", file.name) is not None


def _minors() -> dict[str, str]:
    """The number of the device file of each GPU, by the GPU's id."""
    found = {}
    for file in DRIVER.glob("*/information"):
        text = file.read_text(encoding="ascii", errors="replace")
        name = re.search(r"^GPU UUID:\s*(\S+)", text, re.M)
        minor = re.search(r"^Device Minor:\s*([0-9]+)", text, re.M)
        if name and minor:
            found[name[1]] = minor[1]
    return found
