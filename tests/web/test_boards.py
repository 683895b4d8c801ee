"""What a board's page is made of: cheaply, once for all who ask, and gone with its ranking."""

import gc
import threading
import time
import weakref

import pytest

from harness.board.leaderboard import Leaderboard, rank_season
from harness.board.rank import Ranking
from harness.board.store import Store
from harness.web import boards
from harness.web.boards import MAX_DOTS, Boards, Dot
from tests.board.examples import accepted_result, hand_in, judge_next
from tests.board.made_up import Season


def many(entries: int) -> Ranking:
    """Each by an author of its own, an hour apart; every third one is faster than its neighbours."""
    season = Season()
    for number in range(entries):
        season.submit(f"author-{number}", number, 0.4 if number % 3 == 0 else 0.3)
    return season.rank(hour=entries)


def test_of_very_many_entries_the_chart_shows_the_best_of_each_stretch_of_time() -> None:
    dots = boards._dots(many(3 * MAX_DOTS))
    assert len(dots) == MAX_DOTS
    assert [dot.at for dot in dots] == sorted(dot.at for dot in dots)
    assert {dot.score for dot in dots} == {0.4}


def test_of_few_entries_the_chart_shows_all() -> None:
    assert len(boards._dots(many(MAX_DOTS))) == MAX_DOTS


def test_what_was_handed_in_at_one_moment_is_one_dot() -> None:
    season = Season()
    for number in range(MAX_DOTS + 1):
        season.submit(f"author-{number}", 1, 0.2 + number / 1000)
    (dot,) = boards._dots(season.rank())
    assert dot.submission == MAX_DOTS + 1


@pytest.fixture
def judged(store: Store) -> Store:
    hand_in(store, "alice")
    judge_next(store, accepted_result((0.4, 0.4)))
    return store


def test_who_asks_while_it_is_made_waits_for_it_and_makes_it_not_again(
    judged: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    def slowly(ranking: Ranking) -> tuple[Dot, ...]:
        made.append(ranking)
        time.sleep(0.2)
        return ()

    monkeypatch.setattr(boards, "_dots", slowly)
    here = Boards(judged, Leaderboard(judged))
    asking = [threading.Thread(target=here.dots, args=(1,)) for _ in range(4)]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    assert len(made) == 1


def test_a_ranking_that_is_outdated_is_not_held_by_what_was_made_of_it(
    judged: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of a million entries takes 75 MB."""
    leaderboard = Leaderboard(judged)
    here = Boards(judged, leaderboard)
    here.dots(1)
    outdated = weakref.ref(leaderboard.ranking(1))
    hand_in(judged, "bob", 2)
    assert leaderboard.ranking(1) is not outdated()
    gc.collect()
    assert outdated() is None
    assert len(here.dots(1)) == 1 and rank_season(judged, 1).leader == 1
