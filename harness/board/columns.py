"""From rows of a database to columns: a million in seconds, and in little more memory than they take.

Rows are read in blocks, past the row objects of the database library, and each block becomes arrays at
once. Nothing is sorted by the database: in one of its two numbers are already in order, and here it takes a
moment.
"""

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd
from sqlalchemy import Select
from sqlalchemy.orm import Session

BLOCK_ROWS: Final = 10_000
DIGEST_BYTES: Final = 32
#: In so many parts digests are told apart: a table of all would be larger than they are.
PARTS: Final = 16

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]


class Column(Protocol):
    """One column that is being read."""

    def add(self, values: tuple[Any, ...]) -> None:
        """The next block of rows."""


class Numbers:
    """A number in each row; where it is a float, NaN for none."""

    def __init__(self, dtype: str) -> None:
        self._dtype = dtype
        self._blocks: list[Array] = []

    def add(self, values: tuple[Any, ...]) -> None:
        self._blocks.append(np.array(values, self._dtype))

    def whole(self) -> Array:
        """All of them; the column is empty after it, so that they are not there twice."""
        return _joined(self._blocks, np.empty(0, self._dtype))


class Words:
    """One of few texts, or none, in each row; a text is kept once."""

    def __init__(self) -> None:
        self._codes: dict[str | None, int] = {None: -1}
        self._numbers = Numbers("int32")

    def add(self, values: tuple[Any, ...]) -> None:
        for value in dict.fromkeys(values):
            self._codes.setdefault(value, len(self._codes) - 1)
        self._numbers.add(tuple(map(self._codes.__getitem__, values)))

    def whole(self, order: Ints | None) -> pd.Categorical:
        """In that order of rows, and numbered in the order in which they come then."""
        codes = in_order(self._numbers.whole(), order)
        texts = np.array([text for text in self._codes if text is not None], object)
        came = pd.unique(codes)
        return pd.Categorical.from_codes(codes, texts).set_categories(texts[came[came >= 0]])


class Digests:
    """32 bytes in hexadecimal, or none, in each row: of interest is only which are equal."""

    def __init__(self) -> None:
        self._blocks: list[Array] = []

    def add(self, values: tuple[Any, ...]) -> None:
        empty = "0" * 2 * DIGEST_BYTES
        everything = bytes.fromhex("".join([value or empty for value in values]))
        self._blocks.append(np.frombuffer(everything, "<u8").reshape(len(values), -1))

    def whole(self, order: Ints | None) -> pd.Categorical:
        """A number for each that is different, none for a missing one."""
        words = _joined(self._blocks, np.empty((0, DIGEST_BYTES // 8), "<u8"))
        return which_are_equal(in_order(words, order))


class Floats64:
    """Some float64, as their bytes, or none, in each row."""

    def __init__(self) -> None:
        self._lengths = Numbers("int64")
        self._values: list[Array] = []

    def add(self, values: tuple[Any, ...]) -> None:
        blobs = [value or b"" for value in values]
        self._lengths.add(tuple(len(blob) // 8 for blob in blobs))
        self._values.append(np.frombuffer(b"".join(blobs), "<f8"))

    def whole(self) -> tuple[Ints, npt.NDArray[np.float64]]:
        """How many each row has, and all of them, row by row as they came."""
        return self._lengths.whole(), _joined(self._values, np.empty(0, "<f8"))


def read(session: Session, query: Select[*tuple[Any, ...]], columns: Sequence[Column]) -> None:
    """Fill columns with what a query gives, in any order."""
    with _few_collections():
        for rows in _blocks(session, query):
            for column, values in zip(columns, zip(*rows, strict=True), strict=True):
                column.add(values)


def in_order(values: Array, order: Ints | None) -> Array:
    return values if order is None else values[order]


def which_are_equal(words: Array) -> pd.Categorical:
    """Which rows of a uint64 matrix are equal, exactly; rows of zeros are missing.

    The first words tell digests apart, and the others only have to agree: a table of all bytes would take
    several times what they do.
    """
    codes = _numbered(words[:, 0])
    first = np.zeros(codes.max(initial=-1) + 1, np.int32)
    first[codes[::-1]] = np.arange(len(codes), dtype=np.int32)[::-1]
    for begin in range(0, len(words), BLOCK_ROWS):
        block = slice(begin, begin + BLOCK_ROWS)
        if (words[block] != words[first[codes[block]]]).any():
            codes = np.unique(words, axis=0, return_inverse=True)[1].ravel()
            break
    codes = np.where(words.any(axis=1), codes, -1)
    return pd.Categorical.from_codes(codes, pd.RangeIndex(codes.max(initial=-1) + 1))


def _numbered(values: Array) -> Array:
    """A number for each value, equal ones the same, int32: by parts, whose tables are small."""
    codes, count = np.empty(len(values), np.int32), 0
    part = (values % PARTS).astype(np.uint8)
    for number in range(PARTS):
        here = np.flatnonzero(part == number)
        found, distinct = pd.factorize(values[here])
        codes[here] = found + count
        count += len(distinct)
    return codes


def _joined(blocks: list[Array], empty: Array) -> Array:
    whole = np.concatenate([empty, *blocks])
    blocks.clear()
    return whole


@contextmanager
def _few_collections() -> Iterator[None]:
    """A block of rows is no garbage: to look through each again and again takes a third of the time.

    They go on all the same, for whatever other threads do meanwhile. If two read at once, the first to
    begin sets the threshold back, for both.
    """
    before, wanted = gc.get_threshold(), 2 * BLOCK_ROWS
    if not 0 < before[0] < wanted:  # so it is already, or there are none at all
        yield
        return
    gc.set_threshold(wanted, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _blocks(
    session: Session, query: Select[*tuple[Any, ...]]
) -> Iterator[Sequence[tuple[Any, ...]]]:
    result = session.connection().execute(query)
    cursor = result.cursor  # the driver's own: its rows are tuples
    assert cursor is not None
    try:
        while rows := cursor.fetchmany(BLOCK_ROWS):
            yield rows
    finally:
        result.close()
