"""Rows and experts: each is judged by how far it moved and where to, with those as rare as it is."""

import math
from collections.abc import Sequence

import numpy as np
import pytest

from harness.tensors.boxes import TensorKind
from harness.verify.figures import TensorComparison
from tests.build_states import Array
from tests.verify.comparing import compare_one, not_trained


def test_a_row_that_the_reference_left_alone_must_be_left_alone() -> None:
    rng = np.random.default_rng(1)
    w0 = rng.standard_normal((10, 64))
    wr = w0 + 0.1 * rng.standard_normal((10, 64))
    wr[3] = w0[3]
    ws = wr.copy()
    assert compare_one(w0, wr, ws, TensorKind.EMBEDDING).slice_errors[3] == 0
    ws[3] += 0.1
    tensor = compare_one(w0, wr, ws, TensorKind.EMBEDDING)
    assert tensor.worst_slice is not None and tensor.worst_slice.index == 3
    assert tensor.worst_slice.update_error > 0.5


def rare_row(turned: float, longer: float) -> TensorComparison:
    """One of a hundred rows moves by 2 % of the others, and is turned by so many degrees and longer."""
    rng = np.random.default_rng(2)
    w0 = rng.standard_normal((100, 64))
    wr = w0 + 0.1 * rng.standard_normal((100, 64))
    update, aside = np.linalg.qr(rng.standard_normal((64, 2)))[0].T * 0.016
    wr[7] = w0[7] + update
    ws = wr.copy()
    angle = math.radians(turned)
    ws[7] = w0[7] + longer * (math.cos(angle) * update + math.sin(angle) * aside)
    return compare_one(w0, wr, ws, TensorKind.EMBEDDING)


@pytest.mark.parametrize(
    ("turned", "longer", "untouched"),
    [
        (0, 1, ()),
        (60, 1, ()),  # what near ties of the router do at worst
        (84, 1, ()),  # cos 84° is 0.105
        (85, 1, (7,)),  # 0.087: in another direction altogether
        (180, 1, (7,)),
        (0, 0.001, (7,)),  # nudged
        (0, 0.09, (7,)),
        (0, 0.11, ()),
        (85, 2, ()),  # twice as long, it goes far enough in the right direction too
    ],
)
def test_a_row_of_a_rare_token_has_to_move_in_its_own_direction(
    turned: float, longer: float, untouched: tuple[int, ...]
) -> None:
    tensor = rare_row(turned, longer)
    assert tensor.slice_errors.max() < 0.06, "no other figure sees it"
    assert not_trained(tensor) == untouched
    expected = longer * math.cos(math.radians(turned))
    assert tensor.least_projection == pytest.approx(expected, abs=1e-3)


def test_the_least_projection_is_of_what_the_reference_trained() -> None:
    alone = compare_one(rows(0, 0), rows(0, 0), rows(1, 0), TensorKind.EMBEDDING)
    assert alone.least_projection == math.inf
    # The rms of 30 and 0.2 is 21: 0.2 is less than a hundredth of it, and 0.3 more.
    less = compare_one(rows(0, 0), rows(30, 0.2), rows(30, -1), TensorKind.EMBEDDING)
    assert (less.least_projection, not_trained(less)) == (1.0, ())
    more = compare_one(rows(0, 0), rows(30, 0.3), rows(30, -0.6), TensorKind.EMBEDDING)
    assert more.least_projection == pytest.approx(-2.0)
    assert not_trained(more) == (1,)
    assert compare_one(rows(0), rows(1), rows(1)).least_projection == math.inf, "it has no slices"


def one_row_in_another_direction(row: int, occurrences: Array | None) -> TensorComparison:
    """Every row moved as far as any other, as an Adam makes it; one of them somewhere else."""
    rng = np.random.default_rng(3)
    w0 = rng.standard_normal((100, 64))
    wr = w0 + 0.1 * rng.standard_normal((100, 64))
    ws = wr.copy()
    ws[row] = w0[row] + 0.1 * rng.standard_normal(64)
    return compare_one(w0, wr, ws, TensorKind.EMBEDDING, occurrences)


def test_rows_of_equally_rare_tokens_are_judged_together() -> None:
    occurrences = np.concatenate([np.full(10, 2), np.full(80, 3), np.full(10, 64)])
    assert one_row_in_another_direction(7, None).slice_errors.max() > 1  # all on their own
    tensor = one_row_in_another_direction(7, occurrences)
    assert tensor.worst_slice is not None
    assert (tensor.worst_slice.index, tensor.worst_slice.rows) == (7, 90)
    assert tensor.slice_errors[:90] == pytest.approx(2**0.5 / 90**0.5, rel=0.2)
    assert (tensor.slice_errors[90:] == 0).all()


