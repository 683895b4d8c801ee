"""From the store's tables to the frames that `rank` takes.

A million rows have to come in seconds and without a gigabyte: they are read in blocks, past the row objects
of the database library, and each block becomes columns of Arrow at once. Nothing is sorted by the database:
numbers are already in order in one of its two, and here it takes a moment. What is large and only compared,
as the hash of a program, becomes numbers.
"""

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
from sqlalchemy import Integer, Select, cast, select
from sqlalchemy.orm import Session

from harness.board.memory import given_back
from harness.board.states import EvaluationState
from harness.board.tables import Author, Comparison, Evaluation, Submission

BLOCK_ROWS: Final = 10_000

#: "word": one of few texts, kept once; "digest": 32 bytes in hexadecimal; "blob": bytes. None is empty.
Kind = Literal["int64", "float64", "bool", "word", "digest", "blob"]
DIGEST_BYTES: Final = 32
TYPES: Final[dict[Kind, pa.DataType]] = {
    "int64": pa.int64(),
    "float64": pa.float64(),
    "bool": pa.int64(),
    "word": pa.string(),
    "digest": pa.binary(DIGEST_BYTES),
    "blob": pa.binary(),
}


@dataclass(frozen=True)
class SeasonFrames:
    """What `rank.rank` wants of a season; it says which columns."""

    submissions: pd.DataFrame
    evaluations: pd.DataFrame
    runs: pd.DataFrame
    comparisons: pd.DataFrame


def season_frames(session: Session, season: int) -> SeasonFrames:
    """Read a season, of one moment."""
    with given_back():
        submissions = _submissions(session, season)
    with given_back():
        evaluations, runs = _evaluations(session, season)
    accepted = evaluations[evaluations["verdict"] == "accepted"]
    judged_as = accepted.drop_duplicates("submission", keep="last").set_index("submission")
    for column in ("hardware", "isolation"):
        # A file does not say where it is judged: it is where it was accepted last.
        known = judged_as[column].reindex(submissions.index)
        words = known.cat.categories.union([""])
        submissions[column] = known.cat.set_categories(words).fillna("")
    evaluations = evaluations.drop(columns=["hardware", "isolation"])
    return SeasonFrames(submissions, evaluations, runs, _comparisons(session, season))


def _submissions(session: Session, season: int) -> pd.DataFrame:
    query = select(
        Submission.id,
        Submission.author_id,
        Submission.at,
        Submission.program,
        Submission.strategy,
        Submission.world_size,
        Submission.state,
    ).where(Submission.season_id == season)
    kinds: dict[str, Kind] = {
        "submission": "int64",
        "author": "int64",
        "at": "float64",
        "program": "digest",
        "strategy": "word",
        "world_size": "int64",
        "state": "word",
    }
    table = _table(session, query, kinds, "submission")
    programs = _codes(table["program"])
    frame = _to_pandas(table.drop_columns("program"))
    frame["program"] = programs
    frame["author"] = _names(session, frame["author"])
    return frame.set_index("submission")


