"""What is said of a final state: which findings, with which figures, which tensors, in which order.

The comparisons are made by hand, so every figure is known, also exactly at a tolerance.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from harness.benchmark.rules import Tolerances
from harness.errors import Code
from harness.tensors.boxes import TensorKind
from harness.verify.attribution import Attribution
from harness.verify.figures import SliceComparison, StateComparison, TensorComparison
from harness.verify.findings import Finding, Severity
from harness.verify.metrics import metric_values
from harness.verify.update_checks import UNTOUCHED, judge_update

# Halves and quarters, so that a figure can lie exactly at its tolerance.
TOLERANCES = Tolerances(
    loss=1.0,
    update_error=0.25,
    tensor_update_error=0.5,
    slice_update_error=0.75,
    norm_ratio=0.125,
    tensor_norm_ratio=0.375,
    step_weight=0.0625,
)
HONEST = Attribution((1.0, 1.0), condition=1.0)


def tensor(
    name: str = "w",
    update_error: float = 0.0,
    norm_ratio: float = 1.0,
    slices: Sequence[float] = (),
    kind: TensorKind = TensorKind.PLAIN,
    slice_ratio: float = 1.0,
    rows: int = 1,
    still: Sequence[int] = (),
    turned: Sequence[int] = (),
    trained: int = 0,
    nonfinite: int = 0,
) -> TensorComparison:
    """One floating tensor of 8 elements; `slices` are update errors, of experts unless said."""
    if slices and kind is TensorKind.PLAIN:
        kind = TensorKind.EXPERTS
    worst = max(range(len(slices)), key=lambda index: slices[index], default=-1)
    return TensorComparison(
        name=name,
        kind=kind,
        numel=8,
        moved=True,
        update_error=update_error,
        norm_ratio=norm_ratio,
        nonfinite=nonfinite,
        worst_slice=SliceComparison(worst, rows, slices[worst], slice_ratio) if slices else None,
        slice_errors=np.array(slices, float),
        untouched_slices=tuple(still),
        turned_slices=tuple(turned),
        trained_slices=trained,
    )


def exact(name: str, different: int) -> TensorComparison:
    error = math.inf if different else 0.0
    return TensorComparison(
        name, TensorKind.PLAIN, 8, False, error, 1.0 + error, exact=True, different=different
    )


def judge(
    *versions: StateComparison,
    weights: Sequence[float] = (1.0, 1.0),
    attributions: Sequence[Attribution] = (),
    tolerances: Tolerances = TOLERANCES,
    turned_rows: float = 0.0,
) -> list[Finding]:
    attributions = attributions or [replace(HONEST, weights=tuple(weights))] * len(versions)
    metrics = metric_values(versions, attributions, 0.0)
    return judge_update(metrics, versions, attributions, tolerances, turned_rows)


def state(
    *tensors: TensorComparison, update_error: float = 0.0, norm_ratio: float = 1.0
) -> StateComparison:
    return StateComparison(tensors or (tensor(),), update_error, norm_ratio)


def only(findings: list[Finding], check: str) -> Finding:
    """The one finding there is."""
    assert [(f.check, f.code, f.severity) for f in findings] == [
        (check, Code.UPDATE_MISMATCH, Severity.REJECTS)
    ]
    return findings[0]


# --- exactly at a tolerance -----------------------------------------------------------------------

STEP = 2**-40  # exact in every figure below


def off(check: str, more: float) -> list[Finding]:
    """Findings of a state that is at the tolerance of one check, and `more` beyond it."""
    value = getattr(TOLERANCES, check) + more
    made = {
        "update_error": state(update_error=value),
        "norm_ratio": state(norm_ratio=1 + value),
        "tensor_update_error": state(tensor(update_error=value)),
        "tensor_norm_ratio": state(tensor(norm_ratio=1 + value)),
        "slice_update_error": state(tensor(slices=[0.0, value])),
        "step_weight": state(),
    }
    return judge(made[check], weights=(1 + value, 1.0) if check == "step_weight" else (1.0, 1.0))


OF_THE_UPDATE = sorted(
    set(Tolerances.model_fields)
    - {"loss", "token_loss_shift", "token_group_shift", "matched_filter"}
)


@pytest.mark.parametrize("check", OF_THE_UPDATE)
def test_exactly_at_a_tolerance_is_accepted_and_the_least_beyond_it_is_not(check: str) -> None:
    assert off(check, 0.0) == []
    found = only(off(check, STEP), check)
    assert found.allowed == getattr(TOLERANCES, check)
    assert found.measured == getattr(TOLERANCES, check) + STEP


@pytest.mark.parametrize(
    ("ratio", "accepted"), [(0.875, True), (0.875 - STEP, False), (1.125, True)]
)
def test_a_length_has_a_lower_and_an_upper_bound(ratio: float, accepted: bool) -> None:
    findings = judge(state(norm_ratio=ratio))
    assert [f.check for f in findings] == ([] if accepted else ["norm_ratio"])


@pytest.mark.parametrize("check", ["update_error", "tensor_update_error", "slice_update_error"])
def test_a_figure_that_is_nan_is_rejected(check: str) -> None:
    made = {
        "update_error": state(update_error=math.nan),
        "tensor_update_error": state(tensor(update_error=math.nan)),
        "slice_update_error": state(tensor(slices=[math.nan])),
    }
    found = only(judge(made[check]), check)
    assert found.measured == math.inf


# --- which tensors are named, and in which order --------------------------------------------------


def test_the_worst_tensor_comes_first_and_honest_ones_are_not_named() -> None:
    tensors = [tensor("a", 0.6), tensor("b", 0.1), tensor("c", 0.9), tensor("d", 0.7)]
    found = only(judge(state(*tensors)), "tensor_update_error")
    assert [(t.tensor, t.measured) for t in found.worst] == [("c", 0.9), ("d", 0.7), ("a", 0.6)]
    assert found.measured == 0.9
    assert found.message.startswith("3 of 4 tensors are off; worst: c: update error 0.9")


def test_lengths_are_sorted_by_their_distance_from_1() -> None:
    tensors = [tensor("long", 0.0, 1.4), tensor("short", 0.0, 0.2), tensor("fine", 0.0, 1.1)]
    found = only(judge(state(*tensors)), "tensor_norm_ratio")
    assert [t.tensor for t in found.worst] == ["short", "long"]
    assert [t.measured for t in found.worst] == pytest.approx([0.8, 0.4])
    assert "short: update length off by 0.8 (allowed 0.375, 2.13x)" in found.message


def test_five_tensors_are_shown_and_all_are_counted() -> None:
    tensors = [tensor(f"t{index}", 0.6 + index / 100) for index in range(7)]
    found = only(judge(state(*tensors)), "tensor_update_error")
    assert [t.tensor for t in found.worst] == ["t6", "t5", "t4", "t3", "t2"]
    assert found.message.startswith("7 of 7 tensors are off")


def test_one_tensor_is_one_tensor() -> None:
    found = only(judge(state(tensor("a", 0.6))), "tensor_update_error")
    assert found.message.startswith("1 of 1 tensor is off; worst: a: ")


def test_exact_tensors_are_not_counted_among_those_with_an_update() -> None:
    found = judge(state(exact("n", 0), tensor("a", 0.6)))
    assert only(found, "tensor_update_error").message.startswith("1 of 1 tensor is off")


def test_elements_that_are_not_finite_are_said_and_nothing_else_is() -> None:
    tensors = [
        tensor("a", math.inf, nonfinite=1), tensor("fine"), tensor("b", math.inf, nonfinite=4),
    ]  # fmt: skip
    found = judge(state(*tensors, update_error=math.inf), weights=(math.nan, math.nan))
    assert [(f.check, f.code, f.measured, f.allowed) for f in found] == [
        ("finite", Code.STATE_INVALID, 5.0, 0.0)
    ]
    assert "contains 5 non-finite elements (NaN or infinity) in b, a" in found[0].message
    assert [(t.tensor, t.measured, t.message) for t in found[0].worst] == [
        ("b", 4.0, "4 non-finite elements of 8"), ("a", 1.0, "1 non-finite element of 8")
    ]  # fmt: skip


def test_of_many_tensors_that_are_not_finite_five_are_shown_and_all_are_counted() -> None:
    tensors = [tensor(f"t{n}", math.inf, nonfinite=n + 1) for n in range(7)]
    found = judge(state(*tensors, update_error=math.inf))[0]
    assert found.measured == 28
    assert found.message.endswith("in t6, t5, t4, t3, t2 and 2 more")
    assert [t.tensor for t in found.worst] == ["t6", "t5", "t4", "t3", "t2"]


def test_five_names_are_shown_without_more() -> None:
    tensors = [tensor(f"t{n}", math.inf, nonfinite=1) for n in range(5)]
    found = judge(state(*tensors, update_error=math.inf))[0]
    assert found.message.endswith("in t0, t1, t2, t3, t4")


def test_exact_tensors_that_differ_are_counted_and_named() -> None:
    wide = TOLERANCES.model_copy(
        update={"tensor_update_error": math.inf, "tensor_norm_ratio": math.inf}
    )
    tensors = [exact("n", 3), exact("same", 0), exact("m", 2), tensor()]
    found = only(judge(state(*tensors), tolerances=wide), "exact")
    assert (found.measured, found.allowed) == (5.0, 0.0)
    assert found.message == "n, m must equal the reference exactly, and does not"
    assert [(t.tensor, t.measured, t.message) for t in found.worst] == [
        ("n", 3.0, "3 of 8 elements differ"), ("m", 2.0, "2 of 8 elements differ")
    ]  # fmt: skip


def test_of_many_exact_tensors_five_are_shown() -> None:
    found = judge(state(*(exact(f"n{index}", 1) for index in range(7)), tensor()))[0]
    assert (found.check, found.measured, len(found.worst)) == ("exact", 7.0, 5)


# --- slices ---------------------------------------------------------------------------------------


def test_experts_that_are_off_are_counted_over_all_tensors_and_listed() -> None:
    tensors = [
        tensor("a", slices=[0.1, 0.8, 0.1], slice_ratio=1.25),
        tensor("fine", slices=[0.75, 0.75]),
        tensor("b", slices=[0.9, 0.1, 2.0], slice_ratio=0.004),
    ]
    found = only(judge(state(*tensors)), "slice_update_error")
    assert found.measured == 2.0
    assert found.message.startswith("3 experts or embedding rows off in 2 tensors; worst: b: ")
    assert [(t.tensor, t.slice_index, t.measured) for t in found.worst] == [
        ("b", 2, 2.0), ("a", 1, 0.8)
    ]  # fmt: skip
    first, second = (t.message for t in found.worst)
    assert first == (
        "expert 2: update error 2 (allowed 0.75, 2.67x); it did not move "
        "(2 of 3 experts are off: 0, 2)"
    )
    assert second == "expert 1: update error 0.8 (allowed 0.75, 1.07x); norm ratio 1.25"


def test_an_expert_exactly_at_its_tolerance_is_not_counted() -> None:
    found = only(judge(state(tensor(slices=[0.75, 0.9, 0.75, 0.8]))), "slice_update_error")
    assert found.message.startswith("2 experts or embedding rows off in 1 tensor")
    assert found.message.endswith("(2 of 4 experts are off: 1, 3)")


def test_one_expert_is_one_expert() -> None:
    found = only(judge(state(tensor(slices=[0.8]))), "slice_update_error")
    assert found.message.startswith("1 expert or embedding row off in 1 tensor; worst: w: expert 0")


@pytest.mark.parametrize(("ratio", "moved"), [(0.0099, False), (0.01, True)])
def test_a_slice_moved_from_a_hundredth_of_the_reference_on(ratio: float, moved: bool) -> None:
    found = only(judge(state(tensor(slices=[1.0], slice_ratio=ratio))), "slice_update_error")
    assert ("norm ratio 0.01" in found.worst[0].message) == moved
    assert ("it did not move" in found.worst[0].message) == (not moved)


def test_rows_that_are_judged_together_are_said_to_be() -> None:
    rows = tensor(
        "embed", slices=[0.1, 0.9, 0.9, 0.8], kind=TensorKind.EMBEDDING, rows=2, slice_ratio=0.5
    )
    found = only(judge(state(rows)), "slice_update_error")
    assert found.worst[0].message == (
        "2 rows of about equally frequent tokens, most of all row 1: update error 0.9 "
        "(allowed 0.75, 1.2x); norm ratio 0.50 (3 of 4 rows are off: 1, 2, 3)"
    )
    together = replace(rows, slice_errors=np.array([0.1, 0.9, 0.9, 0.1]))
    found = only(judge(state(together)), "slice_update_error")
    assert found.worst[0].message.endswith("; norm ratio 0.50")  # they are all that is off


def test_one_row_is_named_as_a_row() -> None:
    row = tensor("embed", slices=[0.1, 0.9], kind=TensorKind.EMBEDDING)
    found = only(judge(state(row)), "slice_update_error")
    assert found.worst[0].message.startswith("row 1: update error 0.9")


@pytest.mark.parametrize(
    ("count", "listed"),
    [(8, "0, 1, 2, 3, 4, 5, 6, 7)"), (9, "0, 1, 2, 3, 4, 5, 6, 7, ...)")],
)
def test_eight_slices_are_listed_and_more_are_hinted_at(count: int, listed: str) -> None:
    found = only(judge(state(tensor(slices=[0.9] * count))), "slice_update_error")
    assert found.worst[0].message.endswith(f"({count} of {count} experts are off: {listed}")


def test_of_many_tensors_with_slices_five_are_shown_the_worst_first() -> None:
    tensors = [tensor(f"t{n}", slices=[0.8 + n / 100]) for n in range(7)]
    found = only(judge(state(*tensors)), "slice_update_error")
    assert [t.tensor for t in found.worst] == ["t6", "t5", "t4", "t3", "t2"]
    assert found.message.startswith("7 experts or embedding rows off in 7 tensors")


def test_slices_that_never_moved_are_counted_and_listed() -> None:
    tensors = [
        tensor("a", slices=[0.0] * 4, still=[1, 3]),
        tensor("fine", slices=[0.0] * 4),
        tensor("b", slices=[0.0] * 4, kind=TensorKind.EMBEDDING, still=[2]),
    ]
    found = only(judge(state(*tensors)), "still")
    assert (found.measured, found.allowed) == (3.0, 0.0)
    assert found.message.startswith(
        "3 experts or embedding rows did not move as the reference's did, or not at all; a: "
    )
    assert [(t.tensor, t.slice_index, t.measured, t.message) for t in found.worst] == [
        ("a", 1, 2.0, "experts without their update: 1, 3"),
        ("b", 2, 1.0, "rows without their update: 2"),
    ]


def test_of_many_tensors_with_still_slices_five_are_shown() -> None:
    tensors = [tensor(f"t{n}", slices=[0.0], still=[0]) for n in range(7)]
    found = only(judge(state(*tensors)), "still")
    assert (found.measured, len(found.worst)) == (7.0, 5)


# --- words for what a tensor did instead ----------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "ratio", "moved", "said"),
    [
        (1.0, 0.0, True, r"it did not move \(norm ratio 0\.00\): is it trained\?"),
        (1.0, 0.0099, True, r"it did not move \(norm ratio 0\.01\)"),
        (0.99, 0.01, True, r"it moved 0\.01 times as far, in the right direction"),
        (2.0, 3.0, True, r"it moved 3 times as far, in the right direction: is its gradient"),
        (0.8, 0.25, True, r"it moved 0\.25 times as far, in the right direction"),
        (2.2, 3.0, True, r"it moved 3 times as far"),
        (2.25, 3.0, True, r"norm ratio 3$"),
        (1.0, 1.0, True, r"norm ratio 1$"),
        (math.inf, math.inf, False, r"it moved although the reference's training does not"),
    ],
)
def test_a_tensor_is_told_what_it_did_instead(
    error: float, ratio: float, moved: bool, said: str
) -> None:
    wrong = replace(tensor(update_error=error, norm_ratio=ratio), moved=moved)
    found = next(f for f in judge(state(wrong)) if f.check == "tensor_update_error")
    assert re.search(f"; {said}", found.worst[0].message)


def test_a_figure_is_shown_against_what_is_allowed() -> None:
    found = only(judge(state(update_error=0.75)), "update_error")
    assert found.message.endswith("update error 0.75 (allowed 0.25, 3x)")
    found = only(judge(state(update_error=math.inf)), "update_error")
    assert found.message.endswith("update error inf (allowed 0.25)")


# --- steps ----------------------------------------------------------------------------------------


def test_the_steps_of_the_worst_version_are_put_into_words() -> None:
    worse, better = (replace(HONEST, weights=weights) for weights in ((1.0, 0.0), (1.2, 1.0)))
    for both in ([worse, better], [better, worse]):
        found = judge(state(), state(), attributions=both)
        assert [f.check for f in found] == ["step_weight", "versions"]
        assert found[0].measured == 1.0
        assert "the weight of a step differs from 1 by 1 (allowed 0.0625, 16x): step 2 of 2 is" in (
            found[0].message
        )


def test_words_for_steps_are_chosen_by_the_tolerance_of_steps() -> None:
    found = only(judge(state(), weights=(1.0, 1.05, 1.2)), "step_weight")
    assert found.message.endswith("weights away from 1: step 3 of 3 has 1.2")


def test_steps_that_say_nothing_are_a_note_with_the_reason() -> None:
    unclear = Attribution((math.nan,) * 2, 1e9, False, "all alike")
    for both in ([HONEST, unclear], [unclear, replace(HONEST, weights=(0.0, 1.0))]):
        found = judge(state(), state(), attributions=both)
        assert [(f.check, f.severity) for f in found] == [
            ("step_weight", Severity.NOTE), ("versions", Severity.NOTE)
        ]  # fmt: skip
        assert found[0].message == "step attribution says nothing here: all alike"


# --- tensors that the reference left alone, and several versions -----------------------------------


def test_tensors_that_the_reference_left_alone_are_noted_with_what_the_submission_did() -> None:
    kept = replace(tensor("kept"), moved=False)
    gone = replace(tensor("gone", math.inf, math.inf), moved=False)
    also = replace(tensor("also"), moved=False)
    found = judge(state(kept, tensor("trained"), gone, also, exact("n", 0)))
    assert [f.check for f in found] == ["tensor_update_error", "tensor_norm_ratio", "unmoved"]
    assert found[2].severity is Severity.NOTE
    assert found[2].message == (
        "the reference's training did not move kept, gone, also; "
        "the submission left 2 of these 3 as they were"
    )


def test_a_tensor_without_elements_is_not_said_to_stand_still() -> None:
    assert judge(state(replace(tensor(), moved=False, numel=0), tensor("b"))) == []


def test_of_each_tensor_the_worst_version_is_named_once() -> None:
    one, two = state(tensor("a", 0.6), tensor("b", 0.9)), state(tensor("a", 0.8), tensor("b", 0.7))
    for versions in ((one, two), (two, one)):
        found = judge(*versions)
        assert [f.check for f in found] == ["tensor_update_error", "versions"]
        assert [(t.tensor, t.measured) for t in found[0].worst] == [("b", 0.9), ("a", 0.8)]
        assert found[0].message.startswith("2 of 2 tensors are off")


def test_of_versions_that_are_equally_wrong_the_first_is_named() -> None:
    found = judge(state(tensor("a", 0.6, 1.25)), state(tensor("a", 0.6, 0.875)))
    assert found[0].worst[0].message.endswith("norm ratio 1.25")


def test_a_version_with_nan_is_not_hidden_by_the_one_before() -> None:
    found = judge(state(tensor("a", 0.6)), state(tensor("a", math.nan)))
    assert math.isnan(found[0].worst[0].measured)


@pytest.mark.parametrize("broken_first", [True, False])
def test_of_two_versions_a_figure_that_is_no_number_is_the_worst(broken_first: bool) -> None:
    versions = [state(tensor("a", math.nan)), state(tensor("a", 0.1))]
    found = judge(*(versions if broken_first else versions[::-1]))
    worst = next(f for f in found if f.check == "tensor_update_error").worst
    assert [math.isnan(each.measured) for each in worst] == [True]


def test_versions_are_noted_only_where_something_was_found() -> None:
    assert judge(state(), state(), state()) == []
    found = judge(state(), state(), state(update_error=0.5))
    assert [f.check for f in found] == ["update_error", "versions"]
    assert (found[1].severity, found[1].code) == (Severity.NOTE, Code.OK)
    assert "3 different versions" in found[1].message
    assert [f.check for f in judge(state(update_error=0.5))] == ["update_error"]


def test_findings_come_in_the_order_of_the_checks() -> None:
    wrong = state(
        exact("n", 1),
        tensor("a", 0.9, 0.2, slices=[0.9], still=[0]),
        update_error=0.5,
        norm_ratio=0.5,
    )
    found = judge(wrong, weights=(0.0, 1.0))
    assert [f.check for f in found] == [
        "exact", "update_error", "norm_ratio", "tensor_update_error", "tensor_norm_ratio",
        "slice_update_error", "still", "step_weight",
    ]  # fmt: skip


# --- rows that were turned away -------------------------------------------------------------------


def rows_with(
    turned: int, still: int = 0, kind: TensorKind = TensorKind.EMBEDDING
) -> StateComparison:
    return state(
        tensor("embed", kind=kind, turned=range(turned), still=range(50, 50 + still), trained=1_000)
    )


def test_where_no_row_is_turned_by_chance_one_is_enough() -> None:
    finding = only(judge(rows_with(1)), UNTOUCHED)
    assert finding.measured == 1 and "rows without their update: 0" in finding.message


@pytest.mark.parametrize(("turned", "found"), [(0, False), (1, False), (2, False), (3, True)])
def test_where_some_are_turned_by_chance_more_are_a_finding(turned: int, found: bool) -> None:
    """A tenth of a row is expected; more than two are seen in one of 6,500 runs."""
    findings = judge(rows_with(turned), turned_rows=1e-4)
    assert [f.check for f in findings] == ([UNTOUCHED] if found else [])
    assert not found or findings[0].measured == 3


def test_a_row_that_stands_still_is_a_finding_whatever_chance_does() -> None:
    finding = only(judge(rows_with(2, still=1), turned_rows=1e-4), UNTOUCHED)
    assert finding.measured == 1 and "update: 50" in finding.message


def test_no_expert_is_turned_by_chance() -> None:
    assert only(judge(rows_with(1, kind=TensorKind.EXPERTS), turned_rows=1e-4), UNTOUCHED)
