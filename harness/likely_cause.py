"""Why an update is not the benchmark's: the likely mistakes are trained, and the one that fits is named.

A help for whoever mends the file. It changes no verdict, and costs nothing where a run is accepted.
"""

import math
import shutil
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from safetensors import SafetensorError

from harness.benchmark.mistakes import Mistake, likely_mistakes
from harness.comparison import Truth, compare
from harness.errors import Code, JudgeError
from harness.protocol.text import one_line
from harness.reference.launch import run_reference
from harness.reference.task import default_variant
from harness.tensors.boxes import State
from harness.timed.run import TimedSetup
from harness.timed.workspace import Workspace
from harness.verify.findings import Finding, Severity, note
from harness.verify.metrics import badness

CHECK: Final = "likely_cause"
TRIED: Final = "tried"
#: A mistake that fits is that much nearer to the submission than the benchmark's own training is.
NEARER: Final = 0.5


def rejects_update(findings: Sequence[Finding]) -> bool:
    """Whether a check of the weights rejects, other than that they are not finite."""
    return any(
        finding.severity is Severity.REJECTS and finding.code is Code.UPDATE_MISMATCH
        for finding in findings
    )


def affordable(mistakes: Sequence[Mistake], training_seconds: float, seconds: float) -> int:
    """How many of them can be tried in `seconds`, if the training of one takes `training_seconds`."""
    return min(len(mistakes), int(seconds / max(training_seconds, 1e-3)))


def likely_cause(
    setup: TimedSetup,
    truth: Truth,
    states: Sequence[State],
    away: float,
    training_seconds: float,
    workspace: Workspace,
) -> Finding | None:
    """Train with the likely mistakes on the challenge of a rejected run.

    Args:
        truth: what that run was compared with.
        states: the versions of its final state.
        away: its update error.
        training_seconds: what the reference took for one run, so that no more is tried than
            `verify.explain_seconds` allows.

    Returns:
        A note about the mistake that fits, that none does, or that a training failed; None: there was no
        time or room to try one.
    """
    hparams = setup.hparams
    mistakes = likely_mistakes(hparams.optimizer)
    count = affordable(mistakes, training_seconds, hparams.verify.explain_seconds)
    room = shutil.disk_usage(workspace.root).free // (2 * setup.snapshot.state_bytes)
    mistakes = mistakes[: min(count, room)]
    if not mistakes:
        return None
    folder = workspace.root / CHECK
    try:
        try:
            trained = run_reference(
                hparams,
                setup.snapshot,
                [truth.challenge] * len(mistakes),
                truth.reference.coordinates,
                default_variant(hparams, setup.world_size),
                setup.sandbox,
                setup.device,
                folder,
                optimizers=[mistake.optimizer for mistake in mistakes],
            )
            errors = [
                update_error(replace(truth, reference=run, optimizer=mistake.optimizer), states)
                for mistake, run in zip(mistakes, trained, strict=True)
            ]
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        allowed = hparams.verify.tolerances.update_error
        return fitting(mistakes, errors, away, allowed) or none_fits(mistakes)
    except (JudgeError, OSError, SafetensorError) as error:
        # Such as a disk that others have filled: it explains nothing then, and the verdict stands.
        return note(TRIED, f"no likely mistake could be tried: {one_line(str(error))[:200]}")


def update_error(truth: Truth, states: Sequence[State]) -> float:
    """Of the worst version; infinite where the truth itself is not finite."""
    try:
        comparisons = compare(truth, states).comparisons
    except JudgeError:
        return math.inf
    return max(comparison.update_error for comparison in comparisons)


def fitting(
    mistakes: Sequence[Mistake], errors: Sequence[float], away: float, allowed: float
) -> Finding | None:
    """A note about the nearest mistake, if it explains the update.

    Args:
        errors: the update error against the training with each mistake.
        away: the update error against the benchmark's training.
        allowed: what an honest run of the training with the mistake may be off by.
    """
    pairs = zip(errors, mistakes, strict=True)
    error, mistake = min(pairs, key=lambda pair: badness(pair[0]))
    if not (error <= allowed and error < NEARER * away):
        return None
    return note(
        CHECK,
        f"the update is that of a training {mistake.words}: it is {error:.2g} off from that one, and "
        f"{away:.2g} from the benchmark's",
    )


def none_fits(mistakes: Sequence[Mistake]) -> Finding:
    """What was tried in vain: so much is ruled out."""
    tried = "; ".join(mistake.words for mistake in mistakes)
    return note(TRIED, f"the update is that of no likely mistake; tried were trainings {tried}")
