"""The inner loop of a comparison: its sums in numbers that can be checked by hand, and what it does to
memory that it reads."""

import math
import mmap
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from harness.errors import Code, JudgeError
from harness.tensors.boxes import Box
from harness.verify import sums as blocks
from harness.verify.sums import Chunk, PieceArray, Scratch, Sums, cut, run

Array = npt.NDArray[Any]


def chunk(initial: Array, reference: Array, submitted: Array, dtype: str, slices: int = 1) -> Chunk:
    """All of one tensor, each state in one part."""
    box = Box((0,) * initial.ndim, initial.shape)
    initial_part, reference_part, submitted_part = (
        [PieceArray(box, dtype, array)] for array in (initial, reference, submitted)
    )
    return Chunk("w", box, (initial_part, reference_part, submitted_part), 0, slices)


def sums(initial: Any, reference: Any, submitted: Any, slices: int = 1, left: float = 1.0) -> Sums:
    w0, wr, ws = (np.array(state, np.float32) for state in (initial, reference, submitted))
    return run(replace(chunk(w0, wr, ws, "float32", slices), left=left), Scratch())


def three(found: Sums) -> list[list[float]]:
    """The sums that there are without weight decay; the others repeat them."""
    assert (found.sums[:, 3:5] == found.sums[:, 1:3]).all()
    assert not found.sums[:, 5].any()
    rows: list[list[float]] = found.sums[:, :3].tolist()
    return rows


# --- the three sums ---------------------------------------------------------------------------------


def test_the_three_sums_are_of_the_differences_between_the_right_states() -> None:
    found = sums([1, 1], [2, 4], [6, 1])  # differences: ws-wr 4, -3; wr-w0 1, 3; ws-w0 5, 0
    assert three(found) == [[25.0, 10.0, 25.0]]
    assert (found.nonfinite, found.different) == (0, 0)


def test_what_decay_alone_does_is_no_part_of_an_update() -> None:
    # half of [4, 8] is left: gradients moved the reference by 1, 1 and the submission by 4, -3
    found = sums([4, 8], [3, 5], [6, 1], left=0.5)
    assert found.sums.tolist() == [[25.0, 2.0, 25.0, 10.0, 53.0, 80.0]]


def test_what_decay_alone_does_is_known_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK_ELEMENTS", 2)
    found = sums([[4, 8, 4]] * 2, [[3, 5, 2]] * 2, [[6, 1, 2]] * 2, slices=2, left=0.5)
    assert found.sums.tolist() == [[25.0, 2.0, 25.0, 14.0, 57.0, 96.0]] * 2


def test_a_tiny_update_beside_decay_keeps_its_length() -> None:
    found = sums([2.0], [1 + 2.0**-23], [1.0], left=0.5)
    assert found.sums[0, :3].tolist() == [2.0**-46, 2.0**-46, 0.0]
    assert sums([2e-30], [1e-30], [0.0], left=0.5).sums[0, 2] == pytest.approx(1e-60, rel=1e-6)


def test_every_slice_has_sums_of_its_own() -> None:
    found = sums([[0, 0], [0, 0]], [[1, 0], [0, 2]], [[1, 1], [0, 5]], slices=2)
    assert three(found) == [[1.0, 1.0, 2.0], [9.0, 4.0, 25.0]]


def test_slices_that_are_cut_into_several_blocks_are_put_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(blocks, "BLOCK_ELEMENTS", 4)
    initial = np.zeros((3, 6))
    submitted = np.arange(18).reshape(3, 6)  # rows 0..5, 6..11, 12..17
    found = sums(initial, np.ones((3, 6)), submitted, slices=3)
    assert found.sums[:, 2].tolist() == [55.0, 451.0, 1279.0]  # squares of each row
    assert found.sums[:, 1].tolist() == [6.0, 6.0, 6.0]
    together = sums(initial, np.ones((3, 6)), submitted)
    assert together.sums[:, 2].tolist() == [1785.0]


