"""From runs to evaluations: bounds of rates, what an evaluation misses, and how it is told."""

import math
from typing import Any

import pytest

from harness.power.detection import detection, unseen
from harness.power.measured import Case, Power
from harness.power.tables import table, unseen_table
from harness.reference.cheats.families import Cheat


def case(strength: float, found: int, strict: int = 0, runs: int = 4) -> Case:
    return Case(
        cheats=(Cheat(family="top_1", strength=strength),), saves=strength / 4, saves_bytes=0.0, runs=runs,
        found=found, strict=strict, nearest="token_group_shift", times=1.5,
    )  # fmt: skip


def power(*cases: Case, **different: Any) -> Power:
    settings: dict[str, Any] = {"evaluation_runs": 2, "strict_update_error": 1e-4} | different
    return Power(benchmark="b", hparams_sha256="0" * 64, cases=cases, **settings)


@pytest.mark.parametrize(
    ("found", "strict", "settings", "rate"),
    [
        (0, 0, {}, 0.0),
        (4, 0, {}, 1.0),
        (3, 0, {}, 15 / 16),  # missed if both runs pass
        (0, 3, {}, 9 / 16),  # missed unless both are over the strict bound
        (3, 3, {}, 15 / 16),
        (0, 4, {}, 1.0),
        (3, 4, {"strict_update_error": None}, 15 / 16),
        (3, 4, {"evaluation_runs": 1}, 3 / 4),  # one run is not judged by the strict bound
    ],
)
def test_an_evaluation_misses_what_all_of_its_runs_miss(
    found: int, strict: int, settings: dict[str, Any], rate: float
) -> None:
    measured = power(case(0.01, found, strict), **settings)
    assert detection(measured, measured.cases[0]) == pytest.approx(rate)


def test_a_bound_of_two_rates_shares_what_may_be_wrong() -> None:
    """By hand: of n that were all found at least x with x**n = 0.05, or 0.025 where there are two."""
    alone = power(case(0.01, 8, runs=8), strict_update_error=None)
    lower = 0.05 ** (1 / 8)
    assert detection(alone, alone.cases[0], bound=True) == pytest.approx(1 - (1 - lower) ** 2)
    both = power(case(0.01, 0, 8, runs=8))
    assert detection(both, both.cases[0], bound=True) == pytest.approx((0.025 ** (1 / 8)) ** 2)
    assert math.isclose(detection(both, both.cases[0]), 1.0)


def test_unseen_is_the_largest_saving_that_too_few_evaluations_find() -> None:
    few, some, all_found = case(0.01, 0), case(0.02, 3), case(0.04, 4)
    for cases in ((few, some, all_found), (all_found, some, few)):
        measured = power(*cases)
        assert unseen(measured) == {"top 1": some}
        assert unseen(measured, bound=True) == {"top 1": all_found}  # four runs show little
    assert unseen(power(case(0.01, 4), case(0.02, 4))) == {"top 1": None}
    nothing_saved = few.model_copy(update={"saves": 0.0})
    assert unseen(power(nothing_saved)) == {"top 1": nothing_saved}
    fewer_bytes = nothing_saved.model_copy(update={"saves_bytes": 0.5})
    assert unseen(power(nothing_saved, fewer_bytes)) == {"top 1": fewer_bytes}


def test_cheats_at_once_are_a_family_of_their_own() -> None:
    both = (Cheat(family="top_1", strength=0.1), Cheat(family="rows", strength=0.125))
    together = case(0.01, 0).model_copy(update={"cheats": both, "saves": 0.2})
    assert unseen(power(case(0.01, 4), together)) == {"top 1": None, "top 1 + rows": together}
    assert (
        table(power(together))
        .splitlines()[2]
        .startswith("| top 1 + rows | 10.00% + 12.50% | 20.00% |")
    )


def test_what_saves_bytes_alone_says_so() -> None:
    sparse = case(0.3, 0).model_copy(update={"saves": 0.0, "saves_bytes": 0.3})
    assert "| 30.00% of bytes |" in table(power(sparse))
    assert unseen_table(power(sparse)).endswith("| 30.00% of bytes | 30.00% of bytes |")


def test_the_tables_say_it_in_markdown() -> None:
    measured = power(case(0.02, 3), case(0.04, 4))
    rows = table(measured).splitlines()
    assert rows[2] == (
        "| top 1 | 2.00% | 0.50% | 3 of 4 | 0 of 4 | 94% | 35% | token_group_shift 1.5× |"
    )
    assert len(rows) == 4
    assert unseen_table(measured).splitlines()[2] == "| top 1 | 0.50% | 1.00% |"
    found = power(case(0.04, 400, runs=400))
    assert unseen_table(found).splitlines()[2] == "| top 1 | nothing | nothing |"
