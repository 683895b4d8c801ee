"""The ranking on made-up seasons that can be checked on paper. Times are hours."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from harness.board.rank import Ranking, board, rank
from harness.board.rule import ScoringRule

HOUR = 3_600.0
NO_PAIRS = ScoringRule(pairs=0)


class Season:
    """Frames, written by the hour. Submissions and evaluations are numbered from 1."""

    def __init__(self) -> None:
        self.submissions: list[dict[str, Any]] = []
        self.evaluations: list[dict[str, Any]] = []
        self.runs: list[dict[str, Any]] = []
        self.comparisons: list[dict[str, Any]] = []

    def submit(
        self, author: str, hour: float, mfu: float | Sequence[float] = (), **columns: Any
    ) -> int:
        """A submission, and an accepted evaluation at once if there is an MFU."""
        self.submissions.append(
            {
                "author": author,
                "at": hour * HOUR,
                "program": f"program {len(self.submissions)}",
                "strategy": "dp 2",
                "world_size": 2,
                "hardware": "H100",
                "isolation": "docker",
                "state": "judged",
            }
            | columns
        )
        number = len(self.submissions)
        if mfu != ():
            self.judge(number, hour, mfu)
        return number

    def judge(
        self,
        submission: int,
        hour: float,
        mfu: float | Sequence[float] = (),
        verdict: str = "accepted",
        failed: int = 0,
    ) -> None:
        self.evaluations.append(
            {"submission": submission, "at": hour * HOUR, "verdict": verdict, "failed_runs": failed}
        )
        for value in [mfu] if isinstance(mfu, float) else mfu:
            self.runs.append({"evaluation": len(self.evaluations), "mfu": value})

    def compare(self, contender: int, leader: int, hour: float, faster: bool) -> None:
        self.comparisons.append(
            {
                "at": hour * HOUR,
                "contender": contender,
                "leader": leader,
                "ratio": 1.02,
                "low": 1.01 if faster else 0.99,
                "faster": faster,
            }
        )

    def frames(self) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, pd.DataFrame]:
        def frame(rows: list[dict[str, Any]], *columns: str) -> pd.DataFrame:
            return pd.DataFrame(rows, columns=list(columns) if not rows else None)

        submissions = frame(
            self.submissions,
            *(
                "author",
                "at",
                "program",
                "strategy",
                "world_size",
                "hardware",
                "isolation",
                "state",
            ),
        )
        evaluations = frame(self.evaluations, "submission", "at", "verdict", "failed_runs")
        submissions.index = pd.RangeIndex(1, len(submissions) + 1, name="submission")
        evaluations.index = pd.RangeIndex(1, len(evaluations) + 1, name="evaluation")
        runs = frame(self.runs, "evaluation", "mfu")
        compared = frame(self.comparisons, "at", "contender", "leader", "ratio", "low", "faster")
        return submissions, evaluations, runs, compared

    def rank(
        self, rule: ScoringRule = NO_PAIRS, hour: float = 1_000.0, hardware: str | None = None
    ) -> Ranking:
        return rank(*self.frames(), rule, hour * HOUR, hardware)


def ranks(ranking: Ranking) -> dict[int, int]:
    """Rank by submission, of those that have one."""
    return {int(i): int(r) for i, r in ranking.entries["rank"].dropna().items()}


def why(ranking: Ranking, submission: int) -> str:
    reason = ranking.entries.loc[submission, "why_not"]
    assert pd.isna(ranking.entries.loc[submission, "rank"])
    return str(reason)


def leaders(ranking: Ranking) -> list[tuple[float, int]]:
    """(hour, submission) of every change of the lead."""
    return [(at / HOUR, int(s)) for at, s in ranking.records[["at", "submission"]].to_numpy()]


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
    assert list(board(ranking).index) == [first, good, tied]
    everything = board(ranking, every=True)
    assert list(everything.index) == [first, good, tied, slow]
    assert list(everything["rank"]) == [1, 2, 3, 4]


def test_many_equal_scores_stand_in_the_order_of_handing_in() -> None:
    season = Season()
    for number in range(100):
        score = 0.3 if number % 2 else 0.302
        season.submit(f"author {number}", 500 - number if number else 0, score)
    assert list(board(season.rank()).index) == [1, *range(99, 1, -2), *range(100, 1, -2)]


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
    assert list(board(ranking).index) == [lead, close, tp]
    assert list(board(ranking, strategy="dp 2").index) == [lead, close]
    assert list(board(ranking, world_size=4).index) == [tp]
    assert list(board(ranking, hardware="CPU").index) == [cpu, slow]
    only = board(ranking, hardware="CPU", strategy="tp 4")
    assert [(int(i), int(r)) for i, r in only["rank"].items()] == [(slow, 1)]
    assert list(board(ranking, hardware="H100").index) == [lead, close, tp]
    assert board(ranking, strategy="pp 2").empty


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

PAIRS = ScoringRule()


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


# --- always the same --------------------------------------------------------------------------


def random_season(seed: int) -> Season:
    """Some of everything, with times and scores that are often equal."""
    draw = np.random.default_rng(seed)
    season = Season()
    for _ in range(60):
        number = season.submit(
            f"author {draw.integers(12)}",
            float(draw.integers(30)),
            program=f"program {draw.integers(40)}",
            isolation=str(draw.choice(["docker", "none"], p=[0.9, 0.1])),
            state=str(draw.choice(["judged", "invalidated", "cancelled"], p=[0.8, 0.1, 0.1])),
        )
        for _ in range(draw.integers(1, 4)):
            hour = float(draw.integers(30, 90))
            verdict = str(draw.choice(["accepted", "rejected", "error"], p=[0.8, 0.1, 0.1]))
            values = draw.choice([0.1, 0.2, 0.25, 0.3, 0.31, 0.4, 0.41], draw.integers(1, 5))
            season.judge(number, hour, values.tolist() if verdict == "accepted" else (), verdict)
    for _ in range(300):
        one, other = draw.integers(1, 61, 2)
        season.compare(int(one), int(other), float(draw.integers(30, 400)), bool(draw.integers(2)))
    return season


@pytest.mark.parametrize("statistic", ["median", "mean", "worst"])
@pytest.mark.parametrize("pairs", [0, 10])
def test_the_order_of_the_rows_does_not_matter(pairs: int, statistic: Any) -> None:
    rule = ScoringRule(pairs=pairs, statistic=statistic, min_success_rate=0.5, min_runs=2)
    for seed in range(5):
        frames = random_season(seed).frames()
        one = rank(*frames, rule, 500 * HOUR)
        a, b, c, d = (frame.sample(frac=1, random_state=seed) for frame in frames)
        other = rank(a, b, c, d, rule, 500 * HOUR)
        assert one.pending == other.pending and one.threshold == other.threshold
        assert_frame_equal(one.records, other.records, check_exact=True)
        assert_frame_equal(one.entries, other.entries, check_exact=True)
        assert len(one.records) > 0


def test_a_season_without_anything_has_an_empty_board() -> None:
    ranking = Season().rank()
    assert (ranking.leader, ranking.pending, ranking.threshold) == (None, (), 0.01)
    assert board(ranking).empty and board(ranking, every=True).empty


def test_rows_that_point_to_nothing_count_for_nothing() -> None:
    season = Season()
    one = season.submit("ann", 0, 0.3)
    season.judge(77, 1, 0.9)
    season.runs.append({"evaluation": 99, "mfu": 0.8})
    season.judge(one, 2, 0.9, verdict="error")  # runs of what was not accepted
    season.judge(one, 3, 0.9, verdict="rejected")
    rule = ScoringRule(pairs=0, min_success_rate=0.1)
    assert season.rank(rule).entries["score"].tolist() == [0.3]


def test_ids_may_have_gaps() -> None:
    season = Season()
    season.submit("ann", 0, 0.30)
    season.submit("bob", 1, 0.40)
    season.compare(2, 1, 2, faster=True)
    submissions, evaluations, runs, compared = season.frames()
    submissions.index = pd.Index([10, 50], name="submission")
    evaluations.index = pd.Index([7, 4_000], name="evaluation")
    renumbered = rank(
        submissions,
        evaluations.assign(submission=[10, 50]),
        runs.assign(evaluation=[7, 4_000]),
        compared.assign(contender=50, leader=10),
        PAIRS,
        10 * HOUR,
    )
    assert renumbered.leader == 50
    assert renumbered.entries["score"].to_dict() == {10: 0.30, 50: 0.40}


def test_columns_that_a_store_keeps_as_categories_are_ranked_the_same() -> None:
    submissions, evaluations, runs, compared = random_season(1).frames()
    one = rank(submissions, evaluations, runs, compared, PAIRS, 500 * HOUR)
    columns = {"author": "category", "state": "category", "strategy": "category"}
    submissions = submissions.astype(columns)
    other = rank(submissions, evaluations, runs, compared, PAIRS, 500 * HOUR)
    assert ranks(one) == ranks(other) and one.pending == other.pending


def test_a_hundred_thousand_entries_take_seconds_at_most() -> None:
    """No timing: a loop over entries in Python would run into the suite's time limit tenfold at scale."""
    count = 100_000
    ids = np.arange(1, count + 1)
    submissions = pd.DataFrame(
        {
            "author": [f"author {n % 999}" for n in range(count)],
            "at": ids * 1.0,
            "program": [str(n) for n in range(count)],
            "strategy": "dp 2",
            "world_size": 2,
            "hardware": "H100",
            "isolation": "docker",
            "state": "judged",
        },
        index=ids,
    )
    evaluations = pd.DataFrame(
        {"submission": ids, "at": ids * 1.0, "verdict": "accepted", "failed_runs": 0}, index=ids
    )
    runs = pd.DataFrame({"evaluation": ids, "mfu": ids / count})
    empty = Season().frames()[3]
    ranking = rank(submissions, evaluations, runs, empty, PAIRS, 1e6)
    assert ranking.leader == 1
    assert len(board(ranking)) == 999
    assert ranking.pending[0] == (count, 1) and len(ranking.pending) == 100


