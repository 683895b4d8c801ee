"""What was measured, as Markdown: `docs/power.md` is made of it."""

from harness.power.detection import DETECTED, detection, unseen
from harness.power.measured import Case, Power


def table(power: Power) -> str:
    """As Markdown: one row for each family and strength."""
    lines = [
        "| left out | part | saves | found in | over the strict bound | an evaluation finds it | at least "
        "| nearest check |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for case in power.cases:
        lines.append(
            f"| {case.family} | {case.part} | {case.saving} | "
            f"{case.found} of {case.runs} | {case.strict} of {case.runs} | "
            f"{detection(power, case):.0%} | {detection(power, case, bound=True):.0%} | "
            f"{case.nearest} {case.times:.2g}× |"
        )
    return "\n".join(lines)


def unseen_table(power: Power) -> str:
    """As Markdown: for each family what can be saved by a cheat that too many evaluations miss."""
    lines = [
        f"| left out | largest saving found in less than {DETECTED:.0%} of evaluations "
        f"| not shown to be found in {DETECTED:.0%} |",
        "|---|---|---|",
    ]
    shown = unseen(power, bound=True)
    for family, case in unseen(power).items():
        lines.append(f"| {family} | {_saving(case)} | {_saving(shown[family])} |")
    return "\n".join(lines)


def _saving(case: Case | None) -> str:
    return "nothing" if case is None else case.saving
