"""What all runs of an evaluation say together, which none of them says alone.

In float32 honest runs agree to a millionth, but for those in which a near tie of the router falls the
other way, and tolerances have to leave room for these. They are rare: some runs in a hundred. So of the
runs of an evaluation at least one has to agree as closely as honest runs without a flip do; that none does
is as rare as a flip in each of them, and is what approximations within the tolerances look like.
"""

import math
from collections.abc import Sequence
from typing import Final

from harness.errors import Code
from harness.verify.findings import Finding, rejects
from harness.verify.metrics import exceeds
from harness.verify.words import against

STRICT: Final = "strict_update_error"
#: One run may have a flip and be honest.
FEWEST_RUNS: Final = 2


def judge_together(update_errors: Sequence[float], allowed: float | None) -> Finding | None:
    """A finding where no run is within the strict bound.

    Args:
        update_errors: of all floating weights, one for each run. One that is not finite is its run's own
            finding, and says nothing here.
        allowed: `verify.calibration.strict_update_error`; None: not judged.
    """
    if allowed is None or len(update_errors) < FEWEST_RUNS:
        return None
    finite = [error for error in update_errors if math.isfinite(error)]
    if not finite or not exceeds(best := min(finite), allowed):
        return None
    return rejects(
        Code.UPDATE_MISMATCH,
        STRICT,
        f"none of the {len(update_errors)} runs agrees with the reference as closely as float32 does: the "
        f"best has an update error of {against(best, allowed)}. Is part of it computed in a lower "
        "precision, or left out?",
        best,
        allowed,
    )
