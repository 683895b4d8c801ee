"""What the tokens' losses say: findings that name the tokens that were trained less."""

from collections.abc import Sequence

from harness.benchmark.rules import Tolerances
from harness.errors import Code
from harness.verify.findings import Finding, note, rejects
from harness.verify.metrics import RunMetrics, exceeds
from harness.verify.token_losses import Group, TokenShift
from harness.verify.words import against

SHIFT, GROUP = "token_loss_shift", "token_group_shift"
GROUPS_SHOWN = 3


def judge_token_losses(
    metrics: RunMetrics, shifts: Sequence[TokenShift], tolerances: Tolerances
) -> list[Finding]:
    """Both checks of the tokens' losses.

    Args:
        metrics: of the same shifts.
        shifts: one for each version of the state; none where they were not compared.
    """
    if not shifts:
        wanted = [name for name in (SHIFT, GROUP) if getattr(tolerances, name) is not None]
        return [note(name, "the tokens' losses were not compared") for name in wanted]
    found = []
    median, allowed = metrics.token_loss_shift, tolerances.token_loss_shift
    if allowed is not None and median is not None and exceeds(median, allowed):
        message = (
            "the final weights make other losses of the tokens that they were trained on: half of them "
            f"differ from the reference's by more than {against(median, allowed)}"
        )
        found.append(rejects(Code.UPDATE_MISMATCH, SHIFT, message, median, allowed))
    worst, allowed = metrics.token_group_shift, tolerances.token_group_shift
    if allowed is not None and worst is not None and exceeds(worst, allowed):
        message = _groups(max(shifts, key=lambda shift: shift.worst), allowed)
        found.append(rejects(Code.UPDATE_MISMATCH, GROUP, message, worst, allowed))
    return found


def _groups(shift: TokenShift, allowed: float) -> str:
    """The groups that differ most, in words."""
    off = [group for group in shift.groups if exceeds(abs(group.z), allowed)]
    if not off:
        return "losses of tokens are not finite"
    said = "; ".join(_group(group) for group in off[:GROUPS_SHOWN])
    more = f"; and {len(off) - GROUPS_SHOWN} more" if len(off) > GROUPS_SHOWN else ""
    return f"not all tokens were trained alike: {said}{more} (allowed {allowed:.3g})"


def _group(group: Group) -> str:
    how = "less" if group.z > 0 else "more"
    return f"{group.name} {how} than the others, z = {group.z:.1f}"
