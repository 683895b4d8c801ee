"""The streamed comparison gives the figures of a plain whole-tensor computation, and finds cheats."""

import math
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import Code, JudgeError
from harness.tensors.boxes import Box, State, TensorKind, TensorSpec
from harness.tensors.stored import as_array, as_float32
from harness.verify import sums as blocks
from harness.verify.compare import (
    StateComparison,
    TensorComparison,
    _in_order,
    _Pieces,
    compare_states,
)
from harness.verify.sums import Chunk, Sums
from tests.build_states import Array, Arrays, decode, encode, pieces, random_boxes, whole


def compare_arrays(
    states: Sequence[Arrays],
    layout: Mapping[str, TensorSpec],
    threads: int = 2,
    occurrences: Array | None = None,
) -> StateComparison:
    """Of the initial, the reference's and the submitted state."""
    initial, reference, submitted = (whole(state, layout) for state in states)
    return compare_states(initial, reference, submitted, layout, threads, occurrences)


def compare_one(
    w0: Array,
    wr: Array,
    ws: Array,
    kind: TensorKind = TensorKind.PLAIN,
    occurrences: Array | None = None,
    dtype: str = "float32",
) -> TensorComparison:
    layout = {
        "w": TensorSpec(w0.shape, dtype, kind),
        "other": TensorSpec((1,), "float32"),  # so that the reference as a whole moves
    }
    states = [{"w": w, "other": np.array([x])} for w, x in ((w0, 0), (wr, 1), (ws, 1))]
    return compare_arrays(states, layout, occurrences=occurrences).tensors[0]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.lists(st.integers(1, 12), max_size=4).map(tuple),
    dtype=st.sampled_from(["float32", "bfloat16", "float16", "float64"]),
    kind=st.sampled_from(list(TensorKind)),
    block=st.integers(1, 64),
    shift=st.integers(0, 3),
)
def test_streamed_figures_equal_whole_tensor_figures(
    seed: int, shape: tuple[int, ...], dtype: str, kind: TensorKind, block: int, shift: int
) -> None:
    kind = kind if shape else TensorKind.PLAIN
    rng = np.random.default_rng(seed)
    w0 = rng.standard_normal(shape)
    wr = w0 + 0.3 * rng.standard_normal(shape)
    ws = wr + 0.1 * rng.standard_normal(shape)
    stored = [encode(np.asarray(w), dtype) for w in (w0, wr, ws)]
    layout = {"w": TensorSpec(shape, dtype, kind)}
    initial, reference, submitted = (
        {"w": pieces("w", w, dtype, random_boxes(shape, rng, int(rng.integers(6))), shift)}
        for w in stored
    )
    w0, wr, ws = (decode(w, dtype) for w in stored)
    with pytest.MonkeyPatch.context() as patch:  # blocks much smaller than the tensor
        patch.setattr(blocks, "BLOCK_ELEMENTS", block)
        patch.setattr("harness.verify.compare.CHUNK_ELEMENTS", 5 * block)
        result = compare_states(initial, reference, submitted, layout, threads=2)
    moved = np.linalg.norm(wr - w0)
    tensor = result.tensors[0]
    assert tensor.moved and tensor.nonfinite == 0
    assert tensor.update_error == pytest.approx(np.linalg.norm(ws - wr) / moved, rel=1e-5)
    assert tensor.norm_ratio == pytest.approx(np.linalg.norm(ws - w0) / moved, rel=1e-5)
    assert result.update_error == tensor.update_error
    if kind is TensorKind.PLAIN:
        assert tensor.worst_slice is None
        return
    rows = [w.reshape(shape[0], -1) for w in (w0, wr, ws)]
    slice_moved = np.linalg.norm(rows[1] - rows[0], axis=1)
    rms = np.sqrt(np.mean(slice_moved**2))
    errors = np.linalg.norm(rows[2] - rows[1], axis=1) / np.maximum(slice_moved, rms)
    assert tensor.slice_errors == pytest.approx(errors, rel=1e-5)
    assert tensor.worst_slice is not None
    assert tensor.worst_slice.update_error == pytest.approx(errors.max(), rel=1e-5)


