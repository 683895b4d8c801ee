"""What makes times comparable: the class of hardware, and one peak for all of a season."""

from collections.abc import Sequence

from harness import machine
from harness.benchmark.hparams import Hparams
from harness.errors import Verdict
from harness.machine import Device, Machine
from harness.result import EvaluationResult


def hardware_class(result: EvaluationResult) -> str:
    """How many devices of which name, or how many cores of a CPU; empty if it did not get that far."""
    return "" if result.machine is None else _in_words(result.machine)


def this_hardware(hparams: Hparams, world_size: int) -> str:
    """The class that evaluations on this machine will have. Raises InputError(BAD_ARGUMENT)."""
    return _in_words(_this_machine(hparams, world_size))


def fixed_peak(hparams: Hparams, world_size: int) -> float:
    """TFLOPS of one device: the benchmark's, the table's, or as measured here and now.

    A season's peak is fixed when it opens: a measurement before each evaluation would move ranks.
    Raises InputError(BAD_ARGUMENT or UNKNOWN_PEAK).
    """
    from harness.host.known_peak import settled
    from harness.host.peak import peak_of

    ranks_here = world_size // hparams.world.nodes
    peak = peak_of(_this_machine(hparams, world_size), hparams, ranks_here)
    return settled(peak, peak)[0].tflops if peak.source == "measured" else peak.tflops


def headline_mfus(result: EvaluationResult, peak_tflops: float | None) -> tuple[float, ...]:
    """MFU of every run of an accepted evaluation, of the score's basis; else none.

    Args:
        result: of one evaluation.
        peak_tflops: the season's peak, in place of the one that the evaluation was scored with.
    """
    if result.verdict is not Verdict.ACCEPTED or result.score is None:
        return ()
    scale = 1.0 if peak_tflops is None else result.score.peak_tflops / peak_tflops
    return tuple(getattr(run, f"mfu_{result.score.basis}") * scale for run in result.runs)


def _this_machine(hparams: Hparams, world_size: int) -> Machine:
    """Where the ranks are on several machines, this one stands for all: they have to be alike."""
    nodes = hparams.world.nodes
    ranks_here = world_size // nodes
    device = machine.pick_device(hparams.world.device, ranks_here)
    here = machine.describe(device, ranks_here)
    return here.model_copy(update={"devices": here.devices * nodes})


def in_words(device: Device, cores: int, devices: Sequence[str]) -> str:
    """The class of the machines whose ranks use these: of CPUs there is one name for each machine."""
    different = ", ".join(sorted(set(devices)))
    if device == "cuda":
        return f"{len(devices)} x {different}"
    several = f"{len(devices)} x " if len(devices) > 1 else ""
    return f"{several}{cores} CPU cores, {different}"


def _in_words(found: Machine) -> str:
    return in_words(found.device, found.cores, found.devices)
