"""From accepted runs to the numbers that are ranked."""

from collections.abc import Sequence
from statistics import median

from harness.benchmark.hparams import Hparams
from harness.result import RunResult, Score
from harness.score.flops import FORMULA_VERSION, ParameterCount, flops_per_token, mfu
from harness.score.peaks import Peak


def score(
    runs: Sequence[RunResult],
    hparams: Hparams,
    parameters: ParameterCount,
    peak: Peak,
    world_size: int,
) -> tuple[Score, list[RunResult]]:
    """The score of an accepted evaluation, and its runs with their MFU filled in.

    Every figure is the median over the runs; the headline is of the basis that hparams names.
    """
    active_flops, matmul_flops = (
        flops_per_token(parameters, hparams.sequence_length, basis)
        for basis in ("active_params", "matmul_flops")
    )
    scored = [
        run.model_copy(
            update={
                "mfu_active_params": mfu(
                    active_flops, run.tokens, run.seconds, world_size, peak.tflops
                ),
                "mfu_matmul_flops": mfu(
                    matmul_flops, run.tokens, run.seconds, world_size, peak.tflops
                ),
            }
        )
        for run in runs
    ]
    active = median(run.mfu_active_params or 0.0 for run in scored)
    matmul = median(run.mfu_matmul_flops or 0.0 for run in scored)
    headline_is_active = hparams.mfu.basis == "active_params"
    return Score(
        mfu=active if headline_is_active else matmul,
        basis=hparams.mfu.basis,
        mfu_active_params=active,
        mfu_matmul_flops=matmul,
        tokens_per_second=median(run.tokens_per_second for run in runs),
        total_params=parameters.total,
        active_params=parameters.active,
        flops_per_token=active_flops if headline_is_active else matmul_flops,
        formula_version=FORMULA_VERSION,
        peak_tflops=peak.tflops,
        peak_source=peak.source,
    ), scored
