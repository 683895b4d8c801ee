"""From what the checks found in every run to one verdict."""

from collections.abc import Sequence

from harness.errors import Code, Verdict
from harness.likely_cause import CHECK
from harness.result import RunResult
from harness.verify.findings import Severity

MOST_EXPLANATORY_FIRST = (
    Code.STATE_INVALID,
    Code.UPDATE_MISMATCH,
    Code.LOSS_MISMATCH,
)


def conclude(runs: Sequence[RunResult]) -> tuple[Verdict, Code, str]:
    """The verdict, and the finding that says most: wrong weights explain a wrong loss, not the reverse."""
    rejecting = [
        (run, finding)
        for run in runs
        for finding in run.findings
        if finding.severity is Severity.REJECTS
    ]
    if not rejecting:
        agrees = "the loss and the update agree with the trusted reference"
        return Verdict.ACCEPTED, Code.OK, agrees
    run, finding = min(rejecting, key=lambda pair: MOST_EXPLANATORY_FIRST.index(pair[1].code))
    where = f"run {run.run + 1}: " if len(runs) > 1 else ""
    causes = [each.message for run in runs for each in run.findings if each.check == CHECK]
    return Verdict.REJECTED, finding.code, where + "; ".join([finding.message, *causes])