def test_rows_that_lie_in_several_blocks_are_counted_where_they_belong(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A chunk that begins in the middle of a tensor, in blocks of two rows."""
    monkeypatch.setattr(blocks, "BLOCK_ELEMENTS", 4)
    box = Box((10, 0), (5, 2))
    zero, one = np.zeros((5, 2), np.float32), np.ones((5, 2), np.float32)
    submitted = np.array([[1, 1], [1, 1], [1, 1], [1, 4], [1, 1]], np.float32)
    parts = tuple([PieceArray(box, "float32", array)] for array in (zero, one, submitted))
    found = run(Chunk("w", box, (parts[0], parts[1], parts[2]), 10, 5), Scratch())
    assert found.sums[:, 0].tolist() == [0, 0, 0, 9, 0]
    assert found.sums[:, 1].tolist() == [2, 2, 2, 2, 2]


@pytest.mark.parametrize("columns", [4_095, 4_096, 4_097, 8_192, 10_000])
def test_long_rows_are_summed_to_the_last_element(columns: int) -> None:
    """Rows below, at and above the length of one dot product; the last element counts 8, not 1."""
    submitted = np.ones((2, columns))
    submitted[1, -1] = 3
    found = sums(np.zeros((2, columns)), np.ones((2, columns)), submitted, slices=2)
    assert three(found) == [[0, columns, columns], [4, columns, columns + 8]]


def test_a_sum_over_many_elements_does_not_drown_its_small_ones() -> None:
    """2^24 + 1 is no float32: one large square and many of 1 are lost in a float32 sum."""
    submitted = np.ones(200_000)
    submitted[0] = 8_192  # its square is 2^26
    found = sums(np.zeros(200_000), np.ones(200_000), submitted)
    assert found.sums[0, 2] == pytest.approx(2**26 + 199_999, abs=3_000)
    assert found.sums[0, 1] == 200_000


# --- dtypes -----------------------------------------------------------------------------------------


def test_float64_is_compared_as_float64() -> None:
    """Differences that no float32 can hold."""
    initial, reference, submitted = np.array([[1.0], [1 + 2**-40], [1 + 2**-39]])
    found = run(chunk(initial, reference, submitted, "float64"), Scratch())
    assert three(found) == [[2.0**-80, 2.0**-80, 2.0**-78]]


def test_states_of_different_widths_are_compared_in_the_wider() -> None:
    box = Box((0,), (1,))
    parts = (
        [PieceArray(box, "bfloat16", np.array([0x3F80], np.uint16))],  # 1.0
        [PieceArray(box, "float32", np.array([1.5], np.float32))],
        [PieceArray(box, "float64", np.array([1.5 + 2**-40]))],
    )
    found = run(Chunk("w", box, parts, 0, 1), Scratch())
    assert found.sums[0, :2].tolist() == [2.0**-80, 0.25]


@pytest.mark.parametrize(
    ("dtype", "stored"),
    [
        ("bfloat16", np.array([0x3F80, 0xC000, 0x4040], np.uint16)),  # 1, -2, 3
        ("float16", np.array([1, -2, 3], np.float16)),
        ("float32", np.array([1, -2, 3], np.float32)),
        ("float64", np.array([1, -2, 3], np.float64)),
    ],
)
def test_every_floating_dtype_is_read_as_what_it_says(dtype: str, stored: Array) -> None:
    found = run(chunk(np.zeros_like(stored), stored, stored, dtype), Scratch())
    assert three(found) == [[0.0, 14.0, 14.0]]


def test_differences_that_a_narrow_dtype_cannot_hold_are_not_rounded_to_it() -> None:
    """Between 4,094 and 4,096 float16 has nothing."""
    initial, reference, submitted = np.array([[1.0], [4096.0], [1.0]], np.float16)
    assert three(run(chunk(initial, reference, submitted, "float16"), Scratch())) == [
        [4095.0**2, 4095.0**2, 0.0]
    ]


def test_exact_tensors_are_compared_with_the_reference_and_not_with_the_initial_state() -> None:
    initial, trained = np.zeros(4, np.int64), np.array([6, 0, 6, 6])
    assert run(chunk(initial, trained, trained, "int64"), Scratch()).different == 0
    untrained = run(chunk(initial, trained, initial, "int64"), Scratch())
    assert untrained.different == 3
    assert three(untrained) == [[0, 0, 0]]


def test_differences_of_an_exact_tensor_are_counted_over_all_its_blocks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(blocks, "BLOCK_ELEMENTS", 3)
    trained = np.arange(10, dtype=np.int64)
    other = trained.copy()
    other[[0, 4, 9]] = -1
    assert run(chunk(trained, trained, other, "int64"), Scratch()).different == 3


# --- the ends of float32's range --------------------------------------------------------------------


def exact(differences: list[float], slices: int) -> None:
    """The squares of a submission's differences from a reference that moved every element by 1."""
    count = len(differences)
    zero = np.zeros((count, 1))
    found = sums(zero, zero + 1, np.array(differences)[:, None], slices)
    squares = [float(np.float32(d)) ** 2 for d in differences]
    expected = squares if slices > 1 else [math.fsum(squares)]
    assert found.sums[:, 2] == pytest.approx(expected, rel=1e-6, abs=0)


@pytest.mark.parametrize("size", [1e-30, 1e-23, 1e-19, 1e-15, 1e-14, 1e-13])
def test_squares_too_small_for_float32_are_summed_again(size: float) -> None:
    exact([size], 1)
    exact([size, 1.0, 3 * size], 3)
    exact([0.0, size, 0.0], 3)


@pytest.mark.parametrize("size", [2e19, 3e38])
def test_squares_too_large_for_float32_are_summed_again(size: float) -> None:
    exact([size, 1.0], 1)
    exact([1.0, size, 0.0], 3)


def test_rows_that_are_equal_stay_at_zero_beside_rows_that_underflow() -> None:
    found = sums([[0], [0], [0]], [[1], [1], [1]], [[1], [1e-25], [0]], slices=3)
    assert three(found)[0] == [0, 1, 1]
    assert found.sums[1, 2] == pytest.approx(1e-50, rel=1e-6, abs=0)
    assert three(found)[2] == [1, 1, 0]


@pytest.mark.parametrize("other", [0.0, 1.0])
def test_one_lost_square_among_equal_elements_is_summed_again(other: float) -> None:
    """In a block where every sum is zero, and in one where another row's is not."""
    found = sums([[0, 0], [0, 0]], [[1, 1], [1, 1]], [[1e-25, 0], [other, 0]], slices=2)
    assert found.sums[:, 2] == pytest.approx([1e-50, other], rel=1e-6, abs=0)


def test_squares_that_float32_loses_are_summed_again_where_another_is_left() -> None:
    """The square of 2.5e-23 rounds to zero, that of 1e-21 does not: the sum is small, but not zero."""
    submitted = np.full(2_001, 2.5e-23)
    submitted[0] = 1e-21
    found = sums(np.zeros(2_001), np.ones(2_001), submitted)
    assert found.sums[0, 2] == pytest.approx(2.25e-42, rel=1e-5, abs=0)


# --- what is not finite -----------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_elements_that_are_not_finite_are_counted_and_make_their_slice_infinite(
    bad: float,
) -> None:
    found = sums([[0, 0], [0, 0]], [[1, 1], [1, 1]], [[1, 1], [bad, bad]], slices=2)
    assert found.nonfinite == 2
    assert three(found) == [[0, 2, 2], [math.inf, 2, math.inf]]


