"""What the final weights make of the tokens that were trained on: where left-out work shows first.

d = loss of a token under the submitted weights minus its loss under the reference's, both computed in
float32 by trusted code. An update's error moves d as far as it lies along the gradients of tokens. That is
where work lives that was left out, and where rounding, which has no preferred direction, mostly does not.

Two figures: the median of |d| over all sampled tokens; and for groups of tokens (those with the lowest
loss, the last positions, single rows of the batch, rare tokens) by how many standard errors their mean of
d differs from that of the rest. A group that was trained less has a loss that is higher.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from harness.verify.student import normal_of

Losses = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
Members = npt.NDArray[np.bool_]

#: Per cent of the tokens, those with the lowest loss.
LOWEST: Final = (2, 5, 10, 20, 30)
#: Per cent of the tokens, those that one expert alone would do for.
SUREST: Final = (5, 10, 20)
#: Positions at the end of a row.
LAST: Final = (1, 2, 4, 8)
POSITION_BLOCKS: Final = 8
#: Nats. A loss near 8 has a last place of 5e-7 in float32, and a forward pass rounds some of them away: not
#: at random, where all weights of one side are larger by a last place of a clipped norm.
RESOLUTION: Final = 1e-6
#: A group, or the rest, with fewer tokens says nothing.
MIN_TOKENS: Final = 30


@dataclass(frozen=True)
class Sample:
    """The tokens whose losses are compared.

    Attributes:
        targets: int64 [R, T], the tokens whose losses these are.
        rows: int64 [R], which row of its step's global batch each is.
        steps: int64 [R], the step that each was served in.
        global_batch: rows of a step.
        occurrences: int64 [vocabulary], how often each token was a target.
        margins: floating [R, T], how sure routers are of each token; None where there are none.
    """

    targets: Indices
    rows: Indices
    steps: Indices
    global_batch: int
    occurrences: Indices
    margins: Losses | None = None


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
    # By both together: a token that is low by the noise of one side alone would be in the group for it.
    level = submitted.astype(np.float64) + reference
    groups = [
        Group(name, z)
        for name, members in _groups(sample, level)
        if (z := _z(difference, members, sample.targets)) is not None
    ]
    return TokenShift(median, tuple(sorted(groups, key=lambda group: -abs(group.z))))


def _groups(sample: Sample, level: Floats) -> Iterator[tuple[str, Members]]:
    """Names, and bool [R, T] or what broadcasts to it."""
    positions = level.shape[1]
    for percent in LOWEST:
        limit = np.percentile(level, percent)
        yield f"the {percent} % of tokens with the lowest loss", level <= limit
    if (margins := sample.margins) is not None:
        for percent in SUREST:
            least = np.percentile(margins, 100 - percent)
            yield f"the {percent} % of tokens that routers are surest of", margins >= least
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
    yield "the second half of each step's rows", (sample.rows >= half)[:, None]
    for step in np.unique(sample.steps):
        yield f"step {step + 1}", (sample.steps == step)[:, None]
    octaves = np.frexp(sample.occurrences[sample.targets])[1]
    for octave in np.unique(octaves):
        low, high = 2 ** (int(octave) - 1), 2 ** int(octave) - 1
        times = f"{low}" if low == high else f"{low} to {high}"
        yield f"tokens that occur {times} times", octaves == octave


def _z(difference: Floats, members: Members, targets: Indices) -> float | None:
    """Mean of a group minus that of the rest, in standard errors; None for too small a group.

    What noise does to a token's embedding moves all its occurrences together, so they are one cluster. The
    variance is the jackknife's over clusters (each is left out once; MacKinnon, Nielsen and Webb 2023,
    https://doi.org/10.1016/j.jeconom.2022.04.001, "CV3"), and never less than that of independent tokens.
    Where a few clusters decide, it is itself a guess: then t is that of as many degrees of freedom, brought
    to the scale of a normal distribution.
    """
    inside = np.broadcast_to(members, difference.shape).ravel()
    values, clusters = difference.ravel(), targets.ravel()
    means, without, variance = [], [], 0.0
    for side in (inside, ~inside):
        counts = np.bincount(clusters, side)
        sums = np.bincount(clusters, side * values)
        size = counts.sum()
        if size < MIN_TOKENS or (size - counts).min() < 1:
            return None
        means.append(sums.sum() / size)
        without.append((sums.sum() - sums) / (size - counts))
        variance += float(values[side].var(ddof=1)) / size
    apart = float(means[0] - means[1])
    there = np.bincount(clusters) > 0
    moved = (without[0] - without[1])[there] - apart
    squares = np.square(moved)
    jackknife = (moved.size - 1) / moved.size * float(squares.sum())
    error = math.sqrt(max(jackknife, variance) + RESOLUTION**2)
    if jackknife <= variance:
        return apart / error
    return normal_of(apart / error, float(squares.sum()) ** 2 / float(np.square(squares).sum()))