@pytest.mark.parametrize("count", [64, 1000])
def test_the_row_of_a_frequent_token_is_judged_on_its_own(count: int) -> None:
    occurrences = np.concatenate([np.full(10, count), np.full(60, 3)])  # 30 tokens never occurred
    tensor = one_row_in_another_direction(7, occurrences)
    assert tensor.worst_slice is not None
    assert (tensor.worst_slice.index, tensor.worst_slice.rows) == (7, 1)
    assert tensor.worst_slice.update_error > 1


def test_rare_rows_that_are_all_wrong_are_found_although_they_moved_little() -> None:
    rng = np.random.default_rng(4)
    w0 = rng.standard_normal((500, 64))
    size = np.concatenate([np.full(100, 0.1), np.full(400, 0.01)])[:, None]
    wr = w0 + size * rng.standard_normal((500, 64))
    ws = wr.copy()
    ws[100:] = w0[100:] + size[100:] * rng.standard_normal((400, 64))
    occurrences = np.concatenate([np.full(100, 99), np.full(400, 1)])
    assert compare_one(w0, wr, ws, TensorKind.EMBEDDING).slice_errors.max() < 0.5
    together = compare_one(w0, wr, ws, TensorKind.EMBEDDING, occurrences)
    assert together.slice_errors.max() > 1.2


def test_a_row_of_a_rare_token_that_did_not_move_at_all_is_found() -> None:
    rng = np.random.default_rng(2)
    w0 = rng.standard_normal((100, 64))
    wr = w0 + 0.1 * rng.standard_normal((100, 64))
    wr[7] = w0[7] + 0.002 * rng.standard_normal(64)
    wr[8] = w0[8]  # its token did not occur
    ws = wr.copy()
    ws[7] = w0[7]
    assert not_trained(compare_one(w0, wr, ws, TensorKind.EMBEDDING)) == (7,)
    # An expert that got a single token by a near tie may have got none.
    assert not_trained(compare_one(w0, wr, ws, TensorKind.EXPERTS)) == ()
    ws[9] = w0[9]
    assert not_trained(compare_one(w0, wr, ws, TensorKind.EXPERTS)) == (9,)


def rows(*lengths: float) -> Array:
    """One row for each length, which lies in its first column."""
    return np.array([[length, 0.0] for length in lengths])


def test_a_slice_that_moved_less_than_the_rms_is_judged_as_if_it_had_moved_so_far() -> None:
    """The rms of 1 and 7 is 5."""
    tensor = compare_one(rows(0, 0), rows(1, 7), rows(2, 8), TensorKind.EXPERTS)
    assert tensor.slice_errors.tolist() == [1 / 5, 1 / 7]
    worst = tensor.worst_slice
    assert worst is not None and (worst.index, worst.rows) == (0, 1)
    assert (worst.update_error, worst.norm_ratio) == (1 / 5, 2 / 5)


def test_the_worst_slice_says_how_far_it_moved() -> None:
    tensor = compare_one(rows(0, 0), rows(1, 7), rows(1, 3.5), TensorKind.EXPERTS)
    worst = tensor.worst_slice
    assert worst is not None and worst.index == 1
    assert (worst.update_error, worst.norm_ratio) == (0.5, 0.5)


def partition(occurrences: Sequence[int], kind: TensorKind, count: int) -> list[list[int]]:
    """Which slices are judged together: every slice has an error of its own unless it is pooled."""
    errors = 0.01 * 1.5 ** np.arange(count)
    tensor = compare_one(
        rows(*([0.0] * count)), rows(*([1.0] * count)), rows(*(1 + errors)), kind,
        np.array(occurrences, np.int64),
    )  # fmt: skip
    groups: dict[float, list[int]] = {}
    for index, error in enumerate(tensor.slice_errors):
        groups.setdefault(float(error), []).append(index)
    return list(groups.values())


def test_rows_are_judged_with_those_that_occurred_between_the_same_powers_of_two() -> None:
    occurrences = [1, 2, 3, 4, 7, 8, 15, 16, 31, 32, 63, 1]
    groups = partition(occurrences, TensorKind.EMBEDDING, 12)
    assert groups == [[0, 11], [1, 2], [3, 4], [5, 6], [7, 8], [9, 10]]


