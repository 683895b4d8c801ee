"""How far a run is from exact training, in units of the reference's own rounding.

Where a benchmark computes in bfloat16, two honest runs differ by the rounding of both, some per cent of an
update, and kernels differ in how much of it they share. From the same training in float32 each is away by
its own rounding alone, and that is nearly the same for all of them. Products in a lower precision, and work
that is left out in whatever way, come on top.
"""

import math
from typing import Final

import numpy as np
import numpy.typing as npt

from harness.benchmark.rules import Tolerances
from harness.errors import Code
from harness.verify.findings import Finding, note, rejects
from harness.verify.metrics import RunMetrics, exceeds

INEXACT: Final = "inexactness"
Floats = npt.NDArray[np.floating]


def inexactness(submitted: Floats, reference: Floats, exact: Floats) -> float:
    """Σ|ws − we| / Σ|wr − we|: no squares, of which a few flipped ties would be most.

    Args:
        submitted, reference, exact: floating [S], final weights at the sampled coordinates.

    Returns:
        Infinite where the submission is not finite, or the reference is exact and it is not.
    """
    away = float(np.abs(submitted.astype(np.float64) - exact).sum())
    unit = float(np.abs(reference.astype(np.float64) - exact).sum())
    if not math.isfinite(away) or not unit > 0:
        return math.inf if away != 0 else 0.0
    return away / unit


def judge_inexactness(metrics: RunMetrics, tolerances: Tolerances) -> list[Finding]:
    """The check of it."""
    allowed, worst = tolerances.inexactness, metrics.inexactness
    if allowed is None:
        return []
    if worst is None:
        return [note(INEXACT, "nothing was compared with training in float32")]
    if not exceeds(worst, allowed):
        return []
    message = (
        f"the update is {worst:.3g} times as far from training in float32 as the reference's is "
        f"(allowed {allowed:.3g}). Is part of it computed in a lower precision, or left out?"
    )
    return [rejects(Code.UPDATE_MISMATCH, INEXACT, message, worst, allowed)]
