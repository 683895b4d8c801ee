"""A control chart of one hardware class: which node is slower, faster or noisier than the others.

Every node judges the same file at intervals, a *canary*; of each of its runs the speed is known. Speeds are
compared as logarithms, so that 0.01 is one percent.

- **Level.** A node's mean over its last canaries against the median of the other nodes'. Nodes of one class
  may differ by `slack`; what is beyond it is measured in standard errors, from how far canaries of one node
  lie apart.
- **Noise.** The variance among the runs of a node's canaries against the mean of the other nodes'.

How many standard errors, and which ratio of variances, no equal nodes would show is drawn: `DRAWS` classes
of just as many equal nodes with just as many canaries and runs, normally distributed. In a class of equal
nodes one review takes an innocent node for an outlier with a probability of at most `false_alarms`, half of
it for the level and half for the noise, whatever the number of nodes; `slack` makes it rarer.

One bad node moves the others' centre, so the farthest alone is called an outlier, and the rest is looked at
again without it. With fewer than three nodes nobody can say which of them is the odd one.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

DRAWS: Final = 40_000
CHUNK: Final = 4_000
FEWEST_NODES: Final = 3
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Rule:
    """How strictly nodes are compared.

    Attributes:
        window: a node's last canaries that count.
        fewest: canaries that a node needs before it is compared.
        slack: relative difference of speed that equal machines may have.
        calm: relative noise of runs that is nobody's fault.
        false_alarms: of one review of one class.
    """

    window: int = 5
    fewest: int = 3
    slack: float = 0.01
    calm: float = 0.005
    false_alarms: float = 0.001


@dataclass(frozen=True)
class Reading:
    """One canary of a node: when, and the speed of its runs, two at least."""

    at: float
    speeds: tuple[float, ...]

    @property
    def level(self) -> float:
        return float(np.log(self.speeds).mean())

    @property
    def variance(self) -> float:
        return float(np.log(self.speeds).var(ddof=1))


@dataclass(frozen=True)
class Outlier:
    """A node that is not like its class.

    Attributes:
        measured: the relative difference of speed, or the noise of its runs.
        allowed: what it would have had to be within.
        good_until: when its last canary was that looked like the others' by itself; 0: none did.
    """

    node: str
    what: Literal["slower", "faster", "noisier"]
    measured: float
    allowed: float
    good_until: float

    def __str__(self) -> str:
        if self.what == "noisier":
            found = f"its runs scatter by {100 * self.measured:.2f} %"
        else:
            found = f"it is {100 * abs(self.measured):.2f} % {self.what} than its class"
        return f"{found}, allowed are {100 * self.allowed:.2f} %"


def review(readings: Mapping[str, Sequence[Reading]], rule: Rule) -> tuple[Outlier, ...]:
    """The outliers of one class, the farthest first.

    Args:
        readings: of each node, oldest first.
        rule: how strictly.
    """
    known = {
        node: tuple(of_node[-rule.window :])
        for node, of_node in readings.items()
        if len(of_node) >= rule.fewest
    }
    found: list[Outlier] = []
    while len(known) >= FEWEST_NODES and (worst := _worst(known, readings, rule)) is not None:
        found.append(worst)
        del known[worst.node]
    return tuple(found)


def _worst(
    known: Mapping[str, Sequence[Reading]],
    history: Mapping[str, Sequence[Reading]],
    rule: Rule,
) -> Outlier | None:
    """The node that is farthest beyond what is allowed, if any is."""
    shape = tuple(len(of_node) for of_node in known.values())
    runs = min(len(each.speeds) for of_node in known.values() for each in of_node)
    errors, ratio = limits(shape, runs, rule.false_alarms)
    beyond: list[tuple[float, Outlier]] = []
    for node, mine in known.items():
        others = [of_node for each, of_node in known.items() if each != node]
        beyond += [
            _level_of(node, mine, others, history[node], rule, errors),
            _noise_of(node, mine, others, history[node], rule, ratio),
        ]
    excess, farthest = max(beyond, key=lambda each: each[0])
    return farthest if excess > 1 else None


def _level_of(
    node: str,
    mine: Sequence[Reading],
    others: Sequence[Sequence[Reading]],
    history: Sequence[Reading],
    rule: Rule,
    errors: float,
) -> tuple[float, Outlier]:
    """How many times what is allowed it is away, and that in words."""
    levels = [np.array([one.level for one in of_node]) for of_node in others]
    centre = float(np.median([of_node.mean() for of_node in levels]))
    scatter = _scatter(levels)
    away = float(np.mean([one.level for one in mine])) - centre
    allowed = rule.slack + errors * scatter / len(mine) ** 0.5
    # One canary by itself scatters more than the mean of several.
    near = rule.slack + errors * scatter
    good = [one.at for one in history if abs(one.level - centre) <= near]
    what: Literal["slower", "faster"] = "slower" if away < 0 else "faster"
    return abs(away) / allowed, Outlier(node, what, away, allowed, max(good, default=0.0))


def _noise_of(
    node: str,
    mine: Sequence[Reading],
    others: Sequence[Sequence[Reading]],
    history: Sequence[Reading],
    rule: Rule,
    ratio: float,
) -> tuple[float, Outlier]:
    variance = float(np.mean([one.variance for one in mine]))
    theirs = float(np.mean([one.variance for of_node in others for one in of_node]))
    allowed = max(ratio * theirs, rule.calm**2)
    good = [one.at for one in history if one.variance <= allowed]
    outlier = Outlier(node, "noisier", variance**0.5, allowed**0.5, max(good, default=0.0))
    return (variance / allowed) ** 0.5, outlier


def _scatter(levels: Collection[Floats]) -> float:
    """Standard deviation of canaries of one node, from several nodes."""
    squares = sum(float(((one - one.mean()) ** 2).sum()) for one in levels)
    return float((squares / sum(len(one) - 1 for one in levels)) ** 0.5)


@lru_cache(maxsize=64)
def limits(shape: tuple[int, ...], runs: int, false_alarms: float) -> tuple[float, float]:
    """Standard errors, and ratio of variances, that the farthest of equal nodes seldom passes.

    Args:
        shape: canaries of each node.
        runs: of each canary.
        false_alarms: half of it is the probability to pass the one, half to pass the other.
    """
    random = np.random.default_rng(0)
    drawn = [_draw(random, np.array(shape), runs, CHUNK) for _ in range(DRAWS // CHUNK)]
    share = 1 - false_alarms / 2
    farthest, noisiest = (np.concatenate(each) for each in zip(*drawn, strict=True))
    return float(np.quantile(farthest, share)), float(np.quantile(noisiest, share))


def _draw(
    random: np.random.Generator, shape: npt.NDArray[np.int64], runs: int, count: int
) -> tuple[Floats, Floats]:
    """Of `count` classes of equal nodes: standard errors of the farthest, ratio of the noisiest."""
    nodes = len(shape)
    means = random.standard_normal((count, nodes)) / np.sqrt(shape)
    squares = random.chisquare(shape - 1, (count, nodes))
    freedom = shape * (runs - 1)
    variances = random.chisquare(freedom, (count, nodes)) / freedom
    errors = np.zeros(count)
    ratios = np.zeros(count)
    weights = shape / shape.sum()
    for node in range(nodes):
        others = np.arange(nodes) != node
        away = np.abs(means[:, node] - np.median(means[:, others], axis=1)) * np.sqrt(shape[node])
        scatter = np.sqrt(squares[:, others].sum(axis=1) / (shape[others] - 1).sum())
        errors = np.maximum(errors, away / scatter)
        theirs = (variances[:, others] * weights[others]).sum(axis=1) / weights[others].sum()
        ratios = np.maximum(ratios, variances[:, node] / theirs)
    return errors, ratios
