"""Words for findings: what was measured against what is allowed, and what the cause may be.

The cause is a guess that helps an author; no verdict rests on it.
"""

import math
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from harness.verify.figures import TensorComparison
from harness.verify.metrics import length_error

#: So many tensors are named.
WORST_SHOWN = 5
# Below this norm ratio a tensor is said not to have moved; it is rejected by its update error.
NOT_MOVED = 0.01


def movement(tensor: TensorComparison) -> str:
    """What a tensor did instead, and what often causes it."""
    ratio = tensor.norm_ratio
    if not tensor.moved:
        return "it moved although the reference's training does not move it"
    if ratio < NOT_MOVED:
        return f"it did not move (norm ratio {ratio:.2f}): is it trained?"
    # An update in the right direction has an error of |ratio - 1| and no more.
    if tensor.update_error <= 1.1 * length_error(tensor):
        return f"it moved {ratio:.3g} times as far, in the right direction: is its gradient scaled?"
    return f"norm ratio {ratio:.3g}"


def against(measured: float, allowed: float) -> str:
    """As "0.3 (allowed 0.1, 3x)"."""
    if not math.isfinite(measured):
        return f"{measured} (allowed {allowed:.3g})"
    return f"{measured:.3g} (allowed {allowed:.3g}, {measured / allowed:.3g}x)"


def names(tensors: Iterable[str]) -> str:
    """The first WORST_SHOWN, and how many more there are."""
    listed = list(tensors)
    shown = ", ".join(listed[:WORST_SHOWN])
    return shown if len(listed) <= WORST_SHOWN else f"{shown} and {len(listed) - WORST_SHOWN} more"


def indices(numbers: Sequence[int] | npt.NDArray[np.int64]) -> str:
    """The first eight."""
    return ", ".join(str(index) for index in numbers[:8]) + (", ..." if len(numbers) > 8 else "")
