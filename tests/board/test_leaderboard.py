"""From the store to the ranking: what was written down is what is ranked, on any machine."""

import threading
from pathlib import Path

import pandas as pd
import pytest
from sqlalchemy import select

from harness.board import events as ev
from harness.board import leaderboard
from harness.board.events import Stamped
from harness.board.leaderboard import Leaderboard, rank_season
from harness.board.organise import invalidate, release
from harness.board.project import apply
from harness.board.rank import Ranking
from harness.board.rule import ScoringRule
from harness.board.store import Store, open_store
from harness.board.submit import cancel
from harness.board.tables import EventRow
from harness.errors import Code, InputError
from tests.board.conftest import Raw
from tests.board.examples import (
    accepted_result,
    board_with,
    error_result,
    hand_in,
    judge_next,
    rejected_result,
)


def places(ranking: Ranking) -> dict[int, int]:
    """Rank by submission, of those that have one."""
    ranks = ranking.entries["rank"].dropna()
    return {int(number): int(rank) for number, rank in ranks.items()}


def why_not(store: Store, number: int) -> str:
    return str(rank_season(store, 1).entries["why_not"][number])


def three(store: Store) -> None:
    """Ada with 0.40, then Bob with 0.50, then Cyd with 0.30; no paired runs are asked for."""
    board_with(store, "ada", "bob", "cyd")
    for number, (author, mfu) in enumerate((("ada", 0.40), ("bob", 0.50), ("cyd", 0.30)), 1):
        assert hand_in(store, author, number) == number
        judge_next(store, accepted_result((mfu,)))


def test_a_season_without_submissions_has_a_board(store: Store) -> None:
    board_with(store)
    ranking = rank_season(store, 1)
    assert len(ranking.entries) == 0
    assert ranking.leader is None
    assert ranking.pending == ()


def test_a_season_that_is_not_there_has_none(store: Store) -> None:
    for ask in (lambda: rank_season(store, 1), lambda: Leaderboard(store).ranking(1)):
        with pytest.raises(InputError) as caught:
            ask()
        assert caught.value.code is Code.UNKNOWN_ID


def test_a_score_is_the_median_of_all_runs_with_its_spread(store: Store) -> None:
    board_with(store, "ada")
    hand_in(store, "ada")
    judge_next(store, accepted_result((0.40, 0.46, 0.41)))
    (entry,) = rank_season(store, 1).entries.to_dict("records")
    assert (entry["score"], entry["low"], entry["high"], entry["runs"]) == (0.41, 0.40, 0.46, 3)
    assert (entry["author"], entry["strategy"], entry["world_size"]) == ("ada", "dp 2", 2)
    assert entry["hardware"] == "2 x NVIDIA H100 80GB HBM3"
    assert (entry["rank"], entry["success_rate"], entry["alarm"]) == (1, 1.0, False)


def test_the_faster_is_before_the_slower(store: Store) -> None:
    three(store)
    ranking = rank_season(store, 1)
    assert places(ranking) == {2: 1, 1: 2, 3: 3}
    assert ranking.leader == 2
    assert list(ranking.records["submission"]) == [1, 2]


def test_an_author_has_one_entry(store: Store) -> None:
    three(store)
    hand_in(store, "cyd", 4)
    judge_next(store, accepted_result((0.45,)))
    assert places(rank_season(store, 1)) == {2: 1, 4: 2, 1: 3}
    assert "better one" in why_not(store, 3)


def test_an_invalidated_leader_gives_the_lead_back_until_it_is_released(store: Store) -> None:
    three(store)
    invalidate(store, 2, "trained on the test rows")
    assert places(rank_season(store, 1)) == {1: 1, 3: 2}
    assert why_not(store, 2) == "invalidated"
    release(store, 2, "a mistake of ours")
    assert places(rank_season(store, 1)) == {2: 1, 1: 2, 3: 3}


def test_what_has_no_accepted_run_is_not_ranked(store: Store) -> None:
    board_with(store, "ada", rule=ScoringRule(max_attempts=1, pairs=0))
    hand_in(store, "ada", 1)
    judge_next(store, rejected_result())
    hand_in(store, "ada", 2)
    judge_next(store, error_result())
    cancel(store, hand_in(store, "ada", 3))
    hand_in(store, "ada", 4)
    ranking = rank_season(store, 1)
    assert places(ranking) == {}
    reasons = [str(reason) for reason in ranking.entries["why_not"]]
    assert reasons == ["rejected", "we could not judge it", "cancelled", "not judged yet"]


def test_what_waits_for_the_organiser_is_not_ranked(store: Store) -> None:
    board_with(store, "ada")
    for result in (rejected_result(), accepted_result((0.9,))):
        hand_in(store, "ada", 1)
        judge_next(store, result)
    assert places(rank_season(store, 1)) == {}
    assert why_not(store, 2) == "waits for the organiser"


