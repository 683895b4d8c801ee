"""The largest saving that too few evaluations find, of every family and regime, as an SVG file."""

import math
from typing import Final
from xml.sax.saxutils import escape

from harness.power.detection import Judged, unseen

#: Of the regimes, in their order; those of Okabe and Ito (2008), which colour-blind people tell apart.
COLOURS: Final = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9")
#: Parts of the work, on a logarithmic axis. What saves less is at its left end.
LEAST, GOAL, MOST = 1e-4, 1e-2, 1.0
TICKS: Final = {0.001: "0.1 %", 0.01: "1 %", 0.1: "10 %", 1.0: "100 %"}
LEFT, WIDTH, ROW, TOP = 190, 520, 20, 50


def plot(by_label: dict[str, list[Judged]]) -> str:
    """One row for each family: a dot is by the rate that was seen, a ring by its lower bound."""
    columns = {
        label: (unseen(judged), unseen(judged, bound=True)) for label, judged in by_label.items()
    }
    names = list(dict.fromkeys(name for most, _ in columns.values() for name in most))
    height = TOP + ROW * len(names) + 40
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH + 30} {height}" '
        'font-family="sans-serif" font-size="12">',
        "<title>The largest part of the work that can be left out unseen</title>",
        f'<rect width="100%" height="100%" fill="white"/>{_legend(list(columns))}',
        *_axis(TOP + ROW * len(names)),
    ]
    for row, name in enumerate(names):
        y = TOP + ROW * (row + 0.5)
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4}" text-anchor="end">{escape(name)}</text>')
        for number, (most, shown) in enumerate(columns.values()):
            parts += _marks(most.get(name), shown.get(name), y, number, len(columns))
    return "\n".join([*parts, "</svg>\n"])


def _marks(
    seen: Judged | None, shown: Judged | None, y: float, number: int, count: int
) -> list[str]:
    colour, at = COLOURS[number % len(COLOURS)], y + (number - (count - 1) / 2) * 2.5
    marks = []
    if shown is not None:
        marks.append(
            f'<circle cx="{_x(shown):.1f}" cy="{at:.1f}" r="4" fill="none" stroke="{colour}"/>'
        )
    if seen is not None:
        marks.append(f'<circle cx="{_x(seen):.1f}" cy="{at:.1f}" r="3" fill="{colour}"/>')
    return marks


def _x(judged: Judged) -> float:
    return _place(max(judged.case.saves, judged.case.saves_bytes))


def _place(part: float) -> float:
    inside = min(MOST, max(LEAST, part))
    return LEFT + WIDTH * math.log(inside / LEAST) / math.log(MOST / LEAST)


def _axis(bottom: float) -> list[str]:
    lines = []
    for part, text in TICKS.items():
        x, colour = _place(part), "#c00" if part == GOAL else "#ccc"
        lines.append(
            f'<line x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{bottom}" stroke="{colour}"/>'
        )
        lines.append(f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{text}</text>')
    words = "of the timed FLOPs, or of the bytes between ranks"
    lines.append(
        f'<text x="{LEFT + WIDTH / 2}" y="{bottom + 32}" text-anchor="middle">{words}</text>'
    )
    return lines


def _legend(labels: list[str]) -> str:
    step = (LEFT + WIDTH) / max(1, len(labels))
    return "".join(
        f'<circle cx="{12 + number * step:.0f}" cy="20" r="4" '
        f'fill="{COLOURS[number % len(COLOURS)]}"/>'
        f'<text x="{22 + number * step:.0f}" y="24">{escape(label)}</text>'
        for number, label in enumerate(labels)
    )