def test_large_tensors_are_cut_into_jobs_and_blocks_without_loss() -> None:
    """Real sizes of chunks and blocks: rows below and above a block, and a column-wise cut of the
    submission. Every number is a small integer, so that the sums are exact however they are cut."""
    layout = {
        "embedding": TensorSpec((6_001, 700), "float32", TensorKind.EMBEDDING),
        "experts": TensorSpec((3, 450, 601), "float32", TensorKind.EXPERTS),
        "bias": TensorSpec((300_001,), "float32"),
    }
    zero: dict[str, Array] = {n: np.zeros(s.shape, np.float32) for n, s in layout.items()}
    one = {n: w + 1 for n, w in zero.items()}
    wrong = {n: w.copy() for n, w in one.items()}
    wrong["embedding"][5_999, 699] = 2
    wrong["experts"][1, 449, 600] = 4
    wrong["experts"][2, 0, 0] = 3
    wrong["bias"][300_000] = 6
    initial, reference, submitted = (whole(state, layout) for state in (zero, one, wrong))
    columns = [Box((0, 0), (6_001, 333)), Box((0, 333), (6_001, 367))]
    submitted["embedding"] = pieces("embedding", wrong["embedding"], "float32", columns)
    alone = compare_states(initial, reference, submitted, layout, threads=1)
    result = compare_states(initial, reference, submitted, layout, threads=2)
    assert result == alone  # the order of additions does not depend on the threads
    embedding, experts, bias = result.tensors
    assert embedding.update_error == (1 / 4_200_700) ** 0.5
    assert experts.update_error == ((9 + 4) / 811_350) ** 0.5
    assert bias.update_error == (25 / 300_001) ** 0.5
    assert result.update_error == pytest.approx((39 / 5_312_051) ** 0.5, rel=1e-12)
    assert embedding.slice_errors.nonzero()[0].tolist() == [5_999]
    assert embedding.slice_errors[5_999] == pytest.approx((1 / 700) ** 0.5, rel=1e-12)
    each = [0, (9 / 270_450) ** 0.5, (4 / 270_450) ** 0.5]
    assert experts.slice_errors == pytest.approx(each, rel=1e-12)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_one_nonfinite_element_is_counted_and_makes_the_errors_infinite(bad: float) -> None:
    w0 = np.zeros((8, 70_000))
    wr = w0 + 1
    ws = wr.copy()
    ws[5, 31_415] = bad
    tensor = compare_one(w0, wr, ws, TensorKind.EXPERTS)
    assert tensor.nonfinite == 1
    assert tensor.update_error == math.inf
    assert tensor.worst_slice is not None and tensor.worst_slice.index == 5
    assert np.isfinite(np.delete(tensor.slice_errors, 5)).all()


def test_finite_values_whose_squares_overflow_are_not_called_nonfinite() -> None:
    w0, wr = np.zeros(1_000), np.ones(1_000)
    ws = wr.copy()
    ws[7] = 3e38
    tensor = compare_one(w0, wr, ws)
    assert tensor.nonfinite == 0
    assert tensor.update_error == pytest.approx(3e38 / math.sqrt(1_000), rel=1e-5)


@pytest.mark.parametrize("size", [1e-25, 4e-23])  # squares: zero, and subnormal
def test_updates_whose_squares_underflow_are_still_compared(size: float) -> None:
    w0 = np.zeros((4, 50))
    wr = w0 + size
    ws = wr.copy()
    ws[2] *= 1.5
    tensor = compare_one(w0, wr, ws, TensorKind.EMBEDDING)
    assert tensor.moved
    assert tensor.update_error == pytest.approx(0.25, rel=1e-4)
    assert tensor.slice_errors == pytest.approx([0, 0, 0.5, 0], rel=1e-4)


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
    assert tensor.untouched_slices == untouched
    expected = longer * math.cos(math.radians(turned))
    assert tensor.least_projection == pytest.approx(expected, abs=1e-3)


