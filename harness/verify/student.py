"""Student's t and the normal distribution: what is as unlikely in one as in the other."""

import math
from statistics import NormalDist

# Wallace 1959, https://doi.org/10.1214/aoms/1177706072: to a hundredth, from three degrees of freedom on.


def normal_of(t: float, freedom: float) -> float:
    """The z that is as unlikely as Student's t with so many degrees of freedom."""
    z = (8 * freedom + 1) / (8 * freedom + 3) * math.sqrt(freedom * math.log1p(t * t / freedom))
    return math.copysign(z, t)


def student_of(z: float, freedom: float) -> float:
    """The t that is as unlikely as z: the inverse of `normal_of`."""
    scaled = z * (8 * freedom + 3) / (8 * freedom + 1)
    return math.copysign(math.sqrt(freedom * math.expm1(scaled * scaled / freedom)), z)


def passed_at(rate: float, freedom: float) -> float:
    """What Student's t passes in `rate` of all cases, above 0 and below 1."""
    return student_of(NormalDist().inv_cdf(1 - rate), freedom)
