"""What this machine offers a judge: devices and their peak, sandboxes, versions, memory."""

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Literal

import psutil
from pydantic import Field
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from harness.errors import InputError, TrainjudgeError
from harness.host.peak import find_peak
from harness.machine import cores, gpu_driver
from harness.records import Record
from harness.sandbox import Level, probe
from harness.sandbox.docker.leftovers import sandbox_containers
from harness.sandbox.own_group import OwnGroup, left_groups
from harness.sandbox.scratch import left_scratch
from harness.timed.workspace import left_folders

GIB = 2**30
PACKAGES = ("torch", "transformers", "safetensors", "numpy")


class Device(Record):
    """One device that a rank could have, or the CPU for all of them."""

    name: str
    memory_bytes: int = Field(description="in all, of the GPU or of the machine")
    peak_tflops: float | None = Field(description="dense TFLOP/s; null: unknown")
    peak_source: str = Field(description="table, measured, or why there is none")


class SandboxLevel(Record):
    level: Level
    available: bool
    reason: str = Field(description="what it is, or why it does not work and what to do")


class LeftContainer(Record):
    """A container of level `docker` that nobody will end, or whose judge cannot be seen from here."""

    name: str
    state: str = Field(description="the engine's word, such as running or exited")
    judge: Literal["gone", "unknown"]


class DoctorReport(Record):
    """The whole examination; sizes in bytes."""

    python: str
    platform: str
    packages: dict[str, str | None] = Field(description="versions; null: not installed")
    gpu_driver: str | None
    cuda: str | None = Field(description="the CUDA version that torch was built for")
    cpus: int = Field(description="cores that this process may use")
    memory_total: int
    memory_free: int = Field(description="available without swapping, as the kernel estimates")
    shared_memory_free: int | None = Field(description="of /dev/shm; null: there is none")
    kernel_holds_limits: str = Field(
        description="of memory and tasks, at levels bubblewrap, user and none: by control groups of this "
        "version; empty: they are polled alone"
    )
    devices: tuple[Device, ...]
    sandboxes: tuple[SandboxLevel, ...] = Field(description="best first; auto takes the first")
    left_containers: tuple[LeftContainer, ...] = Field(description="`validator clean` removes them")
    left_folders: tuple[Path, ...] = Field(
        description="work folders of judges that were killed; `validator clean` removes them"
    )

    @property
    def best_sandbox(self) -> Level | None:
        return next((each.level for each in self.sandboxes if each.available), None)


def examine() -> DoctorReport:
    """Look at everything; a few seconds, most of them torch's import and the CPU's measurement."""
    memory = psutil.virtual_memory()
    return DoctorReport(
        python=f"{platform.python_implementation()} {platform.python_version()}",
        platform=platform.platform(),
        packages={name: _version(name) for name in PACKAGES},
        gpu_driver=gpu_driver() or None,
        cuda=_cuda_version(),
        cpus=cores(),
        memory_total=memory.total,
        memory_free=memory.available,
        shared_memory_free=_free(Path("/dev/shm")),
        kernel_holds_limits=_kernel_holds_limits(),
        devices=(*_gpus(), _cpu(memory.total)),
        sandboxes=tuple(
            SandboxLevel(level=each.level, available=each.available, reason=each.reason)
            for each in probe(_benchmark())
        ),
        left_containers=_left_containers(),
        left_folders=(*left_folders(), *left_scratch(), *left_groups()),
    )


def _kernel_holds_limits() -> str:
    group = OwnGroup.make(2**30, 100)
    if group is None:
        return ""
    group.remove()
    return f"control groups, version {group.version}"


def _benchmark() -> str:
    """Hash of the hparams that a judge would use here: level `docker` needs an image of it."""
    from harness.benchmark.hparams import load_hparams

    return load_hparams(None).sha256


def _left_containers() -> tuple[LeftContainer, ...]:
    try:
        found = sandbox_containers()
    except TrainjudgeError:
        return ()  # no engine: the sandbox's own row says why
    return tuple(
        LeftContainer(
            name=each.name, state=each.state, judge="gone" if each.judge is False else "unknown"
        )
        for each in found
        if each.judge is not True
    )


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cuda_version() -> str | None:
    import torch

    version: str | None = torch.version.cuda
    return version


def _gpus() -> list[Device]:
    import torch

    devices = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        devices.append(_device(properties.name, properties.total_memory))
    return devices


def _cpu(memory: int) -> Device:
    return _device("cpu", memory)


def _device(name: str, memory: int) -> Device:
    try:
        peak = find_peak(name)
    except InputError as error:
        return Device(
            name=name,
            memory_bytes=memory,
            peak_tflops=None,
            peak_source=f"unknown: {error.message}",
        )
    return Device(
        name=peak.device, memory_bytes=memory, peak_tflops=peak.tflops, peak_source=peak.source
    )


def _free(folder: Path) -> int | None:
    try:
        status = os.statvfs(folder)
    except OSError:
        return None
    return status.f_bavail * status.f_frsize


def render(report: DoctorReport) -> RenderableType:
    """Three tables for a terminal."""
    machine = Table("machine", "", title_justify="left", header_style="bold")
    machine.add_row("Python", f"{report.python} on {report.platform}")
    for name, version in report.packages.items():
        machine.add_row(name, version or Text("not installed", style="red"))
    machine.add_row("GPU driver", report.gpu_driver or "none")
    machine.add_row("CUDA of torch", report.cuda or "none (CPU build)")
    machine.add_row("cores", str(report.cpus))
    machine.add_row("memory", f"{_gib(report.memory_free)} free of {_gib(report.memory_total)}")
    if report.shared_memory_free is not None:
        machine.add_row("/dev/shm", f"{_gib(report.shared_memory_free)} free")
    machine.add_row("limits", report.kernel_holds_limits or "polled; level docker's by its engine")
    tables = [machine, _devices(report), _sandboxes(report)]
    if report.left_containers or report.left_folders:
        tables.append(_left(report))
    return Group(*tables)


def _devices(report: DoctorReport) -> Table:
    table = Table("device", "memory", "peak TFLOP/s", "from", header_style="bold")
    for device in report.devices:
        peak = "?" if device.peak_tflops is None else f"{device.peak_tflops:.3g}"
        # Text: a device's name is not markup.
        table.add_row(Text(device.name), _gib(device.memory_bytes), peak, Text(device.peak_source))
    return table


def _sandboxes(report: DoctorReport) -> Table:
    table = Table("sandbox", "", "", header_style="bold")
    for each in report.sandboxes:
        mark = Text("works", style="green") if each.available else Text("missing", style="yellow")
        name = f"{each.level} (auto)" if each.level is report.best_sandbox else str(each.level)
        table.add_row(name, mark, Text(each.reason))
    return table


def _left(report: DoctorReport) -> Table:
    table = Table("left behind", "", "its judge", header_style="bold")
    table.caption = "`validator clean` removes those whose judge is gone, `--all` every container"
    for each in report.left_containers:
        table.add_row(Text(each.name), Text(f"container, {each.state}"), each.judge)
    for folder in report.left_folders:
        table.add_row(Text(str(folder)), "work folder", "gone")
    return table


def _gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB"
