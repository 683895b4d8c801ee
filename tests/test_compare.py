"""The streamed comparison gives the figures of a plain whole-tensor computation, and finds cheats."""

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from build_states import decode, encode, pieces, random_boxes, whole
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import Code, JudgeError
from harness.verify import blocks
from harness.verify.compare import SLICE_FLOOR, TensorComparison, compare_states
from harness.verify.pieces import Box, StoredPiece, TensorKind, TensorSpec
from harness.verify.states import as_array, as_float32


def compare_one(
    w0: np.ndarray,
    wr: np.ndarray,
    ws: np.ndarray,
    kind: TensorKind = TensorKind.PLAIN,
    occurrences: np.ndarray | None = None,
) -> TensorComparison:
    layout = {
        "w": TensorSpec(w0.shape, "float32", kind),
        "other": TensorSpec((1,), "float32"),  # so that the reference as a whole moves
    }
    states = [
        whole({"w": w.astype(np.float32), "other": np.array([x], np.float32)}, layout)
        for w, x in ((w0, 0), (wr, 1), (ws, 1))
    ]
    return compare_states(*states, layout, occurrences=occurrences).tensors[0]


@settings(max_examples=60, deadline=None)
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
    states = [
        {"w": pieces("w", w, dtype, random_boxes(shape, rng, int(rng.integers(6))), shift)}
        for w in stored
    ]
    w0, wr, ws = (decode(w, dtype) for w in stored)
    with pytest.MonkeyPatch.context() as patch:  # blocks much smaller than the tensor
        patch.setattr(blocks, "BLOCK_ELEMENTS", block)
        patch.setattr("harness.verify.compare.JOB_ELEMENTS", 5 * block)
        result = compare_states(*states, layout, threads=2)
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
    floor = SLICE_FLOOR * np.sqrt(np.mean(slice_moved**2))
    errors = np.linalg.norm(rows[2] - rows[1], axis=1) / np.maximum(slice_moved, floor)
    assert tensor.slice_errors == pytest.approx(errors, rel=1e-5)
    assert tensor.worst_slice is not None
    assert tensor.worst_slice.update_error == pytest.approx(errors.max(), rel=1e-5)


def test_large_tensors_are_cut_into_jobs_and_blocks_without_loss() -> None:
    """Real block sizes: rows below and above a block, and a column-wise cut of the submission."""
    rng = np.random.default_rng(0)
    layout = {
        "embedding": TensorSpec((9_001, 700), "float32", TensorKind.EMBEDDING),
        "experts": TensorSpec((3, 1_100, 601), "float32", TensorKind.EXPERTS),
        "bias": TensorSpec((300_001,), "float32"),
    }
    arrays = [{n: rng.standard_normal(s.shape, dtype=np.float32) for n, s in layout.items()}]
    for size in (0.01, 0.001):
        arrays.append(
            {n: a + np.float32(size) * rng.standard_normal(a.shape, dtype=np.float32)
             for n, a in arrays[-1].items()}
        )  # fmt: skip
    columns = [Box((0, 0), (9_001, 333)), Box((0, 333), (9_001, 367))]
    states = [whole(a, layout) for a in arrays]
    states[2]["embedding"] = pieces("embedding", arrays[2]["embedding"], "float32", columns)
    one = compare_states(*states, layout, threads=1)
    two = compare_states(*states, layout, threads=2)
    assert one == two  # the order of additions does not depend on the threads
    for tensor in two.tensors:
        w0, wr, ws = (a[tensor.name].astype(np.float64) for a in arrays)
        expected = np.linalg.norm(ws - wr) / np.linalg.norm(wr - w0)
        assert tensor.update_error == pytest.approx(expected, rel=1e-6)
        if tensor.slice_errors.size:
            rows = [w.reshape(len(w), -1) for w in (w0, wr, ws)]
            moved = np.linalg.norm(rows[1] - rows[0], axis=1)
            floor = SLICE_FLOOR * np.sqrt(np.mean(moved**2))
            slices = np.linalg.norm(rows[2] - rows[1], axis=1) / np.maximum(moved, floor)
            assert tensor.slice_errors == pytest.approx(slices, rel=1e-5)


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


