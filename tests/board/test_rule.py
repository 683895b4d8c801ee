"""The scoring rule: what it is if nobody says anything, and what it cannot be."""

from typing import Any

import pytest
from pydantic import ValidationError

from harness.board.rule import ScoringRule


def test_the_defaults_are_those_that_the_documentation_promises() -> None:
    assert ScoringRule().model_dump() == {
        "statistic": "median",
        "min_runs": 1,
        "min_success_rate": 1.0,
        "base_threshold": 0.01,
        "half_life_hours": 24.0,
        "pairs": 10,
        "confidence": 0.95,
        "seed": 0,
        "isolation": ("docker", "bubblewrap"),
        "near_copy": 0.9,
        "max_attempts": 3,
        "submissions_per_day": 20,
        "source_visible": "judged",
        "peak_tflops": None,
    }


@pytest.mark.parametrize(
    "wrong",
    [
        {"statistic": "best"},
        {"min_runs": 0},
        {"min_success_rate": 1.01},
        {"base_threshold": -0.01},
        {"half_life_hours": 0},
        {"half_life_hours": float("inf")},
        {"pairs": -1},
        {"confidence": 1.0},
        {"isolation": ()},
        {"near_copy": float("nan")},
        {"peak_tflops": 0},
        {"half_live_hours": 24},
    ],
    ids=str,
)
def test_a_rule_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ScoringRule.model_validate(wrong)


def test_a_rule_survives_its_way_through_an_event() -> None:
    rule = ScoringRule(statistic="worst", pairs=0, isolation=("docker",), peak_tflops=989.0)
    assert ScoringRule.model_validate_json(rule.model_dump_json()) == rule
