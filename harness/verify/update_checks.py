"""What the weights say: findings about the final state, from comparison and attribution.

A finding names the check, the measured value against the allowed one, and the worst tensors
(`words.py` has the sentences).
"""

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from harness.benchmark.rules import Tolerances
from harness.errors import Code
from harness.protocol.text import counted
from harness.tensors.boxes import TensorKind
from harness.verify.attribution import Attribution, explain_weights
from harness.verify.figures import StateComparison, TensorComparison
from harness.verify.findings import Finding, TensorFinding, note, rejects
from harness.verify.metrics import (
    RunMetrics,
    badness,
    exceeds,
    length_error,
    slice_error,
    step_distance,
)
from harness.verify.rates import seldom_more
from harness.verify.words import (
    NOT_MOVED,
    WORST_SHOWN,
    against,
    indices,
    movement,
    names,
)

# The name in results of slices that were never touched; it becomes "untouched" with the next version of
# the results' schema.
UNTOUCHED = "still"
# That more rows are turned by chance than are allowed, in a run.
SELDOM = 2e-4
# Where there is a finding of it there is no other of the update: all figures would only repeat it.
FINITE = "finite"
SLICE_NAMES = {TensorKind.EXPERTS: "expert", TensorKind.EMBEDDING: "row"}


def judge_update(
    metrics: RunMetrics,
    comparisons: Sequence[StateComparison],
    attributions: Sequence[Attribution],
    tolerances: Tolerances,
    turned_rows: float = 0.0,
) -> list[Finding]:
    """Every check of the final state, and notes about what could not be checked.

    Args:
        metrics: of the same comparisons and attributions (`metrics.metric_values`).
        comparisons: one for each version of the state.
        attributions: one for each version.
        turned_rows: part of the embedding rows that are turned away in honest runs.
    """
    versions = [tensor for comparison in comparisons for tensor in comparison.tensors]
    broken = _judge_finite(_worst(versions, lambda tensor: tensor.nonfinite))
    if broken:
        return broken  # all other figures are infinite and would only repeat it
    found = _judge_exact(_worst(versions, lambda tensor: tensor.different))
    found += _judge_global(metrics, tolerances)
    found += _judge_tensors(metrics, versions, tolerances)
    found += _judge_slices(metrics, versions, tolerances)
    found += _judge_untouched(versions, turned_rows)
    found += _judge_steps(metrics, attributions, tolerances)
    found += _note_unmoved(_worst(versions, lambda tensor: tensor.update_error))
    if found and len(comparisons) > 1:
        message = (
            f"replicas hold {len(comparisons)} different versions of the state; "
            "the worst was judged"
        )
        found.append(note("versions", message))
    return found


def _worst(
    versions: Iterable[TensorComparison], value: Callable[[TensorComparison], float]
) -> list[TensorComparison]:
    """Of every tensor the version with the largest value: which that is differs between checks."""
    worst: dict[str, TensorComparison] = {}
    for tensor in versions:
        known = worst.get(tensor.name)
        if known is None or badness(value(tensor)) > badness(value(known)):
            worst[tensor.name] = tensor
    return list(worst.values())


def _judge_finite(tensors: Iterable[TensorComparison]) -> list[Finding]:
    bad = sorted((t for t in tensors if t.nonfinite), key=lambda t: -t.nonfinite)
    if not bad:
        return []
    worst = tuple(
        TensorFinding(
            tensor=t.name,
            measured=t.nonfinite,
            message=f"{counted(t.nonfinite, 'non-finite element')} of {t.numel}",
        )
        for t in bad[:WORST_SHOWN]
    )
    total = sum(t.nonfinite for t in bad)
    message = (
        f"the final state contains {counted(total, 'non-finite element')} (NaN or infinity) in "
        f"{names(t.name for t in bad)}"
    )
    return [rejects(Code.STATE_INVALID, FINITE, message, total, 0.0, worst)]


def _judge_exact(tensors: Iterable[TensorComparison]) -> list[Finding]:
    """Tensors that are not floating are equal or wrong."""
    bad = [t for t in tensors if t.different]
    if not bad:
        return []
    worst = tuple(
        TensorFinding(
            tensor=t.name,
            measured=t.different,
            message=f"{t.different} of {t.numel} elements differ",
        )
        for t in bad[:WORST_SHOWN]
    )
    message = f"{names(t.name for t in bad)} must equal the reference exactly, and does not"
    total = sum(t.different for t in bad)
    return [rejects(Code.UPDATE_MISMATCH, "exact", message, total, 0.0, worst)]


def _judge_global(metrics: RunMetrics, tolerances: Tolerances) -> list[Finding]:
    found = []
    if exceeds(metrics.update_error, tolerances.update_error):
        message = (
            "the final weights are not where the benchmark's training leads: "
            f"update error {against(metrics.update_error, tolerances.update_error)}"
        )
        found.append(_off("update_error", message, metrics, tolerances))
    if exceeds(metrics.norm_ratio, tolerances.norm_ratio):
        message = (
            "the weights moved too far or not far enough: the length of the update differs from "
            f"the reference's by {against(metrics.norm_ratio, tolerances.norm_ratio)}"
        )
        found.append(_off("norm_ratio", message, metrics, tolerances))
    return found