def test_one_row_of_a_rare_token_may_differ_as_a_near_tie_of_the_router_makes_it() -> None:
    rng = np.random.default_rng(2)
    w0 = rng.standard_normal((100, 64))
    wr = w0 + 0.1 * rng.standard_normal((100, 64))
    wr[7] = w0[7] + 0.002 * rng.standard_normal(64)  # 2 % of the others
    ws = wr.copy()
    ws[7] = w0[7] + 0.002 * rng.standard_normal(64)  # in another direction altogether
    tensor = compare_one(w0, wr, ws, TensorKind.EMBEDDING)
    assert tensor.slice_errors.max() < 0.05
    assert tensor.still_slices == ()


def one_row_in_another_direction(row: int, occurrences: np.ndarray | None) -> TensorComparison:
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
    assert compare_one(w0, wr, ws, TensorKind.EMBEDDING).still_slices == (7,)
    # An expert that got a single token by a near tie may have got none.
    assert compare_one(w0, wr, ws, TensorKind.EXPERTS).still_slices == ()
    ws[9] = w0[9]
    assert compare_one(w0, wr, ws, TensorKind.EXPERTS).still_slices == (9,)


def test_a_tensor_that_the_reference_left_alone_is_reported_not_skipped() -> None:
    w0 = np.ones((4, 4))
    equal = compare_one(w0, w0, w0, TensorKind.EXPERTS)
    assert (equal.moved, equal.update_error, equal.norm_ratio) == (False, 0, 1)
    changed = compare_one(w0, w0, w0 + 1e-6, TensorKind.EXPERTS)
    assert (changed.moved, changed.update_error) == (False, math.inf)
    assert changed.slice_errors.max() == math.inf


@pytest.mark.parametrize("dtype", ["int64", "bool", "uint8", "int16", "float8_e4m3fn"])
def test_tensors_that_are_not_floating_must_be_equal_bit_by_bit(dtype: str) -> None:
    stored = np.arange(60, dtype=np.int64 if dtype == "int64" else np.uint8).reshape(5, 12)
    if dtype == "int16":
        stored = stored.astype(np.int16)
    layout = {"n": TensorSpec((5, 12), dtype), "w": TensorSpec((2,), "float32")}
    other = stored.copy()
    other[4, 11] ^= 1

    def state(n: np.ndarray, w: float, rng: np.random.Generator) -> dict[str, list[StoredPiece]]:
        return {
            "n": pieces("n", n, dtype, random_boxes(n.shape, rng, 3)),
            "w": whole({"w": np.full(2, w)}, {"w": layout["w"]})["w"],
        }

    rng = np.random.default_rng(0)
    trusted = (state(stored, 0, rng), state(stored, 1, rng))
    assert compare_states(*trusted, state(stored, 1, rng), layout).tensors[0].different == 0
    tensor = compare_states(*trusted, state(other, 1, rng), layout).tensors[0]
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
    states = [
        whole({"none": np.empty((0, 4)), "one": np.array(x, np.float32)}, layout)
        for x in (1.0, 2.0, 2.5)
    ]
    none, one = compare_states(*states, layout).tensors
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
from harness.verify.pieces import Box, StoredPiece, TensorSpec
def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(l.split()[1] for l in lines if l.startswith("VmHWM"))) // 1024
rows, columns = 12_000, 4_096
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
    """590 MB of weights in three files, mapped: resident memory, pages of the files included."""
    for index, name in enumerate(("w0", "wr", "ws")):
        block = np.full((1_000, 4_096), index, np.float32)
        with (tmp_path / name).open("wb") as file:
            for _ in range(12):
                file.write(block.data)
    command = [sys.executable, "-c", MEMORY_PROBE, str(tmp_path)]
    grown = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert grown < 250  # MiB; the bound of 512 MiB holds for any size, 590 MB would not pass here
