"""The ranking on made-up seasons that can be checked on paper: scores, boards and copies."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from harness.board.rule import ScoringRule
from tests.board.made_up import Season, board_of, leaders, ranks, why

# --- scores -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("statistic", "score"), [("median", 0.3), ("mean", 0.4), ("worst", 0.2)])
def test_the_score_is_the_rules_statistic_of_all_accepted_runs(
    statistic: Any, score: float
) -> None:
    season = Season()
    season.submit("ann", 0, 0.9)
    one = season.submit("bob", 1, [0.8, 0.2])
    season.judge(one, 2, [0.3])
    row = season.rank(ScoringRule(statistic=statistic)).entries.loc[one]
    assert row["score"] == pytest.approx((0.2 + 0.3 + 0.8) / 3 if statistic == "mean" else score)
    assert (row["low"], row["high"], row["runs"], row["success_rate"]) == (0.2, 0.8, 3, 1.0)


def test_of_four_runs_the_middle_two_share_the_median() -> None:
    season = Season()
    one = season.submit("ann", 0, [0.5, 0.1, 0.2, 0.4])
    assert season.rank().entries.loc[one, "score"] == pytest.approx(0.3)


def test_failed_runs_count_against_the_success_rate_and_our_own_errors_do_not() -> None:
    season = Season()
    one = season.submit("ann", 0, [0.5, 0.5, 0.5])
    season.judge(one, 1, verdict="rejected", failed=1)
    season.judge(one, 2, verdict="error", failed=7)
    ranking = season.rank()
    assert ranking.entries.loc[one, "success_rate"] == 0.75
    assert np.isnan(ranking.entries.loc[one, "score"])
    assert why(ranking, one) == "too many of its runs failed"
    assert ranking.leader is None
    lenient = season.rank(ScoringRule(pairs=0, min_success_rate=0.75))
    assert lenient.entries.loc[one, "score"] == 0.5
    assert ranks(lenient) == {one: 1}


def test_a_rejection_before_the_first_run_is_a_failure_too() -> None:
    season = Season()
    one = season.submit("ann", 0, 0.5)
    season.judge(one, 1, verdict="rejected", failed=0)
    assert season.rank().entries.loc[one, "success_rate"] == 0.5


def test_too_few_runs_are_no_score() -> None:
    season = Season()
    one = season.submit("ann", 0, [0.5, 0.5])
    two = season.submit("bob", 1, [0.4, 0.4, 0.4])
    ranking = season.rank(ScoringRule(pairs=0, min_runs=3))
    assert why(ranking, one) == "too few runs"
    assert ranks(ranking) == {two: 1}


@pytest.mark.parametrize("wrong", [1.001, float("inf"), float("nan"), -0.1])
def test_an_impossible_mfu_in_any_run_is_an_alarm_and_no_score(wrong: float) -> None:
    season = Season()
    one = season.submit("ann", 0, [0.5, wrong, 0.5])
    two = season.submit("bob", 1, [1.0])
    ranking = season.rank()
    assert bool(ranking.entries.loc[one, "alarm"]) and not ranking.entries.loc[two, "alarm"]
    assert np.isnan(ranking.entries.loc[one, "score"])
    assert "organiser" in why(ranking, one)
    assert ranks(ranking) == {two: 1}


def test_no_training_at_all_is_no_score() -> None:
    season = Season()
    one = season.submit("ann", 0, [0.0, 0.0])
    assert why(season.rank(), one) == "it trained nothing"


# --- the board --------------------------------------------------------------------------------


def test_one_entry_an_author_by_score_and_of_equal_ones_the_earlier() -> None:
    season = Season()
    first = season.submit("ann", 0, 0.5)
    slow = season.submit("bob", 1, 0.2)
    tied = season.submit("cid", 3, 0.3)
    good = season.submit("bob", 2, 0.3)
    ranking = season.rank()
    assert ranks(ranking) == {first: 1, good: 2, tied: 3}
    assert why(ranking, slow) == "its author has a better one"
    assert list(board_of(ranking).index) == [first, good, tied]
    everything = board_of(ranking, every=True)
    assert list(everything.index) == [first, good, tied, slow]
    assert list(everything["rank"]) == [1, 2, 3, 4]


def test_many_equal_scores_stand_in_the_order_of_handing_in() -> None:
    season = Season()
    for number in range(100):
        score = 0.3 if number % 2 else 0.302
        season.submit(f"author {number}", 500 - number if number else 0, score)
    assert list(board_of(season.rank()).index) == [1, *range(99, 1, -2), *range(100, 1, -2)]


def test_the_leader_is_first_even_with_a_score_that_others_exceed_by_less_than_the_threshold() -> (
    None
):
    season = Season()
    leader = season.submit("ann", 0, 0.500)
    mine = season.submit("ann", 1, 0.503)
    other = season.submit("bob", 2, 0.504)
    ranking = season.rank()
    assert ranks(ranking) == {leader: 1, other: 2}
    assert why(ranking, mine) == "its author has a better one"


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"isolation": "user"}, "judged at an isolation level that may not be ranked"),
        ({"isolation": "none"}, "judged at an isolation level that may not be ranked"),
        ({"hardware": "CPU"}, "not judged on the season's hardware"),
        ({"state": "held"}, "waits for the organiser"),
        ({"state": "cancelled"}, "cancelled"),
        ({"state": "invalidated"}, "invalidated"),
    ],
)
def test_what_may_not_be_ranked_says_why_and_never_leads(
    columns: dict[str, str], words: str
) -> None:
    season = Season()
    out = season.submit("ann", 0, 0.9, **columns)
    one = season.submit("bob", 1, 0.1)
    ranking = season.rank(hardware="H100")
    assert why(ranking, out) == words
    assert ranks(ranking) == {one: 1}
    assert leaders(ranking) == [(1.0, one)]


@pytest.mark.parametrize(
    ("verdict", "state", "words"),
    [
        (None, "queued", "not judged yet"),
        (None, "failed", "we could not judge it"),
        ("error", "running", "not judged yet"),
        ("rejected", "judged", "rejected"),
    ],
)
def test_what_has_no_score_says_why(verdict: str | None, state: str, words: str) -> None:
    season = Season()
    one = season.submit("ann", 0, state=state)
    if verdict is not None:
        season.judge(one, 1, verdict=verdict, failed=1)
    assert why(season.rank(), one) == words


def test_a_leader_that_is_judged_once_more_leads_meanwhile() -> None:
    season = Season()
    one = season.submit("ann", 0, 0.5, state="queued")
    two = season.submit("bob", 1, 0.4)
    assert ranks(season.rank()) == {one: 1, two: 2}


def test_boards_by_hardware_strategy_and_world_count_from_one() -> None:
    season = Season()
    lead = season.submit("ann", 0, 0.500)
    close = season.submit("bob", 1, 0.502)
    tp = season.submit("cid", 2, 0.3, strategy="tp 4", world_size=4)
    cpu = season.submit("ann", 3, 0.7, hardware="CPU")
    slow = season.submit("dot", 4, 0.1, hardware="CPU", strategy="tp 4")
    ranking = season.rank(hardware="H100")
    assert list(board_of(ranking).index) == [lead, close, tp]
    assert list(board_of(ranking, strategy="dp 2").index) == [lead, close]
    assert list(board_of(ranking, world_size=4).index) == [tp]
    assert list(board_of(ranking, hardware="CPU").index) == [cpu, slow]
    only = board_of(ranking, hardware="CPU", strategy="tp 4")
    assert [(int(i), int(r)) for i, r in only["rank"].items()] == [(slow, 1)]
    assert list(board_of(ranking, hardware="H100").index) == [lead, close, tp]
    assert board_of(ranking, strategy="pp 2").empty


# --- copies -----------------------------------------------------------------------------------


def test_the_same_program_is_a_copy_of_the_first_and_cannot_lead() -> None:
    season = Season()
    original = season.submit("ann", 0, 0.30, program="p")
    copy = season.submit("bob", 1, 0.40, program="p")
    again = season.submit("ann", 2, 0.50, program="p")
    ranking = season.rank()
    assert ranks(ranking) == {original: 1}
    assert list(ranking.entries["copy_of"].dropna()) == [original, original]
    assert why(ranking, copy) == why(ranking, again) == "the same program as an earlier submission"
    assert pd.isna(ranking.entries.loc[original, "copy_of"])


def test_the_first_is_who_handed_in_first_not_who_was_judged_or_numbered_first() -> None:
    season = Season()
    late = season.submit("bob", 5, 0.4, program="p")
    early = season.submit("ann", 1, program="p", state="queued")
    assert season.rank().entries.loc[late, "copy_of"] == early


@pytest.mark.parametrize("state", ["invalidated", "held"])
def test_a_copy_stays_one_when_its_original_is_out(state: str) -> None:
    season = Season()
    season.submit("ann", 0, 0.3, program="p", state=state)
    copy = season.submit("bob", 1, 0.4, program="p")
    assert why(season.rank(), copy) == "the same program as an earlier submission"


@pytest.mark.parametrize("state", ["cancelled", "failed"])
def test_what_was_withdrawn_or_never_judged_has_no_copies(state: str) -> None:
    season = Season()
    season.submit("ann", 0, program="p", state=state)
    again = season.submit("ann", 1, 0.4, program="p")
    assert ranks(season.rank()) == {again: 1}


def test_programs_that_are_not_known_are_not_copies_of_each_other() -> None:
    season = Season()
    one = season.submit("ann", 0, 0.4, program="")
    two = season.submit("bob", 1, 0.3, program="")
    assert ranks(season.rank()) == {one: 1, two: 2}
