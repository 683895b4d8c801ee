"""Matched filters: has a submission moved from the reference in the direction of a known approximation?

The norm of a difference cannot tell left-out work from honest noise of the same size, and in bfloat16 that
is some per cent of an update. Its direction can: noise has components in all of a hundred thousand sampled
coordinates, and a known approximation (`reference/filters.py`) has one direction in all of them together.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


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
    that is too long has to some extent the direction of anything. For what is left z is Σ eᵢdᵢ / √Σ eᵢ²dᵢ²,
    the self-normalised sum: whatever their sizes, products of symmetric independent noise are as far from
    zero as a normal variable is at most (https://doi.org/10.1007/978-3-540-85636-8, theorem 2.14), so
    that a few coordinates that are far off, as after a flipped tie, carry nothing.

    Args:
        directions: floating [S] by what is left out.
        steps: floating [K, S], the reference's updates.
        off: floating [S], ws − wr; infinite z where it is not finite.
    """
    if not np.isfinite(off).all():
        return tuple(Along(words, np.inf) for words in directions)
    span = np.linalg.qr(steps.astype(np.float64).T).Q
    rest = _beside(off.astype(np.float64), span)
    found = [
        Along(words, _z(rest * _beside(each.astype(np.float64), span)))
        for words, each in directions.items()
    ]
    return tuple(sorted(found, key=lambda along: -along.z))


def _beside(values: Floats, span: Floats) -> Floats:
    """What does not lie in the span of orthonormal columns."""
    beside: Floats = values - span @ (values @ span)
    return beside


def _z(products: Floats) -> float:
    scale = float(np.sqrt(np.square(products).sum()))
    return float(products.sum()) / scale if scale > 0 else 0.0
