"""Who leads, and since when: by the threshold of the moment, and by paired comparisons."""

import pytest

from harness.board.rule import ScoringRule
from tests.board.made_up import HOUR, PAIRS, Season, leaders, ranks

# --- the lead without pairs -------------------------------------------------------------------


def test_a_new_leader_has_to_beat_the_base_and_then_its_own_jump_as_it_decays() -> None:
    season = Season()
    first = season.submit("ann", 0, 0.300)
    season.submit("bob", 1, 0.302)  # needs 0.303
    jump = season.submit("cid", 2, 0.330)  # 10 % ahead
    # A day later the threshold is 0.01 + 0.09 / 2 = 0.055, so it takes 0.34815.
    season.submit("dot", 26, 0.348)
    third = season.submit("eve", 26, 0.3482)
    ranking = season.rank(hour=26)
    assert leaders(ranking) == [(0.0, first), (2.0, jump), (26.0, third)]
    records = ranking.records
    assert list(records["score"]) == [0.300, 0.330, 0.3482]
    assert list(records["threshold"]) == [0.0, 0.01, pytest.approx(0.055)]
    assert list(records["jump"]) == pytest.approx([0.0, 0.1, 0.3482 / 0.33 - 1])
    assert ranking.threshold == pytest.approx(0.3482 / 0.33 - 1)
    # Two half-lives on: 0.01 + 0.04515... / 4.
    assert season.rank(hour=74).threshold == pytest.approx(0.0212878, abs=1e-6)


def test_without_pairs_nobody_takes_the_lead_by_waiting_but_by_a_further_evaluation() -> None:
    season = Season()
    first = season.submit("ann", 0, 0.30)
    jump = season.submit("bob", 1, 0.36)
    patient = season.submit("cid", 2, 0.40)  # 11 % ahead where 20 % were asked for
    assert leaders(season.rank(hour=10_000)) == [(0.0, first), (1.0, jump)]
    season.judge(patient, 100, 0.40)
    assert leaders(season.rank(hour=10_000))[-1] == (100.0, patient)


def test_an_entry_contends_with_what_was_known_of_it_then() -> None:
    season = Season()
    first = season.submit("ann", 0, 0.30)
    lucky = season.submit("bob", 1, 0.40)
    season.judge(lucky, 5, [0.31, 0.31])  # now its median is 0.31
    later = season.submit("cid", 200, 0.35)
    ranking = season.rank()
    assert leaders(ranking) == [(0.0, first), (1.0, lucky), (200.0, later)]
    assert list(ranking.records["score"]) == [0.30, 0.40, 0.35]


def test_whoever_is_rejected_later_has_never_led() -> None:
    season = Season()
    first = season.submit("ann", 0, 0.30)
    gone = season.submit("bob", 1, 0.40)
    between = season.submit("cid", 2, 0.35)
    season.judge(gone, 3, verdict="rejected", failed=1)
    assert leaders(season.rank()) == [(0.0, first), (2.0, between)]


def test_what_finished_first_counts_first_whatever_its_number() -> None:
    season = Season()
    one = season.submit("ann", 0)
    season.judge(one, 5, 0.30)
    season.judge(one, 1, 0.40)
    assert season.rank().records[["at", "score"]].to_numpy().tolist() == [[HOUR, 0.40]]


def test_a_score_that_needs_more_runs_comes_to_be_with_the_last_of_them() -> None:
    season = Season()
    slow = season.submit("ann", 0, [0.3, 0.3])
    quick = season.submit("bob", 1, [0.2, 0.2, 0.2])
    season.judge(slow, 2, 0.3)
    ranking = season.rank(ScoringRule(pairs=0, min_runs=3))
    assert leaders(ranking) == [(1.0, quick), (2.0, slow)]


def test_a_score_that_needs_a_better_success_rate_comes_to_be_when_it_has_it() -> None:
    season = Season()
    late = season.submit("ann", 0)
    season.judge(late, 0, verdict="rejected", failed=1)
    season.judge(late, 1, 0.5)  # half of its runs
    early = season.submit("bob", 2, 0.3)
    season.judge(late, 3, [0.5, 0.5])  # three quarters
    ranking = season.rank(ScoringRule(pairs=0, min_success_rate=0.75))
    assert leaders(ranking) == [(2.0, early), (3.0, late)]


# --- the lead with pairs ----------------------------------------------------------------------


def test_the_lead_changes_when_a_paired_comparison_is_won_and_not_before() -> None:
    season = Season()
    first = season.submit("ann", 0, 0.30)
    fast = season.submit("bob", 1, 0.33)
    waiting = season.rank(PAIRS, hour=2)
    assert leaders(waiting) == [(0.0, first)]
    assert waiting.pending == ((fast, first),)
    assert ranks(waiting) == {first: 1, fast: 2}
    season.compare(fast, first, 2, faster=True)
    won = season.rank(PAIRS, hour=2)
    assert leaders(won) == [(0.0, first), (2.0, fast)]
    assert won.pending == ()
    assert list(won.records["jump"]) == pytest.approx([0.0, 0.1])


def test_a_comparison_that_was_not_won_is_not_made_again_with_the_same_leader() -> None:
    season = Season()
    first = season.submit("ann", 0, 0.30)
    slow = season.submit("bob", 1, 0.33)
    fast = season.submit("cid", 1, 0.50)
    season.compare(slow, first, 2, faster=False)
    assert season.rank(PAIRS, hour=3).pending == ((fast, first),)
    season.compare(fast, first, 4, faster=True)
    assert season.rank(PAIRS, hour=1_000).pending == ()


