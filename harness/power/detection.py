"""From counts of runs to the rate at which an evaluation finds a cheat, with a bound."""

from typing import Final

from harness.power.measured import Case, Power
from harness.verify.rates import CONFIDENCE, at_least

#: An evaluation that finds a cheat less often than that does not deter it.
DETECTED: Final = 0.99


def detection(power: Power, case: Case, *, bound: bool = False) -> float:
    """The rate at which an evaluation finds a cheat that is in all of its runs.

    It is missed only if every run passes by itself, and one of them, where there are several, is within
    the strict bound. Runs are of independent challenges.

    Args:
        bound: the lower bound at CONFIDENCE instead of the estimate; two rates share what may be wrong.
    """
    runs = power.evaluation_runs
    strict = power.strict_update_error is not None and runs > 1
    confidence = 1 - (1 - CONFIDENCE) / (2 if strict else 1)

    def rate(count: int) -> float:
        return at_least(count, case.runs, confidence) if bound else count / case.runs

    missed = (1 - rate(case.found)) ** runs
    if strict:
        missed = min(missed, 1 - rate(case.strict) ** runs)
    return 1 - missed


def unseen(power: Power, *, bound: bool = False) -> dict[str, Case | None]:
    """For each family the case that saves most of those that an evaluation finds at less than DETECTED.

    Args:
        bound: by the lower bound of that rate instead of its estimate.

    Returns:
        By the families' names; None where every measured strength is found.
    """
    found: dict[str, Case | None] = {}
    for case in power.cases:
        most = found.setdefault(case.family, None)
        if detection(power, case, bound=bound) < DETECTED and (
            most is None or (case.saves, case.saves_bytes) > (most.saves, most.saves_bytes)
        ):
            found[case.family] = case
    return found
