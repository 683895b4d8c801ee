"""What the final weights make of the tokens that were trained on: where left-out work shows first.

d = loss of a token under the submitted weights minus its loss under the reference's, both computed in
float32 by trusted code. An update's error moves d as far as it lies along the gradients of tokens. That is
where work lives that was left out, and where rounding, which has no preferred direction, mostly does not.

Two figures: the median of |d| over all sampled tokens; and for groups of tokens (those with the lowest loss,
the last positions, single rows of the batch, rare tokens) by how many standard errors their mean of d
differs from that of the rest. A group that was trained less has a loss that is higher.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Losses = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
Members = npt.NDArray[np.bool_]

#: Per cent of the tokens, those with the lowest loss.
LOWEST: Final = (2, 5, 10, 20, 30)
#: Positions at the end of a row.
LAST: Final = (1, 2, 4, 8)
POSITION_BLOCKS: Final = 8
#: A group, or the rest, with fewer tokens says nothing.
MIN_TOKENS: Final = 30


@dataclass(frozen=True)
class Sample:
    """The tokens whose losses are compared.

    Attributes:
        tokens: int64 [R, T + 1], the sampled rows as they were served.
        rows: int64 [R], which row of its step's global batch each is.
        steps: int64 [R], the step that each was served in.
        global_batch: rows of a step.
        occurrences: int64 [vocabulary], how often each token was trained on.
    """

    tokens: Indices
    rows: Indices
    steps: Indices
    global_batch: int
    occurrences: Indices


@dataclass(frozen=True)
class Group:
    """Some tokens beside all others.

    Attributes:
        name: in words, as in "the 10 % of tokens with the lowest loss".
        z: difference of the means of d, the group's minus the rest's, in standard errors.
    """

    name: str
    z: float


@dataclass(frozen=True)
class TokenShift:
    """Attributes:
    median: of |d|, nats; infinite where a loss is not finite.
    groups: all that were tested, the one that differs most first; none where a loss is not finite.
    """

    median: float
    groups: tuple[Group, ...]

    @property
    def worst(self) -> float:
        """The largest |z|; infinite where a loss is not finite."""
        if math.isinf(self.median):
            return math.inf
        return max((abs(group.z) for group in self.groups), default=0.0)


def token_shift(sample: Sample, reference: Losses, submitted: Losses) -> TokenShift:
    """Compare the losses of the same tokens.

    Args:
        reference, submitted: float32 [R, T], nats, of the token after each position.
    """
    if not np.isfinite(submitted).all():
        return TokenShift(math.inf, ())
    difference = submitted.astype(np.float64) - reference
    median = float(np.median(np.abs(difference))) if difference.size else 0.0
    # By the mean of both: a token that is low by the noise of one side alone would be in the group for it.
    level = (submitted.astype(np.float64) + reference) / 2
    groups = [
        Group(name, z)
        for name, members in _groups(sample, level)
        if (z := _z(difference, members)) is not None
    ]
    return TokenShift(median, tuple(sorted(groups, key=lambda group: -abs(group.z))))


def _groups(sample: Sample, level: Floats) -> Iterator[tuple[str, Members]]:
    """Names, and bool [R, T] or what broadcasts to it."""
    rows, positions = level.shape
    for percent in LOWEST:
        limit = np.percentile(level, percent)
        yield f"the {percent} % of tokens with the lowest loss", level <= limit
    place = np.arange(positions)
    for count in LAST:
        name = "the last position" if count == 1 else f"the last {count} positions"
        yield f"{name} of a row", place >= positions - count
    for block in range(POSITION_BLOCKS):
        low, high = (positions * edge // POSITION_BLOCKS for edge in (block, block + 1))
        yield f"positions {low + 1} to {high} of a row", (place >= low) & (place < high)
    for row in range(sample.global_batch):
        yield f"row {row + 1} of each step", (sample.rows == row)[:, None]
    half = sample.global_batch // 2
    if half > 1:
        yield "the second half of each step's rows", (sample.rows >= half)[:, None]
    for step in np.unique(sample.steps):
        yield f"step {step + 1}", (sample.steps == step)[:, None]
    octaves = np.frexp(sample.occurrences[sample.tokens[:, 1:]])[1]
    for octave in np.unique(octaves):
        low, high = 2 ** (int(octave) - 1), 2 ** int(octave) - 1
        times = f"{low}" if low == high else f"{low} to {high}"
        yield f"tokens that occur {times} times", octaves == octave


def _z(difference: Floats, members: Members) -> float | None:
    """Welch's t statistic, https://doi.org/10.1093/biomet/34.1-2.28; None for too small a group."""
    inside = np.broadcast_to(members, difference.shape)
    group, rest = difference[inside], difference[~inside]
    if min(group.size, rest.size) < MIN_TOKENS:
        return None
    error = math.sqrt(group.var(ddof=1) / group.size + rest.var(ddof=1) / rest.size)
    apart = float(group.mean() - rest.mean())
    if error == 0:
        return 0.0 if apart == 0 else math.copysign(math.inf, apart)
    return apart / error
