"""From judged runs to the numbers that are ranked."""

from collections.abc import Sequence
from statistics import median

from harness.flops import FORMULA_VERSION, ParameterCount, flops_per_token, mfu
from harness.hparams import Hparams
from harness.peaks import Peak
from harness.result import RunResult, Score


def score(
    runs: Sequence[RunResult], hparams: Hparams, parameters: ParameterCount, peak: Peak
) -> Score:
    """Medians over the runs; the headline is of the basis that hparams names."""
    active = median(run.mfu_active_params for run in runs)
    matmul = median(run.mfu_matmul_flops for run in runs)
    basis = hparams.mfu.basis
    return Score(
        mfu=active if basis == "active_params" else matmul,
        basis=basis,
        mfu_active_params=active,
        mfu_matmul_flops=matmul,
        tokens_per_second=median(run.tokens_per_second for run in runs),
        total_params=parameters.total,
        active_params=parameters.active,
        flops_per_token=flops_per_token(parameters, hparams.sequence_length, basis),
        formula_version=FORMULA_VERSION,
        peak_tflops=peak.tflops,
        peak_source=peak.source,
    )


def utilisation(
    hparams: Hparams,
    parameters: ParameterCount,
    peak: Peak,
    tokens: int,
    seconds: float,
    world_size: int,
) -> tuple[float, float]:
    """MFU of one run in both bases: (active parameters, matmul FLOPs)."""
    active, matmul = (
        mfu(
            flops_per_token(parameters, hparams.sequence_length, basis),
            tokens,
            seconds,
            world_size,
            peak.tflops,
        )
        for basis in ("active_params", "matmul_flops")
    )
    return active, matmul
