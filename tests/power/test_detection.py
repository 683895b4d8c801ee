"""From runs to evaluations: bounds of rates, what an evaluation misses, and how it is told."""

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import pytest

from harness.benchmark.rules import Together, Tolerances
from harness.power.detection import Judged, Rules, judge, unseen
from harness.power.fitted import spreads_over
from harness.power.measured import Case
from harness.power.tables import table, unseen_table
from harness.reference.cheats.families import Cheat

ALLOWED = 0.1
TOLERANCES = Tolerances.model_validate(
    dict.fromkeys(Tolerances.model_fields, ALLOWED) | {"matched_filter": None}
)
STRICT = Together(strict_update_error=1e-4)
#: Update errors of runs: rejected by itself, not so near as float32 is, and as near.
OVER, FAR, NEAR = 0.15, 0.05, 1e-5


def case(errors: Sequence[float], strength: float = 0.01, **different: Any) -> Case:
    fields: dict[str, Any] = {
        "cheats": (Cheat(family="top_1", strength=strength),),
        "saves": strength / 4,
        "saves_bytes": 0.0,
        "metrics": {"update_error": tuple(errors), "matched_filter": (99.0,) * len(errors)},
        "rejected_by": ((),) * len(errors),
    }
    return Case(**(fields | different))


def judged(
    errors: Sequence[float],
    strength: float = 0.01,
    *,
    together: Together = STRICT,
    of: int = 2,
    **different: Any,
) -> Judged:
    return judge(case(errors, strength, **different), Rules(TOLERANCES, together, of))


def test_runs_are_judged_alone_and_in_turn_together() -> None:
    found = judged([OVER, FAR, FAR, FAR, NEAR, FAR, FAR])
    assert (found.runs, found.found) == (7, 1)
    assert (found.evaluations, found.together) == (3, 2)  # one run is left over
    assert (found.nearest, found.times) == ("update_error", 0.5)


def test_a_check_without_a_tolerance_rejects_too() -> None:
    assert judged([NEAR, NEAR], rejected_by=(("still",), ())).found == 1


def test_a_metric_that_is_not_judged_or_is_no_number_is_not_the_nearest() -> None:
    metrics = {"loss": (0.02,), "update_error": (0.01,), "step_weight": (float("nan"),)}
    found = judged([NEAR], metrics=metrics | {"matched_filter": (9.0,)})
    assert found.nearest == "loss"
    assert found.times == pytest.approx(0.2)
    assert found.found == 1, "what cannot be compared does not pass"


def test_means_are_judged_as_an_evaluation_does() -> None:
    asked = Together(means={"update_error": 0.04})
    found = judged([FAR, FAR, FAR, NEAR], together=asked)
    assert (found.found, found.together, found.evaluations) == (0, 1, 2)


@pytest.mark.parametrize(
    ("errors", "settings", "rate"),
    [
        ([NEAR] * 4, {}, 0.0),
        ([OVER, NEAR] * 2, {}, 3 / 4),  # missed if both runs pass
        ([FAR, NEAR, FAR, FAR], {}, 1 / 2),  # missed unless both are over the strict bound
        ([OVER, NEAR, FAR, FAR], {}, 1 / 2),  # the larger of 7/16 and 1/2
        ([FAR] * 4, {}, 1.0),
        ([FAR] * 4, {"together": Together()}, 0.0),
        ([FAR, FAR, FAR, OVER], {"of": 1}, 1 / 4),  # one run is not judged by the strict bound
    ],
)
def test_an_evaluation_misses_what_all_of_its_runs_miss(
    errors: list[float], settings: dict[str, Any], rate: float
) -> None:
    assert judged(errors, **settings).rate == pytest.approx(rate)


def test_a_bound_by_counts_takes_a_third_of_what_may_be_wrong() -> None:
    """By hand: of n that were all found at least x with x**n = 0.05 / 3."""
    lower = (0.05 / 3) ** (1 / 8)
    assert judged([OVER] * 8).at_least == pytest.approx(1 - (1 - lower) ** 2)
    both = judged([FAR] * 8)
    assert both.at_least == pytest.approx((0.05 / 3) ** (1 / 4))
    assert both.rate == 1.0


