"""Columns that are read block by block: nothing is lost between them, and what is missing stays missing."""

import gc

import numpy as np
import pytest

from harness.board.columns import (
    Digests,
    Floats64,
    Numbers,
    Words,
    _few_collections,
    in_order,
)
from harness.board.scores import ascending

SAME_BEGINNING = ["00" * 31 + "01", "00" * 31 + "02", "00" * 31 + "01"]


def test_numbers_of_several_blocks_come_in_the_order_of_the_rows() -> None:
    column = Numbers("int64")
    column.add((3, 1))
    column.add((2,))
    assert column.whole().tolist() == [3, 1, 2]
    assert len(column.whole()) == 0, "they would be in memory twice"


def test_a_number_that_is_missing_is_not_one() -> None:
    column = Numbers("float64")
    column.add((1.5, None))
    assert np.isnan(column.whole()).tolist() == [False, True]


def test_words_are_numbered_as_they_come_after_sorting() -> None:
    """Rows come in any order from PostgreSQL: the frames have to be the same."""
    first, second = Words(), Words()
    first.add(("b", None, "a"))
    first.add(("b",))
    second.add(("b", "b", None))
    second.add(("a",))
    sorted_first = first.whole(None)
    sorted_second = second.whole(np.array([0, 2, 3, 1]))
    assert sorted_first.tolist() == sorted_second.tolist() == ["b", np.nan, "a", "b"]
    assert sorted_first.categories.tolist() == sorted_second.categories.tolist() == ["b", "a"]


def test_words_that_are_all_missing_are_of_no_category() -> None:
    column = Words()
    column.add((None, None))
    whole = column.whole(None)
    assert whole.isna().all() and len(whole.categories) == 0


@pytest.mark.parametrize(
    ("digests", "codes"),
    [
        (["ab" * 32, "cd" * 32, "ab" * 32], [0, 1, 0]),
        (["ab" * 32, None, "ab" * 32, None], [0, -1, 0, -1]),
    ],
)
def test_equal_digests_have_equal_numbers(digests: list[str | None], codes: list[int]) -> None:
    column = Digests()
    column.add(tuple(digests))
    whole = column.whole(None)
    assert [code if code < 0 else whole.codes.tolist().index(code) for code in whole.codes] == [
        code if code < 0 else codes.index(code) for code in codes
    ]


def test_digests_that_begin_alike_are_told_apart() -> None:
    """Numbers of their first words alone would make copies of them."""
    column = Digests()
    column.add(tuple(SAME_BEGINNING))
    one, two, three = column.whole(None).codes
    assert one == three != two


def test_floats_of_a_row_may_be_none_or_many() -> None:
    column = Floats64()
    column.add((np.array([1.0, 2.0]).tobytes(), None))
    column.add((b"", np.array([3.0]).tobytes()))
    counts, values = column.whole()
    assert counts.tolist() == [2, 0, 0, 1]
    assert values.tolist() == [1.0, 2.0, 3.0]


def test_what_is_in_order_is_not_sorted() -> None:
    assert ascending(np.array([1, 2, 5])) is None
    order = ascending(np.array([2, 1, 5]))
    assert in_order(np.array([20, 10, 50]), order).tolist() == [10, 20, 50]


def test_two_that_read_at_once_leave_the_collections_as_they_were() -> None:
    """However their beginnings and ends lie."""
    before = gc.get_threshold()
    first, second = _few_collections(), _few_collections()
    first.__enter__()
    assert gc.get_threshold() != before
    second.__enter__()
    first.__exit__(None, None, None)
    second.__exit__(None, None, None)
    assert gc.get_threshold() == before