def test_the_least_projection_is_of_what_the_reference_trained() -> None:
    alone = compare_one(rows(0, 0), rows(0, 0), rows(1, 0), TensorKind.EMBEDDING)
    assert alone.least_projection == math.inf
    # The rms of 30 and 0.2 is 21: 0.2 is less than a hundredth of it, and 0.3 more.
    less = compare_one(rows(0, 0), rows(30, 0.2), rows(30, -1), TensorKind.EMBEDDING)
    assert (less.least_projection, less.untouched_slices) == (1.0, ())
    more = compare_one(rows(0, 0), rows(30, 0.3), rows(30, -0.6), TensorKind.EMBEDDING)
    assert more.least_projection == pytest.approx(-2.0)
    assert more.untouched_slices == (1,)
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
    assert compare_one(w0, wr, ws, TensorKind.EMBEDDING).untouched_slices == (7,)
    # An expert that got a single token by a near tie may have got none.
    assert compare_one(w0, wr, ws, TensorKind.EXPERTS).untouched_slices == ()
    ws[9] = w0[9]
    assert compare_one(w0, wr, ws, TensorKind.EXPERTS).untouched_slices == (9,)


# --- figures of slices, in numbers that can be checked by hand --------------------------------------


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
    assert compare_one(w0, wr, ws, TensorKind.EXPERTS, dtype=dtype).untouched_slices == still
    assert compare_one(w0, wr, ws, TensorKind.EMBEDDING, dtype=dtype).untouched_slices == still


def test_slices_are_untouched_where_they_hardly_moved() -> None:
    ws = np.array([[0, 0], [0.2, 0], [0, 1e-7], [1, 0]])
    tensor = compare_one(rows(0, 0, 0, 0), rows(1, 1, 1, 1), ws, TensorKind.EXPERTS)
    assert tensor.untouched_slices == (0, 2)


def test_a_plain_tensor_has_no_slices() -> None:
    tensor = compare_one(rows(0, 0), rows(1, 1), rows(0, 1))
    assert tensor.worst_slice is None and tensor.untouched_slices == ()
    assert tensor.slice_errors.tolist() == []


# --- figures of the whole state ---------------------------------------------------------------------

STATE = {
    "a": TensorSpec((2,), "float32"),
    "b": TensorSpec((2, 1), "float64", TensorKind.EXPERTS),
    "n": TensorSpec((3,), "int64"),
}


def state_of(a: Sequence[float], b: Sequence[float], n: Sequence[int] = (1, 2, 3)) -> Arrays:
    return {"a": np.array(a), "b": np.array(b)[:, None], "n": np.array(n, np.int64)}


def test_the_whole_state_is_measured_over_all_floating_tensors_together() -> None:
    """The reference moves by 3, 0, 4, 0: together 5. The submission is off by 2, 1 and 2."""
    states = [state_of([0, 1], [0, 1]), state_of([3, 1], [4, 1]), state_of([1, 2], [4, 3])]
    result = compare_arrays(states, STATE)
    assert [tensor.name for tensor in result.tensors] == ["a", "b", "n"]
    assert result.update_error == pytest.approx(3 / 5)
    assert result.norm_ratio == pytest.approx((1 + 1 + 16 + 4) ** 0.5 / 5)
    a, b, n = result.tensors
    assert (a.moved, a.numel, a.exact) == (True, 2, False)
    assert a.update_error == pytest.approx(5**0.5 / 3)
    assert a.norm_ratio == pytest.approx(2**0.5 / 3)
    assert b.update_error == pytest.approx(2 / 4)
    assert b.norm_ratio == pytest.approx(20**0.5 / 4)
    assert (n.kind, n.numel, n.moved, n.exact, n.different) == (
        TensorKind.PLAIN, 3, False, True, 0,
    )  # fmt: skip


def test_an_exact_tensor_that_differs_does_not_change_the_figures_of_the_whole() -> None:
    states = [state_of([0, 0], [0, 0]), state_of([3, 0], [4, 0], (9, 9, 9))]
    result = compare_arrays([*states, state_of([3, 0], [4, 0], (1, 9, 3))], STATE)
    assert (result.update_error, result.norm_ratio) == (0.0, 1.0)
    n = result.tensors[2]
    assert (n.different, n.nonfinite) == (2, 0)
    assert (n.update_error, n.norm_ratio) == (math.inf, math.inf)


