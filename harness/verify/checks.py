"""All checks of one run: what the ranks say, and what the weights say (`update_checks`)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from harness.benchmark.rules import Tolerances
from harness.errors import Code
from harness.protocol.messages import Done
from harness.protocol.text import counted
from harness.submission.strategy import Strategy
from harness.verify.attribution import Attribution
from harness.verify.figures import StateComparison
from harness.verify.filter_checks import judge_filters
from harness.verify.filters import Along
from harness.verify.findings import Finding, Severity, TensorFinding, note, rejects
from harness.verify.metrics import RunMetrics, exceeds, judged_metrics, metric_values
from harness.verify.token_checks import judge_token_losses
from harness.verify.token_losses import TokenShift
from harness.verify.update_checks import FINITE, judge_update

__all__ = [
    "Finding",
    "RunEvidence",
    "Severity",
    "TensorFinding",
    "judge_losses",
    "judge_run",
    "judge_update",
    "measure_run",
    "note_tokens",
]


@dataclass(frozen=True)
class RunEvidence:
    """All that the judge knows of one run when it comes to judge it.

    Attributes:
        claims: every rank's DONE, in rank order.
        strategy: of the submission, every axis filled in.
        row_losses: floating [global_batch], the reference's mean loss of each row in the last step,
            nats per token.
        sequence_length: tokens in a row.
        steps: optimizer steps of this run.
        comparisons: of the state, one for each version that replicas hold, at least one.
        attributions: one for each version.
        shifts: of the tokens' losses, one for each version; none where they were not compared.
        alongs: directions of approximations, one for each version; none where there were none.
    """

    claims: Sequence[Done]
    strategy: Strategy
    row_losses: npt.NDArray[np.floating]
    sequence_length: int
    steps: int
    comparisons: Sequence[StateComparison]
    attributions: Sequence[Attribution]
    shifts: Sequence[TokenShift] = ()
    alongs: Sequence[Sequence[Along]] = ()


def measure_run(evidence: RunEvidence) -> RunMetrics:
    """Every metric of one run, whatever the tolerances; for the result and for calibration."""
    difference, _ = judge_losses(evidence.claims, evidence.row_losses, evidence.strategy, math.inf)
    return _metrics(evidence, difference)


def _metrics(evidence: RunEvidence, difference: float) -> RunMetrics:
    return metric_values(
        evidence.comparisons,
        evidence.attributions,
        difference,
        evidence.shifts,
        evidence.alongs,
    )


def judge_run(
    evidence: RunEvidence, tolerances: Tolerances, turned_rows: float = 0.0
) -> list[Finding]:
    """All findings of one run, in the order of the checks. No REJECTS among them means accepted.

    Args:
        turned_rows: as for `judge_update`.
    """
    difference, losses = judge_losses(
        evidence.claims, evidence.row_losses, evidence.strategy, tolerances.loss
    )
    tokens = note_tokens(
        evidence.claims,
        evidence.strategy,
        len(evidence.row_losses),
        evidence.sequence_length,
        evidence.steps,
    )
    metrics = _metrics(evidence, difference)
    updates = judge_update(
        metrics, evidence.comparisons, evidence.attributions, tolerances, turned_rows
    )
    found = [*losses, *tokens, *updates]
    if all(finding.check != FINITE for finding in found):
        found += judge_token_losses(metrics, evidence.shifts, tolerances)
        found += judge_filters(metrics, evidence.alongs, tolerances)
    return found + _unexplained(metrics, tolerances, found)


def _unexplained(
    metrics: RunMetrics, tolerances: Tolerances, found: Sequence[Finding]
) -> list[Finding]:
    """The metrics decide, the other findings explain: no excess is without a finding.

    A step weight of NaN is left out: then the reference's steps cannot be told apart, and there is a
    note. A state that is not finite has one finding that stands for all.
    """
    said = {finding.check for finding in found}
    if FINITE in said:
        return []
    allowed = judged_metrics(tolerances)
    return [
        rejects(Code.UPDATE_MISMATCH, name, f"{name} is over its tolerance", value, allowed[name])
        for name, value in metrics
        if name in allowed
        and name not in said
        and not (name == "step_weight" and math.isnan(value))
        and value is not None
        and exceeds(value, allowed[name])
    ]


# --- what the ranks say -------------------------------------------------------------------------


def judge_losses(
    claims: Sequence[Done],
    row_losses: npt.NDArray[np.floating],
    strategy: Strategy,
    allowed: float,
) -> tuple[float, list[Finding]]:
    """Compare the reported losses of the last step with the reference's.

    A rank may report the mean over its own rows or over all rows. Rank 0 has to report one; with a
    pipeline, where all stages but the last have none, any rank. There a 0.0 means none too.

    Args:
        claims: every rank's DONE, in rank order.
        row_losses: floating [global_batch], the reference's, nats per token.
        strategy: says which rows a rank has.
        allowed: largest accepted difference, nats per token.

    Returns:
        The largest difference over the ranks that reported (inf if nothing usable was), findings.
    """
    rows = np.asarray(row_losses, np.float64).reshape(strategy.dp_size, -1).mean(axis=1)
    overall = float(rows.mean())
    worst, found = 0.0, []
    none = (None, 0.0) if strategy.pp_size > 1 else (None,)
    reported = [rank for rank, claim in enumerate(claims) if claim.loss not in none]
    if not reported or (0 not in reported and strategy.pp_size == 1):
        message = "rank 0 reports no final_loss" if reported else "no rank reports a final_loss"
        message += ": return the loss of the last step"
        worst, found = math.inf, [rejects(Code.LOSS_MISMATCH, "loss", message, None, allowed)]
    for rank in reported:
        loss = claims[rank].loss or 0.0
        own = float(rows[strategy.dp_rank(rank)])
        difference = min(abs(loss - own), abs(loss - overall))
        difference = difference if math.isfinite(loss) else math.inf
        worst = max(worst, difference)
        if exceeds(difference, allowed):
            message = (
                f"rank {rank} reports a loss of {loss:.6g}; in the last step the reference has "
                f"{own:.6g} over this rank's rows and {overall:.6g} over all (nats per token)"
            )
            found.append(rejects(Code.LOSS_MISMATCH, "loss", message, difference, allowed))
    return worst, found


def note_tokens(
    claims: Sequence[Done], strategy: Strategy, global_batch: int, sequence_length: int, steps: int
) -> list[Finding]:
    """Say which rank's token count is neither its own nor the world's. Nothing is computed from it.

    Every token of every row counts, the first one included: rows x sequence_length x steps.
    """
    world = global_batch * sequence_length * steps
    own = world // strategy.dp_size
    wrong = [
        rank
        for rank, claim in enumerate(claims)
        if claim.total_tokens is not None and claim.total_tokens not in (own, world)
    ]
    if not wrong:
        return []
    accepted = f"{own} (this rank's rows)" + (f" or {world} (all rows)" if own != world else "")
    others = f" (and {counted(len(wrong) - 1, 'other rank')})" if wrong[1:] else ""
    message = (
        f"rank {wrong[0]}{others} reports {claims[wrong[0]].total_tokens} tokens; there were {accepted}: "
        f"rows x sequence length {sequence_length} x {steps} steps. It is not used"
    )
    return [note("tokens", message)]
