"""What programs are told of a board: the rows of the one ranking, as they stand in the terminal's table."""

from harness.board.leaderboard import rank_season
from harness.board.rows import Listing, listing
from harness.board.store import Store
from tests.board.examples import accepted_result, board_with, hand_in, judge_next, rejected_result


def listed(store: Store, *, limit: int = 25, all_entries: bool = False) -> Listing:
    ranking = rank_season(store, 1)
    with store.read() as session:
        return listing(session, "autumn", ranking, limit=limit, all_entries=all_entries)


def test_who_is_ranked_comes_first_and_the_others_say_why_not(store: Store) -> None:
    board_with(store, "ada", "ben", "eve")
    for author, number in (("eve", 1), ("ben", 2), ("ada", 3)):
        hand_in(store, author, number)
    assert judge_next(store, rejected_result()) == 1
    assert judge_next(store, accepted_result((0.3, 0.3, 0.3))) == 2
    assert judge_next(store, accepted_result((0.40, 0.42, 0.41))) == 3
    ranked = listed(store)
    assert [(row.rank, row.author, row.score) for row in ranked.entries] == [
        (1, "ada", 0.41),
        (2, "ben", 0.3),
    ]
    assert (ranked.leader, ranked.total) == (3, 2)
    every = listed(store, all_entries=True)
    assert [(row.rank, row.why_not) for row in every.entries] == [
        (1, None),
        (2, None),
        (None, "rejected"),
    ]
    assert every.total == 3


def test_a_listing_that_is_cut_says_how_much_there_is(store: Store) -> None:
    board_with(store, "ada", "ben")
    for author, number in (("ada", 1), ("ben", 2)):
        hand_in(store, author, number)
        judge_next(store, accepted_result((0.3, 0.3, 0.3)))
    cut = listed(store, limit=1)
    assert (len(cut.entries), cut.total) == (1, 2)
    assert cut.entries[0].file_name.endswith(".py")
