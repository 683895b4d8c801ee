"""The board in a terminal of 80 columns: nothing is cut off, whatever people are called."""

import io

from rich.console import Console, RenderableType

from harness.board.leaderboard import rank_season
from harness.board.store import Store
from harness.board.tell import board_table, queue_table, seasons_table
from harness.board.views import seasons_view
from harness.board.waiting import queue_view
from tests.board.examples import accepted_result, board_with, hand_in, judge_next, rejected_result

LONG = "an-author-with-a-name-of-forty-characters"


def printed(*tables: RenderableType, width: int = 80) -> str:
    screen = Console(width=width, file=io.StringIO())
    with screen.capture() as captured:
        for table in tables:
            screen.print(table)
    return captured.get()


def long_names(store: Store) -> None:
    """One that is ranked, one that was rejected, one that waits."""
    board_with(store, "ada", LONG)
    for author, number in (("ada", 1), (LONG, 2), (LONG, 3)):
        hand_in(store, author, number)
    # Who has waited longest since one of theirs was started is next.
    assert judge_next(store, accepted_result((0.40, 0.42, 0.41))) == 1
    assert judge_next(store, rejected_result()) == 2


def test_what_is_ranked_stands_above_what_is_not_and_why(store: Store) -> None:
    long_names(store)
    ranking = rank_season(store, 1)
    said = printed(board_table("autumn", ranking, limit=25, all_entries=True))
    ranked, others = said.split("not ranked")
    assert "41.00 %" in ranked and "40.00–42.00" in ranked and "ada" in ranked
    assert "rejected" in others and "not judged yet" in others
    assert "not ranked" not in printed(board_table("autumn", ranking, limit=25))


def test_eighty_columns_are_enough(store: Store) -> None:
    long_names(store)
    ranking = rank_season(store, 1)
    with store.read() as session:
        tables = (seasons_table(seasons_view(session)), queue_table(queue_view(session)))
    said = printed(board_table("autumn", ranking, limit=25, all_entries=True), *tables)
    assert "…" not in said
    assert max(map(len, said.splitlines())) <= 80
    assert LONG in printed(board_table("autumn", ranking, limit=25, all_entries=True), width=160)
