"""Comparisons of small states, given as arrays."""

from collections.abc import Mapping, Sequence

import numpy as np

from harness.tensors.boxes import TensorKind, TensorSpec
from harness.verify.compare import compare_states
from harness.verify.figures import StateComparison, TensorComparison
from tests.build_states import Array, Arrays, whole


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


def not_trained(tensor: TensorComparison) -> tuple[int, ...]:
    """Slices that stand still, or were turned away."""
    return tuple(sorted((*tensor.untouched_slices, *tensor.turned_slices)))
