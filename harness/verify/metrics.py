"""The numbers of a run that have a tolerance: one field for each field of hparams' Tolerances."""

import math
from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from harness.benchmark.rules import Tolerances
from harness.verify.attribution import Attribution
from harness.verify.figures import StateComparison, TensorComparison
from harness.verify.filters import Along
from harness.verify.token_losses import TokenShift

#: In standard errors, one-sided: as normal as they are. Of what is positive the logarithm is.
NORMAL: Final = ("matched_filter",)


def exceeds(value: float, allowed: float) -> bool:
    """Whether a figure is over its tolerance. NaN always is: what cannot be compared does not pass."""
    return not value <= allowed


class RunMetrics(BaseModel):
    """Worst measured values of one run. Infinite where the submission is not finite.

    In JSON, infinity and NaN are the strings "Infinity" and "NaN", which load back as themselves.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="constants")

    loss: float = Field(description="|loss − reference|, nats per token, worst rank")
    update_error: float = Field(
        description="‖ws−wr‖ / ‖wr−a·w0‖, all parameters; a is what weight decay alone leaves"
    )
    tensor_update_error: float = Field(description="the same, worst tensor")
    slice_update_error: float = Field(
        description="the same, worst expert or input-embedding row; 0 in a model without them"
    )
    norm_ratio: float = Field(description="|‖ws−a·w0‖ / ‖wr−a·w0‖ − 1|, all parameters")
    tensor_norm_ratio: float = Field(description="the same, worst tensor")
    step_weight: float = Field(
        description="largest |weight of a step − 1|; NaN if the reference's steps are too much alike"
    )
    token_loss_shift: float | None = Field(
        default=None,
        description="median of |loss − reference's| over tokens, nats; null: not measured",
    )
    token_group_shift: float | None = Field(
        default=None,
        description="largest |z| of a group of tokens against the rest; null: not measured",
    )
    matched_filter: float | None = Field(
        default=None,
        description="largest z in the direction of a known approximation; null: not measured",
    )


def metric_values(
    comparisons: Sequence[StateComparison],
    attributions: Sequence[Attribution],
    loss_difference: float,
    shifts: Sequence[TokenShift] = (),
    alongs: Sequence[Sequence[Along]] = (),
) -> RunMetrics:
    """Metrics of one run, the worst over all versions of its state.

    Args:
        comparisons: one for each version (replicas may hold different weights), at least one.
        attributions: one for each version.
        loss_difference: from `checks.judge_losses`, nats per token.
        shifts: one for each version; none where token losses were not compared.
        alongs: one for each version, the largest z first; none where there were no directions.
    """
    tensors = judged_tensors(comparisons)
    return RunMetrics(
        loss=_worst([loss_difference]),
        update_error=_worst(comparison.update_error for comparison in comparisons),
        tensor_update_error=_worst(tensor.update_error for tensor in tensors),
        slice_update_error=_worst(slice_error(tensor) for tensor in tensors),
        norm_ratio=_worst(length_error(comparison) for comparison in comparisons),
        tensor_norm_ratio=_worst(length_error(tensor) for tensor in tensors),
        step_weight=_step_weight(attributions),
        token_loss_shift=_worst(shift.median for shift in shifts) if shifts else None,
        token_group_shift=_worst(shift.worst for shift in shifts) if shifts else None,
        matched_filter=_worst([0.0, *(along[0].z for along in alongs)]) if alongs else None,
    )


def judged_tensors(comparisons: Sequence[StateComparison]) -> list[TensorComparison]:
    """Of all versions. A tensor that has to be equal is judged by its elements that are not."""
    return [
        tensor for comparison in comparisons for tensor in comparison.tensors if not tensor.exact
    ]


def mean_over_runs(name: str, values: Sequence[float]) -> float:
    """Of what is normal: a z, or else the logarithm of a metric, whose mean is the geometric one."""
    if name in NORMAL:
        return fmean(values)
    return math.exp(fmean(map(math.log, values))) if min(values) > 0 else 0.0


def judged_metrics(tolerances: Tolerances) -> dict[str, float]:
    """What is allowed of each metric that has a tolerance."""
    return {name: allowed for name, allowed in tolerances if allowed is not None}


# --- figures of one tensor or version: the metrics take the worst, the checks say whose it is ------


def length_error(part: StateComparison | TensorComparison) -> float:
    """|norm ratio − 1|: an update that is too short is as wrong as one that is too long."""
    return abs(part.norm_ratio - 1)


def slice_error(tensor: TensorComparison) -> float:
    """Update error of the worst slice; 0 for a tensor without slices."""
    return tensor.worst_slice.update_error if tensor.worst_slice is not None else 0.0


def step_distance(attribution: Attribution) -> float:
    """Largest |weight − 1|: infinite where the submission left no weights to determine."""
    return _worst(abs(weight - 1) for weight in attribution.weights)


def _step_weight(attributions: Sequence[Attribution]) -> float:
    # Whether the steps can be told apart is a property of the reference, the same for all versions.
    if not all(attribution.conclusive for attribution in attributions):
        return math.nan
    return _worst(step_distance(attribution) for attribution in attributions)


def badness(value: float) -> float:
    """For ordering: a NaN is as bad as can be, since no comparison may be passed by it."""
    return math.inf if math.isnan(value) else value


def _worst(values: Iterable[float]) -> float:
    return max((badness(value) for value in values), default=0.0)
