"""What makes times comparable: the class of hardware, and one peak for all of a season."""

import platform

from harness import machine
from harness.benchmark.hparams import Hparams
from harness.errors import Verdict
from harness.result import EvaluationResult


def hardware_class(result: EvaluationResult) -> str:
    """How many devices of which name, or how many cores of a CPU; empty if it did not get that far."""
    if result.machine is None:
        return ""
    found = result.machine
    return _in_words(found.device, found.devices, found.cores)


def this_hardware(hparams: Hparams, world_size: int) -> str:
    """The class that evaluations on this machine will have. Raises InputError(BAD_ARGUMENT)."""
    device = machine.pick_device(hparams.world.device, world_size)
    if device == "cpu":
        name = platform.processor() or platform.machine()
        return _in_words(device, (name,), machine.cores())
    import torch

    names = tuple(torch.cuda.get_device_name(rank) for rank in range(world_size))
    return _in_words(device, names, machine.cores())


def fixed_peak(hparams: Hparams, world_size: int) -> float:
    """TFLOPS of one device: the benchmark's, the table's, or as measured here and now.

    A season's peak is fixed when it opens: a measurement before each evaluation would move ranks.
    Raises InputError(BAD_ARGUMENT or UNKNOWN_PEAK).
    """
    from harness.host.peak import find_peak

    device = machine.pick_device(hparams.world.device, world_size)
    name = "cpu"
    if device == "cuda":
        import torch

        name = torch.cuda.get_device_name(0)
    threads = machine.threads_per_rank(world_size)
    return find_peak(name, hparams.mfu.peak_tflops, threads).tflops


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


def _in_words(device: machine.Device, names: tuple[str, ...], cores: int) -> str:
    different = ", ".join(sorted(set(names)))
    return f"{cores} CPU cores, {different}" if device == "cpu" else f"{len(names)} x {different}"
