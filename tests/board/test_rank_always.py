"""The ranking is always the same: whatever the order of rows, gaps in numbers, or the size of a season."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from harness.board.rule import ScoringRule
from tests.board.made_up import HOUR, PAIRS, Season, board_of, leaders, rank_frames, ranks

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
        one = rank_frames(*frames, rule, 500 * HOUR)
        a, b, c, d = (frame.sample(frac=1, random_state=seed) for frame in frames)
        other = rank_frames(a, b, c, d, rule, 500 * HOUR)
        assert one.pending == other.pending and one.threshold == other.threshold
        assert_frame_equal(one.records, other.records, check_exact=True)
        assert_frame_equal(one.entries, other.entries, check_exact=True)
        assert len(one.records) > 0


def test_a_season_without_anything_has_an_empty_board() -> None:
    ranking = Season().rank()
    assert (ranking.leader, ranking.pending, ranking.threshold) == (None, (), 0.01)
    assert board_of(ranking).empty and board_of(ranking, every=True).empty


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
    renumbered = rank_frames(
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
    one = rank_frames(submissions, evaluations, runs, compared, PAIRS, 500 * HOUR)
    columns = {"author": "category", "state": "category", "strategy": "category"}
    submissions = submissions.astype(columns)
    other = rank_frames(submissions, evaluations, runs, compared, PAIRS, 500 * HOUR)
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
    ranking = rank_frames(submissions, evaluations, runs, empty, PAIRS, 1e6)
    assert ranking.leader == 1
    assert len(board_of(ranking)) == 999
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
    assert list(board_of(later).index) == [three, four, two, one]
    assert later.pending == () and later.entries.loc[five, "copy_of"] == three
    season.submissions[three - 1]["state"] = "invalidated"
    last = season.rank(PAIRS, 70)
    assert leaders(last) == [(0.0, one)]
    assert last.threshold == 0.01
    assert last.pending == ((four, one),)
    assert last.entries.loc[five, "copy_of"] == three
