"""Step attribution: which of the reference's steps are in a submitted update, and how much of each.

On a fixed random sample of coordinates the reference records its update u_k of every step k. Least
squares of the submitted update (ws − w0) on the u_k gives a weight per step: about 1 for honest
training, 0 for a skipped step, 2 for a step done twice, 0.9 for a learning rate of 0.9 times the
benchmark's. A norm cannot separate these from rounding noise; the direction of each step can.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from harness.errors import Code, JudgeError
from harness.tensors.boxes import State, StoredPiece, TensorSpec
from harness.tensors.stored import as_array, as_float32, is_floating

Float32s = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
# For every floating tensor the sorted flat (row-major) indices of the sampled elements.
Coordinates = Mapping[str, Indices]

MIN_PER_TENSOR = 8
# Beyond this condition number of the normalised steps, noise decides the weights.
MAX_CONDITION = 1e4
# A weight within this of 0 or 2 is put into words as a missing step or one that counts twice.
NEAR = 0.25


@dataclass(frozen=True)
class Attribution:
    """How much of each reference step a submission's update holds.

    Attributes:
        weights: one a step; NaN where it could not be determined.
        condition: condition number of the matrix of normalised step updates (1: orthogonal).
        conclusive: False where the reference's own steps cannot be told apart, so that the weights
            say nothing about the submission; `reason` says why.
        reason: a sentence, empty if conclusive.
    """

    weights: tuple[float, ...]
    condition: float
    conclusive: bool = True
    reason: str = ""


def draw_coordinates(layout: Mapping[str, TensorSpec], samples: int, seed: int) -> Coordinates:
    """Random elements, without repetition, in proportion to the tensors' sizes; sorted by name.

    Args:
        layout: the benchmark's tensors; only floating ones are sampled.
        samples: about how many in all. Every tensor gets at least MIN_PER_TENSOR (or all it has).
        seed: any non-negative integer; the same seed draws the same coordinates.
    """
    generator = np.random.default_rng(seed)
    sizes = {
        name: math.prod(spec.shape)
        for name, spec in sorted(layout.items())
        if is_floating(spec.dtype)
    }
    total = max(1, sum(sizes.values()))
    drawn: dict[str, Indices] = {}
    for name, size in sorted(sizes.items()):
        if not size:
            continue
        count = min(size, max(MIN_PER_TENSOR, round(samples * size / total)))
        drawn[name] = np.sort(generator.choice(size, count, replace=False, shuffle=False))
    return drawn


def gather(state: State, coordinates: Coordinates) -> Float32s:
    """Values of a state at the coordinates.

    Args:
        state: with all tensors of `coordinates`, in whatever boxes.

    Returns:
        float32 [S], the tensors in the order of their sorted names, each in the order of its
        indices: the order in which the reference records.

    Raises:
        JudgeError: a coordinate is in no piece, or in two (form checks come before this).
    """
    values = [_gather_tensor(state[name], indices) for name, indices in sorted(coordinates.items())]
    return np.concatenate(values) if values else np.empty(0, np.float32)


def _gather_tensor(pieces: Sequence[StoredPiece], indices: Indices) -> Float32s:
    values = np.empty(len(indices), np.float32)
    found = np.zeros(len(indices), np.int64)
    for piece in pieces:
        if not piece.box.numel:
            continue
        # The indices are sorted and row-major, so a piece's rows are one range of them.
        row = math.prod(piece.tensor_shape[1:])
        rows = (piece.box.offset[0], piece.box.shape[0]) if piece.box.shape else (0, 1)
        low, high = np.searchsorted(indices, (rows[0] * row, (rows[0] + rows[1]) * row))
        position = np.unravel_index(indices[low:high], piece.tensor_shape or (1,))
        local = [
            axis - start for axis, start in zip(position, piece.box.offset or (0,), strict=True)
        ]
        sizes = piece.box.shape or (1,)
        inside = np.ones(high - low, bool)
        for axis, size in zip(local, sizes, strict=True):
            inside &= (axis >= 0) & (axis < size)
        array = as_array(piece).reshape(sizes)
        picked = array[tuple(axis[inside] for axis in local)]
        values[low:high][inside] = as_float32(picked, piece.dtype)
        found[low:high] += inside
    if not (found == 1).all():
        raise JudgeError(Code.INTERNAL, "a state does not cover the sampled coordinates once")
    return values


def attribute(
    step_updates: npt.NDArray[np.floating], observed: npt.NDArray[np.floating]
) -> Attribution:
    """Least squares of a submitted update on the reference's step updates, in float64.

    The columns are normalised first, so `condition` does not depend on the size of a step. The
    K x K normal matrix is enough: up to MAX_CONDITION, squaring costs no digits that matter here.

    Args:
        step_updates: floating [K, S], u_k of every step k at the sampled coordinates.
        observed: floating [S], ws − w0 at the same coordinates.
    """
    steps = len(step_updates)
    nothing = tuple([math.nan] * steps)
    columns = step_updates.astype(np.float64)
    norms = np.sqrt(np.vecdot(columns, columns))
    unmoved = [str(step + 1) for step in np.flatnonzero(~(norms > 0))]
    if not steps or unmoved:
        which = f"step {', '.join(unmoved)}" if unmoved else "no step"
        reason = f"{which} of the reference moved none of the sampled weights"
        reason = reason if unmoved else "the reference recorded no steps"
        return Attribution(nothing, math.inf, False, reason)
    columns /= norms[:, None]
    values, vectors = np.linalg.eigh(columns @ columns.T)
    condition = math.sqrt(values[-1] / values[0]) if values[0] > 0 else math.inf
    if condition > MAX_CONDITION:
        reason = f"the reference's steps are too much alike (condition {condition:.2g})"
        return Attribution(nothing, condition, False, reason)
    target = observed.astype(np.float64)
    if not np.isfinite(target).all():
        return Attribution(nothing, condition)
    fitted = vectors @ ((vectors.T @ (columns @ target)) / values)
    return Attribution(
        tuple(float(weight) for weight in fitted / norms),
        condition,
    )


def explain_weights(weights: Sequence[float], allowed: float) -> str:
    """Step weights in words, for an author who looks for the bug. A guess, never a check.

    Args:
        weights: one a step, at least one of them further than `allowed` from 1.
        allowed: the tolerance of a weight's distance from 1.
    """
    values: Floats = np.asarray(weights)
    steps = len(values)
    if not np.isfinite(values).all():
        return "the weights of the steps cannot be determined"
    if (np.abs(values) < NEAR).all():
        return f"none of the {steps} steps is in the result: is the model that trains returned?"
    mean, spread = float(values.mean()), float(np.ptp(values))
    if steps > 1 and spread <= max(allowed, abs(mean - 1) / 2):
        return (
            f"every step has weight {mean:.2f}: as if the learning rate were about {mean:.2f} times the "
            "benchmark's"
        )
    said = [_explain_step(step, float(weight), steps) for step, weight in enumerate(values, 1)]
    sure = [sentence for sentence in said if sentence]
    if sure:
        return "; ".join(sure[:4])
    worst = np.argsort(-np.abs(values - 1))[:4]
    return "weights away from 1: " + ", ".join(
        f"step {step + 1} of {steps} has {values[step]:.3g}"
        for step in sorted(worst)
        if abs(values[step] - 1) > allowed
    )


def _explain_step(step: int, weight: float, steps: int) -> str:
    if abs(weight) < NEAR:
        return f"step {step} of {steps} is missing (weight {weight:z.2f})"
    if abs(weight - 2) < NEAR:
        return f"step {step} of {steps} counts twice (weight {weight:z.2f})"
    return ""