def test_who_lost_to_an_earlier_leader_may_try_the_present_one() -> None:
    season = Season()
    first = season.submit("ann", 0, 0.30)
    unlucky = season.submit("bob", 1, 0.50)
    second = season.submit("cid", 1, 0.40)
    season.compare(unlucky, first, 2, faster=False)
    season.compare(second, first, 3, faster=True)
    assert season.rank(PAIRS, hour=1_000).pending == ((unlucky, second),)


def test_without_a_threshold_an_equal_is_owed_a_comparison_and_nobody_one_with_itself() -> None:
    season = Season()
    first = season.submit("ann", 0, 0.30)
    equal = season.submit("bob", 1, 0.30)
    assert season.rank(ScoringRule(base_threshold=0), hour=2).pending == ((equal, first),)


def test_what_is_owed_is_best_first_and_only_what_beats_the_threshold_of_now() -> None:
    season = Season()
    first = season.submit("ann", 0, 0.30)
    jump = season.submit("bob", 1, 0.36)
    season.compare(jump, first, 1, faster=True)  # 20 % ahead
    season.submit("cid", 2, 0.37)  # 2.8 % ahead
    good = season.submit("dot", 2, 0.41)  # 13.9 %
    best = season.submit("eve", 2, 0.42)  # 16.7 %
    # 16 hours on: 0.01 + 0.19 · 0.5^(16/24) = 12.97 %; 8 hours on: 16.08 %.
    assert season.rank(PAIRS, hour=17).pending == ((best, jump), (good, jump))
    assert season.rank(PAIRS, hour=9).pending == ((best, jump),)
    assert season.rank(PAIRS, hour=2).pending == ()


@pytest.mark.parametrize("faster", [True, False])
def test_a_comparison_before_the_threshold_was_beaten_decides_nothing(faster: bool) -> None:
    season = Season()
    first = season.submit("ann", 0, 0.30)
    jump = season.submit("bob", 1, 0.36)
    season.compare(jump, first, 1, faster=True)
    early = season.submit("cid", 2, 0.40)  # 11 % where 20 % are asked for
    season.compare(early, jump, 3, faster=faster)
    ranking = season.rank(PAIRS, hour=1_000)
    assert leaders(ranking) == [(0.0, first), (1.0, jump)]
    assert ranking.pending == ((early, jump),)


def test_comparisons_with_others_than_the_leader_of_the_moment_are_worth_nothing() -> None:
    season = Season()
    first = season.submit("ann", 0, 0.30)
    second = season.submit("bob", 1, 0.40)
    third = season.submit("cid", 1, 0.50)
    season.compare(third, second, 2, faster=True)  # second does not lead
    season.compare(second, first, 3, faster=True)
    season.compare(third, first, 4, faster=True)  # first leads no more
    season.compare(99, second, 5, faster=True)  # nobody
    ranking = season.rank(PAIRS, hour=1_000)
    assert leaders(ranking) == [(0.0, first), (3.0, second)]
    assert ranking.pending == ((third, second),)


def test_an_invalidation_gives_the_lead_back_to_whom_it_belongs() -> None:
    season = Season()
    first = season.submit("ann", 0, 0.30)
    cheat = season.submit("bob", 1, 0.60)
    honest = season.submit("cid", 2, 0.40)
    season.compare(honest, first, 3, faster=True)
    season.compare(cheat, honest, 4, faster=True)
    assert leaders(season.rank(PAIRS))[-1] == (4.0, cheat)
    season.submissions[cheat - 1]["state"] = "invalidated"
    ranking = season.rank(PAIRS)
    assert leaders(ranking) == [(0.0, first), (3.0, honest)]
    assert ranks(ranking) == {honest: 1, first: 2}


def test_comparisons_against_an_invalidated_leader_are_made_again() -> None:
    season = Season()
    cheat = season.submit("bob", 0, 0.30, state="invalidated")
    first = season.submit("ann", 1, 0.31)
    fast = season.submit("cid", 2, 0.40)
    season.compare(fast, cheat, 3, faster=True)
    ranking = season.rank(PAIRS)
    assert leaders(ranking) == [(1.0, first)]
    assert ranking.pending == ((fast, first),)


def test_a_leader_that_fails_once_is_contended_with_at_its_last_score() -> None:
    season = Season()
    first = season.submit("ann", 0, [0.3, 0.3])
    season.judge(first, 1, verdict="rejected", failed=2)  # half of its runs
    season.judge(first, 5, [0.3, 0.3])  # two thirds
    fast = season.submit("bob", 2, 0.4)
    season.compare(fast, first, 3, faster=True)
    ranking = season.rank(ScoringRule(min_success_rate=0.6))
    assert leaders(ranking) == [(0.0, first), (3.0, fast)]


def test_a_contender_that_failed_too_often_until_then_does_not_take_the_lead_by_that_comparison() -> (
    None
):
    season = Season()
    first = season.submit("ann", 0, 0.3)
    fast = season.submit("bob", 1, 0.4)
    season.judge(fast, 2, verdict="rejected", failed=1)  # half of its runs
    season.compare(fast, first, 3, faster=True)
    season.judge(fast, 4, [0.4, 0.4])  # three quarters
    ranking = season.rank(ScoringRule(min_success_rate=0.75))
    assert leaders(ranking) == [(0.0, first)]
    assert ranking.pending == ((fast, first),)


def test_copies_and_unrankable_entries_are_never_owed_a_comparison() -> None:
    season = Season()
    season.submit("ann", 0, 0.30, program="p")
    season.submit("bob", 1, 0.50, program="p")
    season.submit("cid", 1, 0.60, isolation="none")
    season.submit("dot", 1, 0.70, state="held")
    season.submit("eve", 1, [1.2])
    assert season.rank(PAIRS).pending == ()
