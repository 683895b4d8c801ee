"""A metric says at what it was worst, so that whoever reads a result knows where to look."""

from collections.abc import Sequence

import numpy as np

from harness.submission.strategy import Strategy
from harness.tensors.boxes import TensorKind
from harness.verify.attribution import Attribution
from harness.verify.checks import RunEvidence
from harness.verify.figures import SliceComparison, StateComparison, TensorComparison
from harness.verify.filters import Along
from harness.verify.token_losses import Group, TokenShift
from harness.verify.worst import worst_of


def tensor(
    name: str, error: float, ratio: float, of_slice: float | None = None
) -> TensorComparison:
    return TensorComparison(
        name=name,
        kind=TensorKind.PLAIN if of_slice is None else TensorKind.EXPERTS,
        numel=8,
        moved=True,
        update_error=error,
        norm_ratio=ratio,
        worst_slice=None if of_slice is None else SliceComparison(0, 1, of_slice, 1.0),
    )


def evidence(
    states: Sequence[Sequence[TensorComparison]],
    shifts: Sequence[TokenShift] = (),
    alongs: Sequence[Sequence[Along]] = (),
) -> RunEvidence:
    return RunEvidence(
        claims=(),
        strategy=Strategy(),
        row_losses=np.zeros(1),
        sequence_length=2,
        steps=1,
        comparisons=[StateComparison(tuple(tensors), 0.5, 0.5) for tensors in states],
        attributions=[Attribution((1.0,), condition=1.0, conclusive=True)],
        shifts=shifts,
        alongs=alongs,
    )


def test_the_worst_of_all_versions_is_named() -> None:
    first = [tensor("a", 0.1, 1.0), tensor("b", 0.2, 1.1, of_slice=0.1)]
    second = [tensor("a", 0.3, 1.0), tensor("b", 0.1, 0.7, of_slice=0.4)]
    shifts = [
        TokenShift(0.1, (Group("row 1", 3.0),)),
        TokenShift(0.1, (Group("the last position", -4.0),)),
    ]
    alongs = [(Along("tokens do nothing", 2.0), Along("x", 1.0)), (Along("rows do nothing", 5.0),)]
    assert worst_of(evidence([first, second], shifts, alongs)) == {
        "tensor_update_error": "a",
        "slice_update_error": "b",
        "tensor_norm_ratio": "b",
        "token_group_shift": "the last position, trained more",
        "matched_filter": "as if rows do nothing",
    }


def test_what_is_not_finite_is_worst() -> None:
    tensors = [tensor("a", 0.5, 1.0), tensor("b", float("nan"), float("inf"))]
    found = worst_of(evidence([tensors]))
    assert (found["tensor_update_error"], found["tensor_norm_ratio"]) == ("b", "b")


def test_of_what_is_equal_or_was_not_looked_at_nothing_is_said() -> None:
    assert worst_of(evidence([[tensor("a", 0.0, 1.0)]])) == {}
    assert worst_of(evidence([[]], [TokenShift(float("inf"), ())])) == {}