def _codes(digests: pa.ChunkedArray) -> pd.Categorical:
    """Which of them are equal, exactly: a number for each that is different, none for a missing one.

    Word by word, since a table of a million texts or bytes would take several times what they do.
    """
    blocks = [np.frombuffer(block.buffers()[1], "<u8") for block in digests.chunks]
    words = np.concatenate([np.empty(0, "<u8"), *blocks]).reshape(-1, DIGEST_BYTES // 8)
    codes = np.zeros(len(words), np.int64)
    for word in words.T:
        codes = pd.factorize(codes * len(words) + pd.factorize(word)[0])[0]
    codes[~words.any(axis=1)] = -1
    return pd.Categorical.from_codes(codes, pd.RangeIndex(codes.max(initial=-1) + 1))


def _names(session: Session, authors: "pd.Series[int]") -> pd.Categorical:
    """Of authors by number: far fewer than rows, so they are looked up once each."""
    codes, numbers = pd.factorize(authors)
    rows = session.execute(select(Author.id, Author.name))
    known = {row.id: row.name for row in rows}
    return pd.Categorical.from_codes(codes, [known[number] for number in numbers.tolist()])


def _evaluations(session: Session, season: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Finished evaluations, and the MFU of every run."""
    query = (
        select(
            Evaluation.id,
            Evaluation.submission_id,
            Evaluation.finished_at,
            Evaluation.verdict,
            Evaluation.failed_runs,
            Evaluation.hardware,
            Evaluation.isolation,
            Evaluation.run_mfus,
        )
        .join(Submission, Submission.id == Evaluation.submission_id)
        .where(Submission.season_id == season, Evaluation.state == EvaluationState.FINISHED)
    )
    kinds: dict[str, Kind] = {
        "evaluation": "int64",
        "submission": "int64",
        "at": "float64",
        "verdict": "word",
        "failed_runs": "int64",
        "hardware": "word",
        "isolation": "word",
        "run_mfus": "blob",
    }
    table = _table(session, query, kinds, "evaluation")
    blobs = pa.concat_arrays([pa.array([], pa.binary()), *table["run_mfus"].chunks])
    frame = _to_pandas(table.drop_columns("run_mfus"))
    offsets = np.frombuffer(blobs.buffers()[1], np.int32, len(blobs) + 1)
    mfus = b"" if blobs.buffers()[2] is None else blobs.buffers()[2]
    runs = pd.DataFrame(
        {
            "evaluation": np.repeat(frame["evaluation"].to_numpy(), np.diff(offsets) // 8),
            "mfu": np.frombuffer(mfus, "<f8", offsets[-1] // 8),
        }
    )
    return frame.set_index("evaluation"), runs


def _comparisons(session: Session, season: int) -> pd.DataFrame:
    query = select(
        Comparison.at,
        Comparison.contender_id,
        Comparison.leader_id,
        cast(Comparison.faster, Integer),  # SQLite has nothing else
    ).where(Comparison.season_id == season)
    kinds: dict[str, Kind] = {
        "at": "float64",
        "contender": "int64",
        "leader": "int64",
        "faster": "bool",
    }
    return _frame(session, query, kinds)


def _frame(
    session: Session, query: Select[*tuple[Any, ...]], kinds: dict[str, Kind]
) -> pd.DataFrame:
    return _to_pandas(_table(session, query, kinds))


def _to_pandas(table: pa.Table) -> pd.DataFrame:
    """The frame takes the columns over; the table may not be used after it."""
    return table.to_pandas(split_blocks=True, self_destruct=True)


def _table(
    session: Session,
    query: Select[*tuple[Any, ...]],
    kinds: dict[str, Kind],
    number: str | None = None,
) -> pa.Table:
    """The columns of a query, named and made as `kinds` says; rows by their `number`, or in any order."""
    columns: list[list[pa.Array]] = [[] for _ in kinds]
    with _no_collections():
        for rows in _blocks(session, query):
            blocks = zip(kinds.values(), zip(*rows, strict=True), strict=True)
            for column, (kind, values) in zip(columns, blocks, strict=True):
                column.append(_array(values, kind))
    read = pa.table(
        {
            name: pa.chunked_array(blocks, TYPES[kind])
            for (name, kind), blocks in zip(kinds.items(), columns, strict=True)
        }
    )
    if number is not None:
        read = _in_order(read, number)
    # Words and names are numbered in the order in which they come.
    return pa.table({name: _finish(read[name], kind) for name, kind in kinds.items()})


def _in_order(table: pa.Table, number: str) -> pa.Table:
    """Rows by their number. To sort what is in order would copy it."""
    in_order = bool((np.diff(table[number].to_numpy()) > 0).all())
    return table if in_order else table.sort_by(number)


def _array(values: tuple[Any, ...], kind: Kind) -> pa.Array:
    if kind != "digest":
        return pa.array(values, TYPES[kind])
    empty = "0" * 2 * DIGEST_BYTES
    all_bytes = bytes.fromhex("".join([value or empty for value in values]))
    buffers = [None, pa.py_buffer(all_bytes)]
    return pa.FixedSizeBinaryArray.from_buffers(TYPES[kind], len(values), buffers)


def _finish(column: pa.ChunkedArray, kind: Kind) -> pa.ChunkedArray:
    match kind:
        case "word":
            return column.dictionary_encode().unify_dictionaries()
        case "bool":
            return column.cast(pa.bool_())
        case "blob":
            return column.fill_null(b"")
        case _:
            return column


@contextmanager
def _no_collections() -> Iterator[None]:
    """Millions of tuples, none of them in a circle: to look through them again and again takes a third
    of the time. If two threads read at once, the first to end turns collections on again for both.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


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