def test_rows_that_occurred_never_or_64_times_are_judged_on_their_own() -> None:
    groups = partition([0, 0, 64, 64, 127, 1000, 1000, 63, 63], TensorKind.EMBEDDING, 9)
    assert groups == [[0], [1], [2], [3], [4], [5], [6], [7, 8]]


def test_rows_beyond_the_counted_tokens_never_occurred_and_counts_beyond_the_rows_do_nothing() -> (
    None
):
    assert partition([1, 1], TensorKind.EMBEDDING, 4) == [[0, 1], [2], [3]]
    assert partition([1, 1, 2, 1, 1], TensorKind.EMBEDDING, 3) == [[0, 1], [2]]


def test_experts_are_never_judged_together() -> None:
    assert partition([1, 1, 1], TensorKind.EXPERTS, 3) == [[0], [1], [2]]


def test_of_rows_that_are_judged_together_the_one_that_differs_most_is_named() -> None:
    """Moved by 3, 4 and 12, together 13; wrong by 1, 2 and 2: together 3."""
    occurrences = np.array([2, 3, 2])
    ws = np.array([[4, 0], [4, 2], [12, 2]])
    tensor = compare_one(rows(0, 0, 0), rows(3, 4, 12), ws, TensorKind.EMBEDDING, occurrences)
    worst = tensor.worst_slice
    assert worst is not None and (worst.index, worst.rows) == (1, 3)
    assert worst.update_error == pytest.approx(3 / 13)
    assert worst.norm_ratio == pytest.approx((16 + 20 + 148) ** 0.5 / 13)
    assert tensor.slice_errors == pytest.approx([3 / 13] * 3)


@pytest.mark.parametrize(("last", "index", "count"), [(4.0, 0, 2), (6.0, 2, 1)])
def test_the_row_that_differs_most_is_sought_in_the_worst_group_only(
    last: float, index: int, count: int
) -> None:
    """Rows 0 and 1 are wrong by 3 of about 52, the rms, and row 2, which moved by 90, by `last`."""
    ws = np.array([[1, 3], [1, 0], [90, last]])
    occurrences = np.array([1, 1, 64])
    tensor = compare_one(rows(0, 0, 0), rows(1, 1, 90), ws, TensorKind.EMBEDDING, occurrences)
    worst = tensor.worst_slice
    assert worst is not None and (worst.index, worst.rows) == (index, count)


@pytest.mark.parametrize(
    ("dtype", "still"),
    [("float32", (1,)), ("float64", (1,)), ("bfloat16", ()), ("float16", ())],
)
def test_an_update_below_the_spacing_of_16_bit_numbers_is_not_called_untouched(
    dtype: str, still: tuple[int, ...]
) -> None:
    w0, wr, ws = rows(0, 0, 0), rows(1, 1, 1), rows(1, 0, 1)
    assert not_trained(compare_one(w0, wr, ws, TensorKind.EXPERTS, dtype=dtype)) == still
    assert not_trained(compare_one(w0, wr, ws, TensorKind.EMBEDDING, dtype=dtype)) == still


def test_slices_are_untouched_where_they_hardly_moved() -> None:
    ws = np.array([[0, 0], [0.2, 0], [0, 1e-7], [1, 0]])
    tensor = compare_one(rows(0, 0, 0, 0), rows(1, 1, 1, 1), ws, TensorKind.EXPERTS)
    assert not_trained(tensor) == (0, 2)


def test_a_plain_tensor_has_no_slices() -> None:
    tensor = compare_one(rows(0, 0), rows(1, 1), rows(0, 1))
    assert tensor.worst_slice is None and not_trained(tensor) == ()
    assert tensor.slice_errors.tolist() == []


def test_a_tenth_of_the_way_is_enough_to_the_digit() -> None:
    w0, wr, ws = np.array([[[0.0], [0.0]], [[10.0], [10.0]], [[1.0], [10.0]]])
    found = compare_one(w0, wr, ws, TensorKind.EMBEDDING)
    assert (found.least_projection, not_trained(found)) == (0.1, ())


def test_what_stands_still_on_both_sides_is_divided_by_nothing() -> None:
    still, moved = np.zeros((2, 1)), np.array([[0.0], [1.0]])
    with np.errstate(all="raise"):
        assert compare_one(still, moved, moved, TensorKind.EXPERTS).slice_errors.tolist() == [0, 0]
        assert compare_one(still, still, still, TensorKind.EXPERTS).slice_errors.tolist() == [0, 0]
        assert compare_one(still, still, still).update_error == 0