def test_elements_that_are_not_finite_are_counted_in_every_tensor() -> None:
    nan = math.nan
    states = [state_of([0, 0], [0, 0]), state_of([3, 0], [4, 0]), state_of([nan, nan], [nan, 0])]
    result = compare_arrays(states, STATE)
    assert [tensor.nonfinite for tensor in result.tensors] == [2, 1, 0]
    assert result.nonfinite == 3
    assert (result.update_error, result.norm_ratio) == (math.inf, math.inf)


def test_a_benchmark_without_floating_tensors_cannot_be_judged() -> None:
    layout = {"n": TensorSpec((1,), "int64")}
    with pytest.raises(JudgeError, match="no weight"):
        compare_arrays([{"n": np.array([n])} for n in (1, 2, 2)], layout)


def test_a_comparison_has_no_faults_and_no_slices_but_those_it_is_given() -> None:
    tensor = TensorComparison("w", TensorKind.PLAIN, 8, True, 0.5, 1.5)
    assert (tensor.nonfinite, tensor.exact, tensor.different) == (0, False, 0)
    assert (tensor.worst_slice, tensor.slice_errors.size, tensor.untouched_slices) == (None, 0, ())
    assert "slice_errors" not in repr(tensor)  # a vocabulary of them


def test_work_on_a_box_gets_the_pieces_that_touch_it_and_no_others() -> None:
    """A submission may cut a tensor into very many pieces; each chunk must not look at all of them."""
    boxes = [Box((row, column), (2, 2)) for row in (0, 2, 4) for column in (0, 2, 4)]
    found = _Pieces(pieces("w", np.zeros((6, 6), np.float32), "float32", boxes))

    def touching(box: Box) -> list[tuple[int, ...]]:
        return [part.box.offset for part in found.touching(box)]

    assert touching(Box((2, 2), (2, 2))) == [(2, 2)]  # its neighbours only meet it
    assert touching(Box((1, 3), (2, 1))) == [(0, 2), (2, 2)]
    assert touching(Box((3, 0), (1, 6))) == [(2, 0), (2, 2), (2, 4)]
    assert touching(Box((0, 0), (6, 6))) == [box.offset for box in boxes]


def test_work_is_given_out_a_few_jobs_ahead_and_comes_back_in_its_order() -> None:
    """Sums of a whole model must not wait in memory for a slow reader."""
    made: list[int] = []
    box = Box((1,), (1,))

    def chunks() -> Iterator[Chunk]:
        for index in range(20):
            made.append(index)
            yield Chunk(str(index), box, ([], [], []), 0, 1)

    def work(chunk: Chunk) -> Sums:
        return Sums(np.full((1, 3), float(chunk.name)), 0, 0)

    with ThreadPoolExecutor(3) as pool:
        results = _in_order(pool, work, chunks(), ahead=4)
        chunk, part = next(results)
        assert (chunk.name, part.sums[0, 0], len(made)) == ("0", 0, 4)
        for index, (chunk, part) in enumerate(results, 1):
            assert (chunk.name, part.sums[0, 0]) == (str(index), index)
            assert len(made) <= index + 4
    assert index == 19


def test_a_tensor_that_the_reference_left_alone_is_reported_not_skipped() -> None:
    w0 = np.ones((4, 4))
    equal = compare_one(w0, w0, w0, TensorKind.EXPERTS)
    assert (equal.moved, equal.update_error, equal.norm_ratio) == (False, 0, 1)
    assert equal.slice_errors.tolist() == [0] * 4 and equal.untouched_slices == ()
    assert equal.worst_slice is not None
    assert (equal.worst_slice.update_error, equal.worst_slice.norm_ratio) == (0, 1)
    ws = w0.copy()
    ws[2] += 1e-6
    changed = compare_one(w0, w0, ws, TensorKind.EXPERTS)
    assert (changed.moved, changed.update_error, changed.norm_ratio) == (False, math.inf, math.inf)
    assert changed.slice_errors.tolist() == [0, 0, math.inf, 0]
    assert changed.worst_slice is not None
    assert (changed.worst_slice.index, changed.worst_slice.norm_ratio) == (2, math.inf)