def test_the_example_of_the_documentation() -> None:
    """docs/scoring.md, row by row."""
    season = Season()
    one = season.submit("ann", 0, [0.300, 0.310, 0.305])
    assert season.rank(PAIRS, 0).entries.loc[one, "score"] == 0.305
    two = season.submit("bob", 5, 0.307)
    assert season.rank(PAIRS, 5).pending == ()
    three = season.submit("cid", 10, 0.3355, program="p")
    assert season.rank(PAIRS, 10).pending == ((three, one),)
    season.compare(three, one, 12, faster=True)
    assert season.rank(PAIRS, 12).leader == three
    four = season.submit("dot", 20, 0.3523)
    for hour, threshold, owed in (
        (12, 0.100, ()),
        (20, 0.081, ()),
        (36, 0.055, ()),
        (41, 0.049, ((four, three),)),
    ):
        found = season.rank(PAIRS, hour)
        assert found.threshold == pytest.approx(threshold, abs=6e-4)
        assert found.pending == owed
    season.compare(four, three, 41, faster=False)
    five = season.submit("eve", 50, 0.40, program="p")
    assert season.rank(PAIRS, 50).threshold == pytest.approx(0.040, abs=6e-4)
    later = season.rank(PAIRS, 60)
    assert later.threshold == pytest.approx(0.0325)
    assert list(board(later).index) == [three, four, two, one]
    assert later.pending == () and later.entries.loc[five, "copy_of"] == three
    season.submissions[three - 1]["state"] = "invalidated"
    last = season.rank(PAIRS, 70)
    assert leaders(last) == [(0.0, one)]
    assert last.threshold == 0.01
    assert last.pending == ((four, one),)
    assert last.entries.loc[five, "copy_of"] == three
