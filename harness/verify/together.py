"""What all runs of an evaluation say together, which none of them says alone.

In float32 honest runs agree to a millionth, but for those in which a near tie of the router falls the
other way, and tolerances have to leave room for these. They are rare: some runs in a hundred. So of the
runs of an evaluation at least one has to agree as closely as honest runs without a flip do; that none does
is as rare as a flip in each of them, and is what approximations within the tolerances look like.

Below float32 every run has noise, which averages out over the runs; what a submission does in each of them
does not. So means of metrics over the runs have bounds of their own, nearer than those of one run.
"""

import math
from collections.abc import Sequence
from typing import Final, Protocol

from harness.benchmark.rules import Together
from harness.errors import Code
from harness.verify.findings import Finding, rejects
from harness.verify.metrics import exceeds, mean_over_runs
from harness.verify.words import against

STRICT: Final = "strict_update_error"
MEANS: Final = "means"
#: One run may have a flip and be honest.
FEWEST_RUNS: Final = 2


class Run(Protocol):
    """What is looked at of a run, as `result.RunResult` has it."""

    def measured(self, name: str) -> float | None:
        """The metric of that name; None where it was not judged."""
        ...

    def where(self, name: str) -> str:
        """What the metric was worst at, in words; empty where there is nothing to say."""
        ...


def judge_together(runs: Sequence[Run], asked: Together) -> list[tuple[int, Finding]]:
    """Findings, each beside the number of the run that shows it best."""
    found = [judge_strictly(runs, asked.strict_update_error), judge_means(runs, asked)]
    return [*filter(None, found)]


def judge_strictly(runs: Sequence[Run], allowed: float | None) -> tuple[int, Finding] | None:
    """A finding where no run is within the strict bound, and which is the nearest to it.

    An update error that is not finite is its run's own finding, and says nothing here.
    """
    if allowed is None or len(runs) < FEWEST_RUNS:
        return None
    errors = [_measured(run, "update_error") for run in runs]
    finite = [error for error in errors if math.isfinite(error)]
    if not finite or not exceeds(best := min(finite), allowed):
        return None
    return errors.index(best), rejects(
        Code.UPDATE_MISMATCH,
        STRICT,
        f"none of the {len(runs)} runs agrees with the reference as closely as float32 does: the "
        f"best has an update error of {against(best, allowed)}. Is part of it computed in a lower "
        "precision, or left out?",
        best,
        allowed,
    )


def judge_means(runs: Sequence[Run], asked: Together) -> tuple[int, Finding] | None:
    """A finding where metrics are over their bounds on average, and the run that is worst in the first.

    A metric that was not measured, or is not finite, in some run says nothing here.
    """
    if len(runs) < asked.fewest_runs:
        return None
    over = []
    for name, allowed in asked.means.items():
        values = [_measured(run, name) for run in runs]
        if all(map(math.isfinite, values)) and exceeds(
            mean := mean_over_runs(name, values), allowed
        ):
            over.append((mean / allowed, name, mean, allowed, values))
    if not over:
        return None
    _, first, mean, allowed, values = max(over)
    worst = values.index(max(values))
    return worst, rejects(
        Code.UPDATE_MISMATCH if any(name != "loss" for _, name, *_ in over) else Code.LOSS_MISMATCH,
        MEANS,
        f"over all {len(runs)} runs together the difference from the reference is more than noise: "
        f"{first} is {against(mean, allowed)} on average{_most(runs[worst].where(first))}"
        + _others([name for _, name, *_ in sorted(over, reverse=True)[1:]]),
        mean,
        allowed,
    )


def _measured(run: Run, name: str) -> float:
    measured = run.measured(name)
    return math.nan if measured is None else measured


def _most(where: str) -> str:
    return f" ({where})" if where else ""


def _others(names: Sequence[str]) -> str:
    if not names:
        return ""
    return f"; and so {'is' if len(names) == 1 else 'are'} {', '.join(names)}"
