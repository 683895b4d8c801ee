"""What was measured, as Markdown: `docs/power.md` is made of it."""

import math
from collections.abc import Sequence

from harness.power.detection import DETECTED, Judged, unseen


def table(judged: Sequence[Judged]) -> str:
    """As Markdown: one row for each family and strength."""
    lines = [
        "| left out | part | saves | found in | by runs together | an evaluation finds it | at least "
        "| nearest check |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for each in judged:
        case = each.case
        lines.append(
            f"| {case.family} | {case.part} | {case.saving} | {each.found} of {each.runs} | "
            f"{_together(each)} | {each.rate:.0%} | {_bound(each.at_least)} | "
            f"{each.nearest} {each.times:.2g}× |"
        )
    return "\n".join(lines)


def unseen_table(judged: Sequence[Judged]) -> str:
    """As Markdown: for each family what can be saved by a cheat that too many evaluations miss."""
    lines = [
        f"| left out | largest saving found in less than {DETECTED:.0%} of evaluations "
        f"| not shown to be found in {DETECTED:.0%} |",
        "|---|---|---|",
    ]
    shown = unseen(judged, bound=True)
    for family, most in unseen(judged).items():
        lines.append(f"| {family} | {saving(most)} | {saving(shown[family])} |")
    return "\n".join(lines)


def saving(judged: Judged | None) -> str:
    """What it is done for, in words; of none nothing."""
    return "nothing" if judged is None else judged.case.saving


def _bound(rate: float) -> str:
    """Downwards: what is not quite 99 % is not called so."""
    return f"{math.floor(rate * 1000) / 10:.3g}%"


def _together(judged: Judged) -> str:
    return f"{judged.together} of {judged.evaluations}" if judged.evaluations else ""
