"""What the judge knows of the machine it runs on; nothing here comes from a sandbox."""

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Final, Literal

from pydantic import Field

from harness.errors import Code, InputError
from harness.records import Record

Device = Literal["cpu", "cuda"]
DEVICES: Final = Path("/dev")


class Machine(Record):
    """Where an evaluation ran."""

    platform: str = Field(description="operating system and kernel")
    cores: int = Field(description="CPU cores that the judge may use")
    device: Device
    devices: tuple[str, ...] = Field(description="names of the devices that the ranks used")
    driver: str = Field(description="GPU driver, empty on CPU")
    trainjudge: str = Field(description="version of the judge")
    python: str
    torch: str
    transformers: str


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0))


def reachable_cores() -> int:
    """CPU cores that a process started here can have: one may widen its affinity up to its cpuset."""
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, range(os.cpu_count() or 1))
        return len(os.sched_getaffinity(0))
    except OSError:
        return len(before)
    finally:
        os.sched_setaffinity(0, before)


def gpu_files() -> int:
    """NVIDIA devices of this machine, also those that this process was told not to use."""
    return len([path for path in DEVICES.glob("nvidia*") if path.name[6:].isdecimal()])


def threads_per_rank(world_size: int) -> int:
    """CPU threads that each rank is given: the cores are shared out, at least one each."""
    return max(1, cores() // world_size)


def pick_device(wanted: Literal["auto", "cpu", "cuda"], world_size: int) -> Device:
    """The device kind for `world_size` ranks.

    Raises:
        InputError: the benchmark asks for more GPUs than there are.
    """
    if wanted == "cpu":
        return "cpu"
    import torch

    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wanted == "auto" and found == 0:
        return "cpu"
    if found < world_size:
        raise InputError(
            Code.BAD_ARGUMENT,
            f"{world_size} ranks need a GPU each and this machine offers {found}: use a smaller "
            "--world, or set world.device to cpu in hparams",
        )
    return "cuda"


def describe(device: Device, world_size: int) -> Machine:
    names: tuple[str, ...] = (cpu_name(),)
    driver = ""
    if device == "cuda":
        import torch

        names = tuple(torch.cuda.get_device_name(rank) for rank in range(world_size))
        driver = gpu_driver()
    return Machine(
        platform=f"{platform.system()} {platform.release()}",
        cores=cores(),
        device=device,
        devices=names,
        driver=driver,
        trainjudge=version("trainjudge"),
        python=platform.python_version(),
        torch=version("torch"),
        transformers=version("transformers"),
    )


def cpu_name() -> str:
    """As far as Python knows it: often the architecture alone."""
    return platform.processor() or platform.machine()


def device_names() -> frozenset[str]:
    """Of all devices here, as `describe` names them; where there is a GPU it costs the import of torch."""
    return frozenset({cpu_name(), *gpu_names()})


def gpu_names() -> tuple[str, ...]:
    """Of every GPU that this process may use, as `describe` names them."""
    if not gpu_files():
        return ()
    import torch

    return tuple(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))


def gpu_driver() -> str:
    """Version of the NVIDIA kernel driver, or an empty string."""
    try:
        with open("/sys/module/nvidia/version", encoding="ascii") as file:  # noqa: PTH123
            return file.read().strip()
    except OSError:
        return ""