#: About 0.15, as runs of one cheat differ.
ABOUT = (0.14, 0.15, 0.16, 0.145, 0.155, 0.15, 0.148, 0.152)


def test_what_is_far_over_by_its_spread_is_shown_by_few_runs() -> None:
    """Eight runs that are all found show 84 % by counts."""
    assert judged(ABOUT).at_least > 0.999
    near = [value - 0.045 for value in ABOUT]  # 0.095 to 0.115 of 0.1
    assert judged(near, together=Together()).at_least < 0.9
    metrics = {"update_error": ABOUT, "norm_ratio": (0.01,) * 8}
    assert judged(ABOUT, metrics=metrics).at_least == judged(ABOUT).at_least


def test_how_far_all_runs_are_over_the_strict_bound_counts() -> None:
    """Each within its tolerance. A run is as near as float32 in one of some thousands at most."""
    allowed = Together(strict_update_error=0.1)
    by_hand = spreads_over("update_error", ABOUT, 0.1, 0.05 / 3 / 10)
    wide = TOLERANCES.model_copy(update={"update_error": 0.9})
    found = judge(case(ABOUT), Rules(wide, allowed, 2))
    assert found.found == 0
    assert found.at_least == pytest.approx(NormalDist().cdf(by_hand) ** 2)


def test_a_mean_is_less_spread_than_a_run() -> None:
    values = [value - 0.035 for value in ABOUT]
    wide = TOLERANCES.model_copy(update={"update_error": 0.9})
    found = judge(case(values), Rules(wide, Together(means={"update_error": 0.1}), 2))
    by_hand = spreads_over("update_error", values, 0.1, 0.05 / 3 / 10)
    assert by_hand > 0.2
    assert found.at_least >= NormalDist().cdf(by_hand * math.sqrt(2))


def test_unseen_is_the_largest_saving_that_too_few_evaluations_find() -> None:
    few, some = judged([NEAR] * 4, 0.01), judged([OVER, NEAR] * 2, 0.02)
    all_found = judged([OVER] * 4, 0.04)
    for cases in ((few, some, all_found), (all_found, some, few)):
        assert unseen(cases) == {"top 1": some}
        assert unseen(cases, bound=True) == {"top 1": all_found}  # four runs show little
    assert unseen([judged([OVER] * 4), all_found]) == {"top 1": None}
    nothing_saved = judged([NEAR] * 4, saves=0.0)
    assert unseen([nothing_saved]) == {"top 1": nothing_saved}
    fewer_bytes = judged([NEAR] * 4, saves=0.0, saves_bytes=0.5)
    assert unseen([nothing_saved, fewer_bytes]) == {"top 1": fewer_bytes}


def test_cheats_at_once_are_a_family_of_their_own() -> None:
    both = (Cheat(family="top_1", strength=0.1), Cheat(family="rows", strength=0.125))
    together = judged([NEAR] * 4, cheats=both, saves=0.2)
    assert unseen([judged([OVER] * 4), together]) == {"top 1": None, "top 1 + rows": together}
    row = table([together]).splitlines()[2]
    assert row.startswith("| top 1 + rows | 10.00% + 12.50% | 20.00% |")


def test_what_saves_bytes_alone_says_so() -> None:
    sparse = judged([NEAR] * 4, saves=0.0, saves_bytes=0.3)
    assert "| 30.00% of bytes |" in table([sparse])
    assert unseen_table([sparse]).endswith("| 30.00% of bytes | 30.00% of bytes |")


def test_the_tables_say_it_in_markdown() -> None:
    cases = [judged([OVER, OVER, OVER, NEAR], 0.02), judged([OVER] * 4, 0.04)]
    rows = table(cases).splitlines()
    assert rows[2] == (
        "| top 1 | 2.00% | 0.50% | 3 of 4 | 1 of 2 | 94% | 30.8% | update_error 1.5× |"
    )
    assert len(rows) == 4
    assert unseen_table(cases).splitlines()[2] == "| top 1 | 0.50% | 1.00% |"
    found = [judged([OVER] * 400, 0.04, together=Together())]
    assert unseen_table(found).splitlines()[2] == "| top 1 | nothing | nothing |"
    assert "| 400 of 400 |  | 100% |" in table(found)