def test_elements_that_are_not_finite_are_counted_over_all_blocks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(blocks, "BLOCK_ELEMENTS", 2)
    submitted = [math.nan, 0, 0, math.inf, math.nan, math.nan, 0, 0]
    found = sums([0] * 8, [1] * 8, submitted)
    assert found.nonfinite == 4


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("ours", ["initial", "reference"])
def test_a_trusted_state_that_is_not_finite_is_our_failure(ours: str, bad: float) -> None:
    states = {"initial": [0.0, 0.0], "reference": [1.0, 1.0], "submitted": [1.0, 1.0]}
    states[ours][1] = bad
    with pytest.raises(JudgeError, match="w: the reference's weights are not finite") as caught:
        sums(states["initial"], states["reference"], states["submitted"])
    assert caught.value.code is Code.REFERENCE_FAILED


def test_a_submission_cannot_hide_a_trusted_state_that_is_not_finite() -> None:
    with pytest.raises(JudgeError):
        sums([0, math.nan], [1, math.nan], [1, math.nan])


# --- cuts, pieces and buffers -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("box", "limit", "expected"),
    [
        (Box((0,), (4,)), 4, [((0,), (4,))]),
        (Box((0,), (5,)), 4, [((0,), (2,)), ((2,), (3,))]),
        (Box((7,), (9,)), 3, [((7,), (3,)), ((10,), (3,)), ((13,), (3,))]),
        (Box((0, 0), (4, 3)), 6, [((0, 0), (2, 3)), ((2, 0), (2, 3))]),
        (Box((0, 0), (4, 3)), 5, [((r, 0), (1, 3)) for r in range(4)]),
        (Box((0, 0), (4, 3)), 3, [((r, 0), (1, 3)) for r in range(4)]),
        (
            Box((2, 1), (2, 4)),
            2,
            [((2, 1), (1, 2)), ((2, 3), (1, 2)), ((3, 1), (1, 2)), ((3, 3), (1, 2))],
        ),
        (
            Box((0, 0, 0), (2, 2, 3)),
            3,
            [((a, b, 0), (1, 1, 3)) for a in range(2) for b in range(2)],
        ),
        (Box((0, 0), (2, 2)), 1, [((a, b), (1, 1)) for a in range(2) for b in range(2)]),
    ],
)
def test_a_box_is_cut_in_order_of_memory_and_no_tile_is_above_the_limit(
    box: Box, limit: int, expected: list[tuple[tuple[int, ...], tuple[int, ...]]]
) -> None:
    assert [(place.offset, place.shape) for place in cut(box, limit)] == expected