def _judge_tensors(
    metrics: RunMetrics, versions: Sequence[TensorComparison], tolerances: Tolerances
) -> list[Finding]:
    checks: tuple[tuple[str, str, Callable[[TensorComparison], float]], ...] = (
        ("tensor_update_error", "update error", lambda t: t.update_error),
        ("tensor_norm_ratio", "update length off by", length_error),
    )
    found = []
    for check, what, value in checks:
        allowed = getattr(tolerances, check)
        floating = [t for t in _worst(versions, value) if not t.exact]
        bad = [t for t in floating if exceeds(value(t), allowed)]
        if not bad:
            continue
        bad.sort(key=lambda t: -value(t))
        worst = tuple(
            TensorFinding(
                tensor=t.name,
                measured=value(t),
                message=f"{what} {against(value(t), allowed)}; {movement(t)}",
            )
            for t in bad[:WORST_SHOWN]
        )
        message = (
            f"{len(bad)} of {counted(len(floating), 'tensor')} {'is' if len(bad) == 1 else 'are'} off; "
            f"worst: {worst[0].tensor}: {worst[0].message}"
        )
        found.append(_off(check, message, metrics, tolerances, worst))
    return found


def _judge_slices(
    metrics: RunMetrics, versions: Sequence[TensorComparison], tolerances: Tolerances
) -> list[Finding]:
    allowed = tolerances.slice_update_error
    bad = [t for t in _worst(versions, slice_error) if exceeds(slice_error(t), allowed)]
    if not bad:
        return []
    bad.sort(key=lambda t: -slice_error(t))
    worst = tuple(_slice_finding(t, allowed) for t in bad[:WORST_SHOWN])
    total = sum(int(np.count_nonzero(~(t.slice_errors <= allowed))) for t in bad)
    message = (
        f"{counted(total, 'expert or embedding row', 'experts or embedding rows')} off in "
        f"{counted(len(bad), 'tensor')}; worst: {worst[0].tensor}: {worst[0].message}"
    )
    return [_off("slice_update_error", message, metrics, tolerances, worst)]


def _not_trained(tensor: TensorComparison, turned_rows: float) -> tuple[int, ...]:
    """Its slices that the submission did not train; those that may be turned by chance are none."""
    share = turned_rows if tensor.kind is TensorKind.EMBEDDING else 0.0
    if len(tensor.turned_slices) <= seldom_more(share * tensor.trained_slices, SELDOM):
        return tensor.untouched_slices
    return tuple(sorted((*tensor.untouched_slices, *tensor.turned_slices)))


def _judge_untouched(versions: Sequence[TensorComparison], turned_rows: float) -> list[Finding]:
    """Slices that the submission did not train, however little the reference moved them."""
    tensors = _worst(versions, lambda t: len(_not_trained(t, turned_rows)))
    bad = [(t, slices) for t in tensors if (slices := _not_trained(t, turned_rows))]
    if not bad:
        return []
    worst = tuple(
        TensorFinding(
            tensor=t.name,
            slice_index=slices[0],
            measured=len(slices),
            message=f"{SLICE_NAMES[t.kind]}s without their update: {indices(slices)}",
        )
        for t, slices in bad[:WORST_SHOWN]
    )
    total = sum(len(slices) for _, slices in bad)
    message = (
        f"{counted(total, 'expert or embedding row', 'experts or embedding rows')} did not move as the "
        f"reference's did, or not at all; {worst[0].tensor}: {worst[0].message}"
    )
    return [rejects(Code.UPDATE_MISMATCH, UNTOUCHED, message, total, 0.0, worst)]


def _slice_finding(tensor: TensorComparison, allowed: float) -> TensorFinding:
    part = tensor.worst_slice
    assert part is not None  # a tensor with slice errors has a worst slice
    off = np.flatnonzero(~(tensor.slice_errors <= allowed))
    name = SLICE_NAMES[tensor.kind]
    movement = (
        "it did not move" if part.norm_ratio < NOT_MOVED else f"norm ratio {part.norm_ratio:.2f}"
    )
    where = f"{name} {part.index}"
    if part.rows > 1:
        where = f"{part.rows} rows of about equally frequent tokens, most of all row {part.index}"
    message = f"{where}: update error {against(part.update_error, allowed)}; {movement}"
    if len(off) > part.rows:
        message += f" ({len(off)} of {len(tensor.slice_errors)} {name}s are off: {indices(off)})"
    return TensorFinding(
        tensor=tensor.name, slice_index=part.index, measured=part.update_error, message=message
    )


def _judge_steps(
    metrics: RunMetrics, attributions: Sequence[Attribution], tolerances: Tolerances
) -> list[Finding]:
    unclear = [attribution for attribution in attributions if not attribution.conclusive]
    if unclear:
        message = f"step attribution says nothing here: {unclear[0].reason}"
        return [note("step_weight", message)]
    if metrics.step_weight <= tolerances.step_weight:
        return []
    weights = max(attributions, key=step_distance).weights
    message = (
        f"the weight of a step differs from 1 by "
        f"{against(metrics.step_weight, tolerances.step_weight)}: "
        f"{explain_weights(weights, tolerances.step_weight)}"
    )
    return [_off("step_weight", message, metrics, tolerances)]


def _note_unmoved(tensors: Iterable[TensorComparison]) -> list[Finding]:
    """Tensors that the reference left alone: equal in the submission, or an error found above."""
    unmoved = [t for t in tensors if not t.exact and not t.moved and t.numel]
    if not unmoved:
        return []
    equal = sum(t.update_error == 0 for t in unmoved)
    message = (
        f"the reference's training did not move {names(t.name for t in unmoved)}; "
        f"the submission left {equal} of these {len(unmoved)} as they were"
    )
    return [note("unmoved", message)]


def _off(
    check: str,
    message: str,
    metrics: RunMetrics,
    tolerances: Tolerances,
    worst: tuple[TensorFinding, ...] = (),
) -> Finding:
    measured, allowed = getattr(metrics, check), getattr(tolerances, check)
    return rejects(Code.UPDATE_MISMATCH, check, message, measured, allowed, worst)
