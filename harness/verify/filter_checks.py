"""What the matched filters say: a finding that names the work that seems to be left out."""

from collections.abc import Sequence
from typing import Final

from harness.benchmark.rules import Tolerances
from harness.errors import Code
from harness.verify.filters import Along
from harness.verify.findings import Finding, note, rejects
from harness.verify.metrics import RunMetrics, exceeds

FILTER: Final = "matched_filter"
#: Approximations resemble one another: beside the first, those that are named as well.
NAMED: Final = 2


def judge_filters(
    metrics: RunMetrics, alongs: Sequence[Sequence[Along]], tolerances: Tolerances
) -> list[Finding]:
    """The check of all directions.

    Args:
        metrics: of the same directions.
        alongs: one for each version of the state; none where there were no directions.
    """
    worst, allowed = metrics.matched_filter, tolerances.matched_filter
    if allowed is None:
        return []
    if worst is None:
        return [note(FILTER, "nothing was looked at along directions of approximations")]
    if not exceeds(worst, allowed):
        return []
    most = max(alongs, key=lambda along: along[0].z)
    over = [along for along in most if exceeds(along.z, allowed)][: 1 + NAMED]
    said = "; or ".join(f"{along.left_out}, z = {along.z:.1f}" for along in over)
    message = (
        f"the update differs from the reference's as it would if {said} (allowed {allowed:.3g})"
    )
    return [rejects(Code.UPDATE_MISMATCH, FILTER, message, worst, allowed)]