def test_a_state_in_parts_is_put_together_in_whatever_order_they_come() -> None:
    box = Box((0, 0), (2, 3))
    stored = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
    left = PieceArray(Box((0, 0), (2, 1)), "float32", stored[:, :1])
    right = PieceArray(Box((0, 1), (2, 2)), "float32", stored[:, 1:])
    whole = PieceArray(box, "float32", np.zeros((2, 3), np.float32))
    reference = PieceArray(box, "float32", np.ones((2, 3), np.float32))
    for submitted in ([left, right], [right, left]):
        found = run(Chunk("w", box, ([whole], [reference], submitted), 0, 2), Scratch())
        assert three(found) == [[5.0, 3.0, 14.0], [50.0, 3.0, 77.0]]


def test_parts_that_lie_in_other_blocks_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK_ELEMENTS", 2)
    one, other = Box((0,), (2,)), Box((2,), (2,))
    parts = [PieceArray(box, "float32", np.ones(2, np.float32)) for box in (one, other)]
    whole = [PieceArray(Box((0,), (4,)), "float32", np.zeros(4, np.float32))]
    for order in (parts, parts[::-1]):
        found = run(Chunk("w", Box((0,), (4,)), (whole, whole, order), 0, 1), Scratch())
        assert three(found) == [[4.0, 0.0, 4.0]]


@pytest.mark.parametrize("rows", [0, 1])
def test_a_part_that_is_missing_is_our_failure(rows: int) -> None:
    """What lies in the buffer from the tensor before must never be judged in its place."""
    box = Box((0,), (2,))
    whole = PieceArray(box, "float32", np.ones(2, np.float32))
    part = PieceArray(Box((0,), (rows,)), "float32", np.ones(rows, np.float32))
    elsewhere = PieceArray(Box((5,), (2,)), "float32", np.ones(2, np.float32))
    with pytest.raises(JudgeError, match="do not cover") as caught:
        run(Chunk("w", box, ([whole], [whole], [part, elsewhere]), 0, 1), Scratch())
    assert caught.value.code is Code.INTERNAL


def test_a_buffer_is_used_again_and_each_use_dtype_and_thread_has_its_own() -> None:
    scratch = Scratch()
    wide, narrow = np.dtype(np.float64), np.dtype(np.float32)
    first = scratch.get("difference", narrow, (2, 3))
    assert (first.dtype, first.shape) == (narrow, (2, 3))
    assert np.shares_memory(first, scratch.get("difference", narrow, (6,)))
    others = [scratch.get("initial", narrow, (6,)), scratch.get("difference", wide, (6,))]
    thread = threading.Thread(target=lambda: others.append(scratch.get("difference", narrow, (6,))))
    thread.start()
    thread.join()
    assert len(others) == 3
    assert not any(np.shares_memory(first, other) for other in others)


