"""Matched filters: has a submission moved from the reference in the direction of a known approximation?

The norm of a difference cannot tell left-out work from honest noise of the same size, and in bfloat16 that
is some per cent of an update. Its direction can: noise has components in all of a hundred thousand sampled
coordinates, and a known approximation (`reference/filters.py`) has one direction in all of them together.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
#: Times the usual deviation: what is further off counts less. From 2 to 10 power hardly depends on it.
USUAL: Final = 3.0


@dataclass(frozen=True)
class Along:
    """Attributes:
    left_out: what would be left out, in words.
    z: how far the submission went that way, in standard errors; 0 without a direction.
    """

    left_out: str
    z: float


def look_along(
    directions: Mapping[str, npt.NDArray[np.floating]],
    steps: npt.NDArray[np.floating],
    off: npt.NDArray[np.floating],
) -> tuple[Along, ...]:
    """Project a submission's deviation on every direction; the one that it follows most comes first.

    What lies along the reference's own steps is taken out of both: weights of steps say that, and a step
    that is too long has to some extent the direction of anything.

    For what is left, e along d, z is Σ wᵢeᵢdᵢ / √Σ (wᵢeᵢdᵢ)², with wᵢ = 1 / (eᵢ² + (3·median |e|)²), the
    score of a Cauchy distribution: as in its tails, rounding and flipped ties move some weights a thousand
    times as far as others. Weights know how far off a coordinate is, and not on which side. So where noise
    is as likely on either, z is a sum of fair signs over the root of its variance, and as far from zero as
    a normal variable is at most (https://doi.org/10.1007/978-3-540-85636-8, theorem 2.14).

    Of the steps that were looked at the one that says most is left aside. A near tie that rounding decides
    otherwise sends a token elsewhere, and all that this changes can lie along the direction of its step.

    Args:
        directions: floating [L, S] by what is left out, of L steps.
        steps: floating [K, S], the reference's updates.
        off: floating [S], ws − wr; infinite z where it is not finite.
    """
    if not np.isfinite(off).all():
        return tuple(Along(words, np.inf) for words in directions)
    span = span_of(steps)
    scores = _scores(beside(off, span))
    found = [
        Along(words, _but_the_most([z_of(products) for products in scores * beside(looked, span)]))
        for words, looked in directions.items()
    ]
    return tuple(sorted(found, key=lambda along: -along.z))


def _but_the_most(found: Sequence[float]) -> float:
    """Of the z of several steps one for all of them but the largest; of one step its own."""
    if len(found) == 1:
        return found[0]
    return (sum(found) - max(found)) / math.sqrt(len(found) - 1)


def _scores(off: Floats) -> Floats:
    """wᵢeᵢ, in units of the usual deviation: that of the coordinates that are off at all."""
    sizes = np.abs(off)
    usual = float(np.median(sizes[sizes > 0])) if sizes.any() else 1.0
    units = off / (USUAL * usual)
    scores: Floats = units / (np.square(units) + 1)
    return scores


def span_of(steps: npt.NDArray[np.floating]) -> Floats:
    """Orthonormal columns [S, K] that span steps [K, S]."""
    span: Floats = np.linalg.qr(steps.astype(np.float64).T).Q
    return span


def beside(values: npt.NDArray[np.floating], span: Floats) -> Floats:
    """What does not lie in the span, of [S] or of every row of [L, S]."""
    exact = values.astype(np.float64)
    rest: Floats = exact - exact @ span @ span.T
    return rest


def z_of(products: Floats) -> float:
    """Their sum, in standard errors; 0 where all are 0."""
    scale = float(np.sqrt(np.square(products).sum()))
    return float(products.sum()) / scale if scale > 0 else 0.0
