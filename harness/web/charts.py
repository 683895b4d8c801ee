"""Geometry of the charts: numbers in, places in a drawing out. Templates draw them, as inline SVG."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from harness.board.figures import percent
from harness.board.rows import BoardRow
from harness.result import EvaluationResult, RunResult
from harness.verify.metrics import exceeds
from harness.web.boards import Dot, RecordRow
from harness.web.words import check_name, day, when

#: A bar of a check ends at so many times what is allowed; farther out is simply over.
BAR_REACH: Final = 1.5
#: What a chart spans at least: of a season that has just begun there is little to see.
LEAST_SECONDS: Final = 3_600.0


@dataclass(frozen=True)
class Tick:
    """A line of the grid with its label."""

    place: float
    label: str


@dataclass(frozen=True)
class Point:
    """A dot that links to its submission."""

    x: float
    y: float
    submission: int
    title: str
    record: bool


@dataclass(frozen=True)
class RecordChart:
    """The record as a step line, accepted submissions as dots."""

    width: int
    height: int
    left: int
    bottom: int
    line: str
    area: str
    points: tuple[Point, ...]
    across: tuple[Tick, ...]
    up: tuple[Tick, ...]


def record_chart(
    records: Sequence[RecordRow], dots: Sequence[Dot], now: float, *, wide: bool
) -> RecordChart | None:
    """The chart for a broad or a narrow window; None while there is no record."""
    if not records:
        return None
    width, height = (960, 260) if wide else (340, 220)
    left, right, top, bottom = 52, width - 12, 14, height - 30
    first = min([records[0].at, *(dot.at for dot in dots), now - LEAST_SECONDS])
    last = max([now, *(dot.at for dot in dots)])
    scores = [*(row.score for row in records), *(dot.score for dot in dots)]
    ups = nice_ticks(min(scores), max(scores), 4 if wide else 3)
    low, high = ups[0], ups[-1]

    def x(at: float) -> float:
        return round(left + (right - left) * (at - first) / (last - first), 1)

    def y(score: float) -> float:
        return round(bottom - (bottom - top) * (score - low) / (high - low), 1)

    line = f"M{x(records[0].at)} {y(records[0].score)}"
    for row in records[1:]:
        line += f"H{x(row.at)}V{y(row.score)}"
    line += f"H{right}"
    led = {row.submission for row in records}
    points = [
        Point(x(dot.at), y(dot.score), dot.submission, _said(dot), False)
        for dot in dots
        if dot.submission not in led
    ]
    points += [
        Point(x(row.at), y(row.score), row.submission, f"record: {_said(row)}", True)
        for row in records
    ]
    steps = 5 if wide else 2
    return RecordChart(
        width=width,
        height=height,
        left=left,
        bottom=bottom,
        line=line,
        area=f"{line}V{bottom}H{x(records[0].at)}Z",
        points=tuple(points),
        across=_times(first, last, steps, x),
        up=tuple(Tick(y(value), _share_label(value, ups)) for value in ups),
    )


def nice_ticks(low: float, high: float, about: int) -> list[float]:
    """Round values that hold everything from `low` to `high`, with room where all is the same."""
    span = high - low or abs(high) * 0.1 or 0.01
    step = 10 ** math.floor(math.log10(span / about))
    step *= next(factor for factor in (1, 2, 5, 10) if span / (step * factor) <= about)
    first = math.floor(low / step)
    last = max(math.ceil(high / step), first + 1)
    return [
        max(0.0, index * step) if low >= 0 else index * step for index in range(first, last + 1)
    ]


def _share_label(value: float, ticks: Sequence[float]) -> str:
    step = ticks[1] - ticks[0]
    return percent(value, max(0, -math.floor(math.log10(step * 100) + 1e-9)))


def _times(first: float, last: float, steps: int, x: Callable[[float], float]) -> tuple[Tick, ...]:
    moments = [first + (last - first) * index / steps for index in range(steps + 1)]
    brief = last - first < 3 * 86_400
    return tuple(
        Tick(x(at), when(at).split(", ")[1].removesuffix(" UTC") if brief else day(at)[:-5])
        for at in moments
    )


def _said(dot: Dot | RecordRow) -> str:
    return f"{percent(dot.score)} MFU, {dot.author}, submission {dot.submission}, {day(dot.at)}"


# --- one evaluation ---------------------------------------------------------------------------


@dataclass(frozen=True)
class CheckBar:
    """The worst of a metric over the runs, against what is allowed.

    Attributes:
        fill, mark: of the bar's width, 0 to 100: how far it is filled, and where the limit is.
    """

    name: str
    words: str
    measured: float
    allowed: float
    over: bool
    fill: float
    mark: float


def check_bars(result: EvaluationResult) -> tuple[CheckBar, ...]:
    """One for each metric, in the order of the result."""
    metrics = [metric for run in result.runs for metric in run.metrics]
    bars = []
    for name in dict.fromkeys(metric.name for metric in metrics):
        # A NaN is worse than any number, and max() would lose it.
        worst = max(
            (metric for metric in metrics if metric.name == name),
            key=lambda metric: math.inf if math.isnan(metric.measured) else metric.measured,
        )
        share = worst.measured / worst.allowed if worst.allowed > 0 else math.inf
        share = BAR_REACH if math.isnan(share) else min(max(share, 0.0), BAR_REACH)
        if worst.measured == 0:
            share = 0.0
        bars.append(
            CheckBar(
                name=name,
                words=check_name(name),
                measured=worst.measured,
                allowed=worst.allowed,
                over=exceeds(worst.measured, worst.allowed),
                fill=round(100 * share / BAR_REACH, 1),
                mark=round(100 / BAR_REACH, 1),
            )
        )
    return tuple(bars)


@dataclass(frozen=True)
class StepPlot:
    """Step weights of one run as columns that should all reach the line of 1.

    Attributes:
        columns: (x, y, width, height) of each step.
        one: height of the line.
        words: the same, said.
    """

    width: int
    height: int
    columns: tuple[tuple[float, float, float, float], ...]
    one: float
    words: str


def step_plot(run: RunResult) -> StepPlot | None:
    """None where the steps could not be told apart."""
    weights = run.step_weights
    if not weights:
        return None
    width, height, reach = 220, 56, 1.5
    pitch = width / len(weights)
    columns = []
    for index, weight in enumerate(weights):
        shown = 0.0 if math.isnan(weight) else min(max(weight, 0.0), reach)
        tall = height * shown / reach
        gap = min(2.0, pitch / 4)
        columns.append(
            (
                round(index * pitch + gap / 2, 2),
                round(height - tall, 2),
                round(pitch - gap, 2),
                round(tall, 2),
            )
        )
    return StepPlot(
        width=width,
        height=height,
        columns=tuple(columns),
        one=round(height - height / reach, 2),
        words=f"{len(weights)} steps, weights from {min(weights):.3f} to {max(weights):.3f}",
    )


@dataclass(frozen=True)
class Bar:
    """A labelled bar, 0 to 100."""

    label: str
    value: float
    fill: float
    marked: bool = False


def bars(values: Sequence[tuple[str, float]], marked: str = "") -> tuple[Bar, ...]:
    """Bars that are as long as their share of the largest."""
    most = max((value for _, value in values), default=0.0) or 1.0
    return tuple(
        Bar(label, value, round(100 * value / most, 1), label == marked) for label, value in values
    )


@dataclass(frozen=True)
class Spread:
    """Slowest to fastest run, and the score between them, in a drawing 100 wide."""

    low: float
    score: float
    high: float


def spreads(rows: Sequence[BoardRow]) -> dict[int, Spread]:
    """Of each submission, all on one scale."""
    lows = [row.low for row in rows if row.low is not None]
    highs = [row.high for row in rows if row.high is not None]
    if not lows or not highs:
        return {}
    ticks = nice_ticks(min(lows), max(highs), 4)
    span = ticks[-1] - ticks[0]

    def place(value: float | None) -> float:
        return 0.0 if value is None else round(2 + 96 * (value - ticks[0]) / span, 1)

    return {
        row.submission: Spread(place(row.low), place(row.score), place(row.high))
        for row in rows
        if row.score is not None
    }