def test_a_copy_does_not_take_its_original_s_place(store: Store) -> None:
    three(store)
    hand_in(store, "cyd", 2)
    judge_next(store, accepted_result((0.55,)))
    ranking = rank_season(store, 1)
    assert places(ranking) == {2: 1, 1: 2, 3: 3}
    assert ranking.entries["copy_of"][4] == 2


def test_the_main_board_is_of_the_season_s_hardware_and_isolation(store: Store) -> None:
    board_with(store, "ada", "bob", "cyd")
    for number, (author, result) in enumerate(
        (
            ("ada", accepted_result((0.5,), devices=("AMD EPYC",))),
            ("bob", accepted_result((0.5,), isolation="none")),
            ("cyd", accepted_result((0.4,), isolation="bubblewrap")),
        )
    ):
        hand_in(store, author, number)
        judge_next(store, result)
    assert places(rank_season(store, 1)) == {3: 1}
    assert "hardware" in why_not(store, 1)
    assert "isolation" in why_not(store, 2)


def test_an_error_on_the_way_to_a_verdict_changes_nothing(store: Store) -> None:
    board_with(store, "ada")
    hand_in(store, "ada")
    judge_next(store, error_result())
    judge_next(store, accepted_result((0.4,)))
    (entry,) = rank_season(store, 1).entries.to_dict("records")
    assert (entry["score"], entry["runs"], entry["success_rate"]) == (0.4, 1, 1.0)


def test_a_contender_takes_the_lead_when_it_was_shown_to_be_faster(store: Store) -> None:
    board_with(store, "ada", "bob", rule=ScoringRule())
    for number, (author, mfu) in enumerate((("ada", 0.40), ("bob", 0.50)), 1):
        hand_in(store, author, number)
        judge_next(store, accepted_result((mfu,)))
    before = rank_season(store, 1)
    assert (before.leader, before.pending) == (1, ((2, 1),))
    with store.write() as writer:
        writer.append(
            ev.Compared(
                season=1, contender=2, leader=1, ratios=(1.25,), ratio=1.25, low=1.2, faster=True
            )
        )  # fmt: skip
    after = rank_season(store, 1)
    assert (after.leader, after.pending) == (2, ())


def test_seasons_do_not_mix(store: Store) -> None:
    three(store)
    board_with(store, season="winter")
    hand_in(store, "ada", 9, season="winter")
    judge_next(store, accepted_result((0.99,)))
    assert places(rank_season(store, 1)) == {2: 1, 1: 2, 3: 3}
    assert places(rank_season(store, 2)) == {4: 1}


def test_a_ranking_is_kept_until_something_happens_or_time_has_passed(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    three(store)
    board = Leaderboard(store)
    first = board.ranking(1)
    assert board.ranking(1) is first
    hand_in(store, "ada", 4)
    second = board.ranking(1)
    assert second is not first
    assert len(second.entries) == 4
    assert board.ranking(1) is second
    monkeypatch.setattr(leaderboard, "FRESH_SECONDS", 0.0)
    assert board.ranking(1) is not second


def test_many_may_ask_at_once_and_get_the_same(store: Store) -> None:
    three(store)
    board, found = Leaderboard(store), list[Ranking]()
    threads = [threading.Thread(target=lambda: found.append(board.ranking(1))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6
    assert len({id(ranking) for ranking in found}) == 1


def test_the_order_in_which_a_store_keeps_its_rows_changes_nothing(store: Store, raw: Raw) -> None:
    """PostgreSQL puts a row that was changed behind all others."""
    three(store)
    now = store.now()
    before = rank_season(store, 1, now)
    for state in (
        "held",
        "judged",
    ):  # a column with an index: else the row would keep its place in it
        raw(f"UPDATE submissions SET state = '{state}' WHERE id = 1")
    pd.testing.assert_frame_equal(before.entries, rank_season(store, 1, now).entries)


def test_the_same_events_give_the_same_board_in_another_store(store: Store, tmp_path: Path) -> None:
    three(store)
    invalidate(store, 2, "trained on the test rows")
    hand_in(store, "bob", 5)
    judge_next(store, accepted_result((0.47, 0.48)))
    other = open_store(f"sqlite:///{tmp_path / 'other.sqlite'}")
    with store.read() as session, other.write() as writer:
        for row in session.scalars(select(EventRow).order_by(EventRow.id)):
            event = Stamped.body.validate_json(row.body)
            apply(writer.session, Stamped(id=row.id, at=row.at, event=event))
            writer.session.flush()
    now = store.now()
    mine, theirs = rank_season(store, 1, now), rank_season(other, 1, now)
    other.close()
    pd.testing.assert_frame_equal(mine.entries, theirs.entries)
    pd.testing.assert_frame_equal(mine.records, theirs.records)
    assert (mine.pending, mine.threshold) == (theirs.pending, theirs.threshold)
    assert places(mine) == {4: 1, 1: 2, 3: 3}