class Noted(Scratch):
    """Remembers what its buffers were for."""

    def __init__(self) -> None:
        super().__init__()
        self.uses: set[str] = set()

    def get(self, use: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
        self.uses.add(use)
        return super().get(use, dtype, shape)


@pytest.mark.parametrize(("left", "uses"), [(1.0, set()), (0.5, {"decayed"})])
def test_what_is_not_decayed_is_not_multiplied(left: float, uses: set[str]) -> None:
    """It would cost another pass over every weight."""
    scratch = Noted()
    w0, wr, ws = np.array([[1], [2], [3]], np.float32)
    run(replace(chunk(w0, wr, ws, "float32"), left=left), scratch)
    assert scratch.uses == {"difference", "moved"} | uses


@pytest.mark.parametrize("part", [0.0, 1e-6, 1e-3, 0.3, 1.0, 1.5])
def test_an_update_keeps_its_length_however_little_it_is_of_the_references(part: float) -> None:
    """What is nearly the initial weights is no sum of large numbers that cancel."""
    generator = np.random.default_rng(0)
    w0 = generator.standard_normal(10_000).astype(np.float32)
    wr = w0 + np.float32(1e-2) * generator.standard_normal(10_000).astype(np.float32)
    ws = (w0 + part * (wr.astype(np.float64) - w0)).astype(np.float32)
    found = run(chunk(w0, wr, ws, "float32"), Scratch()).sums[0]
    expected = np.square(ws.astype(np.float64) - w0).sum()
    assert found[blocks.SUBMITTED] == pytest.approx(expected, rel=1e-5, abs=0)


def test_a_tensor_that_lies_in_one_run_of_memory_has_the_sums_of_one_in_pieces(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(blocks, "BLOCK_ELEMENTS", 1 << 8)
    generator = np.random.default_rng(0)
    for shape, slices in (((7, 90), 7), ((5, 300), 5), ((3, 7, 90), 3), ((4000,), 1)):
        states = [generator.standard_normal(shape).astype(np.float32) for _ in range(3)]
        w0, wr, ws = states
        whole = chunk(w0, wr, ws, "float32", slices)
        half = shape[0] // 2
        parts = [
            [
                PieceArray(Box((low, *(0 for _ in shape[1:])), part.shape), "float32", part)
                for low, part in ((0, state[:half]), (half, state[half:]))
            ]
            for state in states
        ]
        cut_up = replace(whole, sources=(parts[0], parts[1], parts[2]))
        one, other = (run(each, Scratch()).sums for each in (whole, cut_up))
        assert one == pytest.approx(other, rel=1e-5)
        for column, (left, right) in enumerate(((ws, wr), (wr, w0))):
            exact = np.square(left.astype(float) - right).reshape(slices, -1).sum(axis=1)
            assert one[:, column] == pytest.approx(exact, rel=1e-5)


def test_sums_that_float32_can_hold_are_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "_correct", None)  # a second pass in float64
    assert three(sums([1], [2], [4])) == [[4.0, 1.0, 9.0]]


# --- memory that is read ----------------------------------------------------------------------------

FLOATS = 1 << 18  # 1 MiB


def resident(mapping: Array) -> int:
    """KiB of the mapping that are in this process's memory."""
    start = f"{mapping.ctypes.data:x}-"
    lines = Path("/proc/self/smaps").read_text().splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith(start))
    return next(int(line.split()[1]) for line in lines[at:] if line.startswith("Rss:"))


def mapped(path: Path, mode: Any) -> Array:
    np.ones(FLOATS, np.float32).tofile(path)
    array = np.memmap(path, np.uint8, mode)
    return np.asarray(array)


def compare_with_ones(raw: Array) -> Sums:
    submitted = raw.view(np.float32)
    zero = np.zeros(FLOATS, np.float32)
    return run(chunk(zero, zero + 1, submitted, "float32"), Scratch())


def test_what_was_read_of_a_file_leaves_memory_again(tmp_path: Path) -> None:
    raw = mapped(tmp_path / "weights", "r")
    assert raw[::1024].sum() >= 0 and resident(raw) >= 1024
    assert three(compare_with_ones(raw)) == [[0, FLOATS, FLOATS]]
    assert resident(raw) == 0
    assert raw.view(np.float32).sum() == FLOATS  # it is read again when it is needed


@pytest.mark.parametrize(("shift", "left"), [(0, 512), (100, 508)])
def test_only_what_was_read_leaves_memory(shift: int, left: int, tmp_path: Path) -> None:
    """Half of the file, from a quarter on; with a shift from the middle of a page, which goes too."""
    raw = mapped(tmp_path / "weights", "r")
    assert raw[::1024].sum() >= 0
    box = Box((0,), (FLOATS // 2,))
    offset = FLOATS // 4 + shift
    submitted = raw.view(np.float32)[offset : offset + FLOATS // 2]
    zero = np.zeros(FLOATS // 2, np.float32)
    parts = tuple([PieceArray(box, "float32", array)] for array in (zero, zero + 1, submitted))
    run(Chunk("w", box, (parts[0], parts[1], parts[2]), 0, 1), Scratch())
    assert resident(raw) == left


def copy_on_write(path: Path) -> Array:
    """Changed in memory only, as a mapping of mode "c" may be."""
    raw = mapped(path, "c")
    raw.view(np.float32)[:] = 2
    return raw


def anonymous(_: Path) -> Array:
    memory = mmap.mmap(-1, 4 * FLOATS)
    raw = np.frombuffer(memory, np.uint8)
    raw.view(np.float32)[:] = 2
    return raw


def plain(_: Path) -> Array:
    return np.full(FLOATS, 2, np.float32).view(np.uint8)


@pytest.mark.parametrize("make", [copy_on_write, anonymous, plain])
def test_memory_that_can_be_written_keeps_what_is_in_it(
    make: Callable[[Path], Array], tmp_path: Path
) -> None:
    raw = make(tmp_path / "weights")
    assert three(compare_with_ones(raw)) == [[FLOATS, FLOATS, 4 * FLOATS]]
    assert raw.view(np.float32).sum() == 2 * FLOATS
