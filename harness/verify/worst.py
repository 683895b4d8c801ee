"""At what each metric of a run was worst, in words: there whether or not a check rejects."""

from collections.abc import Callable

from harness.verify.checks import RunEvidence
from harness.verify.figures import TensorComparison
from harness.verify.metrics import badness, judged_tensors, length_error, slice_error


def worst_of(evidence: RunEvidence) -> dict[str, str]:
    """By the metrics' names; of a metric that is one number for all weights there is nothing to say."""
    found = {
        "tensor_update_error": _tensor(evidence, lambda tensor: tensor.update_error),
        "slice_update_error": _tensor(evidence, slice_error),
        "tensor_norm_ratio": _tensor(evidence, length_error),
        "token_group_shift": _group(evidence),
        "matched_filter": _direction(evidence),
    }
    return {name: words for name, words in found.items() if words}


def _tensor(evidence: RunEvidence, figure: Callable[[TensorComparison], float]) -> str:
    tensors = judged_tensors(evidence.comparisons)
    worst = max(tensors, key=lambda tensor: badness(figure(tensor)), default=None)
    return worst.name if worst is not None and badness(figure(worst)) > 0 else ""


def _group(evidence: RunEvidence) -> str:
    groups = [shift.groups[0] for shift in evidence.shifts if shift.groups]
    worst = max(groups, key=lambda group: abs(group.z), default=None)
    return "" if worst is None else f"{worst.name}, trained {'less' if worst.z > 0 else 'more'}"


def _direction(evidence: RunEvidence) -> str:
    firsts = [along[0] for along in evidence.alongs]
    worst = max(firsts, key=lambda along: along.z, default=None)
    return "" if worst is None else f"as if {worst.left_out}"
