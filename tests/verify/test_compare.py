"""The streamed comparison gives the figures of a plain whole-tensor computation, and finds cheats."""

import math
import subprocess
import sys
from collections.abc import Iterator, Sequence
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
from harness.verify.compare import _in_order, _Pieces, compare_states
from harness.verify.figures import TensorComparison
from harness.verify.sums import Chunk, Sums
from tests.build_states import Array, Arrays, decode, encode, pieces, random_boxes, whole
from tests.verify.comparing import compare_arrays, compare_one


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