@pytest.mark.parametrize("dtype", ["int64", "bool", "uint8", "int16", "float8_e4m3fn"])
def test_tensors_that_are_not_floating_must_be_equal_bit_by_bit(dtype: str) -> None:
    stored = np.arange(60, dtype=np.int64 if dtype == "int64" else np.uint8).reshape(5, 12)
    if dtype == "int16":
        stored = stored.astype(np.int16)
    layout = {"n": TensorSpec((5, 12), dtype), "w": TensorSpec((2,), "float32")}
    other = stored.copy()
    other[4, 11] ^= 1

    def state(n: Array, w: float, rng: np.random.Generator) -> State:
        return {
            "n": pieces("n", n, dtype, random_boxes(n.shape, rng, 3)),
            "w": whole({"w": np.full(2, w)}, {"w": layout["w"]})["w"],
        }

    rng = np.random.default_rng(0)
    initial, reference = state(stored, 0, rng), state(stored, 1, rng)
    equal = compare_states(initial, reference, state(stored, 1, rng), layout).tensors[0]
    assert (equal.exact, equal.different, equal.update_error, equal.norm_ratio) == (True, 0, 0, 1)
    tensor = compare_states(initial, reference, state(other, 1, rng), layout).tensors[0]
    assert tensor.exact and tensor.different == 1 and tensor.update_error == math.inf


def test_a_reference_that_diverged_or_stood_still_is_our_failure() -> None:
    layout = {"w": TensorSpec((3,), "float32")}
    zero, one, nan = (whole({"w": np.full(3, x)}, layout) for x in (0.0, 1.0, math.nan))
    for reference, said in ((nan, "not finite"), (zero, "no weight")):
        with pytest.raises(JudgeError, match=said) as caught:
            compare_states(zero, reference, one, layout)
        assert caught.value.code is Code.REFERENCE_FAILED


def test_a_state_with_a_hole_is_never_compared_silently() -> None:
    layout = {"w": TensorSpec((4, 3), "float32")}
    zero, one = (whole({"w": np.full((4, 3), x)}, layout) for x in (0.0, 1.0))
    hole = {"w": pieces("w", np.ones((4, 3), np.float32), "float32", [Box((0, 0), (3, 3))])}
    with pytest.raises(JudgeError, match="cover"):
        compare_states(zero, one, hole, layout)


def test_empty_and_scalar_tensors_are_compared() -> None:
    layout = {
        "none": TensorSpec((0, 4), "float32", TensorKind.EXPERTS),
        "one": TensorSpec((), "bfloat16"),
    }
    states = [{"none": np.empty((0, 4)), "one": np.array(x)} for x in (1.0, 2.0, 2.5)]
    none, one = compare_arrays(states, layout).tensors
    assert none.update_error == 0 and none.worst_slice is None
    assert (one.update_error, one.norm_ratio) == (0.5, 1.5)


def test_as_float32_reads_bfloat16_bits() -> None:
    piece = pieces("w", encode(np.array([1.5, -2.0]), "bfloat16"), "bfloat16", [Box((0,), (2,))])[0]
    assert as_float32(as_array(piece), "bfloat16").tolist() == [1.5, -2.0]


MEMORY_PROBE = """
import sys, resource
from pathlib import Path
import numpy as np
from harness.verify.compare import compare_states
from harness.tensors.boxes import Box, StoredPiece, TensorSpec
def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(l.split()[1] for l in lines if l.startswith("VmHWM"))) // 1024
rows, columns = 6_000, 4_096
layout = {"w": TensorSpec((rows, columns), "float32")}
states = []
for name in ("w0", "wr", "ws"):
    data = np.memmap(Path(sys.argv[1]) / name, np.uint8, "r")
    box = Box((0, 0), (rows, columns))
    states.append({"w": [StoredPiece("w", (rows, columns), box, "float32", data)]})
before = peak()
compare_states(*states, layout)
print(peak() - before)
"""


def test_memory_does_not_grow_with_the_model(tmp_path: Path) -> None:
    """281 MiB of weights in three files, mapped: resident memory, pages of the files included."""
    for index, name in enumerate(("w0", "wr", "ws")):
        block = np.full((1_000, 4_096), index, np.float32)
        with (tmp_path / name).open("wb") as file:
            for _ in range(6):
                file.write(block.data)
    command = [sys.executable, "-c", MEMORY_PROBE, str(tmp_path)]
    grown = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert grown < 200  # MiB: half of it are buffers, which do not grow; the files would not pass
