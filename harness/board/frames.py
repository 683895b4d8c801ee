"""From the store's tables to the frames that `rank` takes.

A million rows have to come in seconds and without a gigabyte: they are read in blocks, past the row objects
of the database library, and each block becomes typed arrays at once.
"""

import gc
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from harness.board.states import EvaluationState
from harness.board.tables import Author, Comparison, Evaluation, Submission

BLOCK_ROWS: Final = 50_000

#: "word": one of few texts, kept once; "text": any; "blob": bytes, None is empty.
Kind = Literal["int64", "float64", "bool", "word", "text", "blob"]
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class SeasonFrames:
    """What `rank.rank` wants of a season; it says which columns."""

    submissions: pd.DataFrame
    evaluations: pd.DataFrame
    runs: pd.DataFrame
    comparisons: pd.DataFrame


def season_frames(session: Session, season: int) -> SeasonFrames:
    """Read a season, of one moment."""
    submissions = _submissions(session, season)
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
    query = (
        select(
            Submission.id,
            Author.name,
            Submission.at,
            Submission.program,
            Submission.strategy,
            Submission.world_size,
            Submission.state,
        )
        .join(Author, Author.id == Submission.author_id)
        .where(Submission.season_id == season)
        .order_by(Submission.id)
    )
    kinds: dict[str, Kind] = {
        "submission": "int64",
        "author": "word",
        "at": "float64",
        "program": "text",
        "strategy": "word",
        "world_size": "int64",
        "state": "word",
    }
    return _frame(session, query, kinds).set_index("submission")


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
        .order_by(Evaluation.id)
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
    columns = _columns(session, query, kinds)
    blobs = columns.pop("run_mfus")
    frame = pd.DataFrame(columns)
    counts = np.fromiter((len(blob) // 8 for blob in blobs), np.int64, len(blobs))
    runs = pd.DataFrame(
        {
            "evaluation": np.repeat(frame["evaluation"].to_numpy(), counts),
            "mfu": np.frombuffer(b"".join(blobs), "<f8"),
        }
    )
    return frame.set_index("evaluation"), runs


def _comparisons(session: Session, season: int) -> pd.DataFrame:
    query = (
        select(
            Comparison.at,
            Comparison.contender_id,
            Comparison.leader_id,
            Comparison.ratio,
            Comparison.low,
            Comparison.faster,
        )
        .where(Comparison.season_id == season)
        .order_by(Comparison.id)
    )
    kinds: dict[str, Kind] = {
        "at": "float64",
        "contender": "int64",
        "leader": "int64",
        "ratio": "float64",
        "low": "float64",
        "faster": "bool",
    }
    return _frame(session, query, kinds)


def _frame(
    session: Session, query: Select[*tuple[Any, ...]], kinds: dict[str, Kind]
) -> pd.DataFrame:
    return pd.DataFrame(_columns(session, query, kinds))


def _columns(
    session: Session, query: Select[*tuple[Any, ...]], kinds: dict[str, Kind]
) -> dict[str, Any]:
    """The columns of a query in its order, named and made as `kinds` says."""
    columns = [_Column(kind) for kind in kinds.values()]
    with _no_collections():
        for rows in _blocks(session, query):
            for column, values in zip(columns, zip(*rows, strict=True), strict=True):
                column.add(values)
    return {name: column.whole() for name, column in zip(kinds, columns, strict=True)}


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


class _Column:
    """A column that grows by blocks."""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        self._blocks: list[Any] = []
        self._codes: dict[Any, int] = {}

    def add(self, values: Iterable[Any]) -> None:
        match self._kind:
            case "word":
                codes = self._codes
                coded = [codes.setdefault(value, len(codes)) for value in values]
                self._blocks.append(np.array(coded, np.int32))
            case "text":
                self._blocks.append(pd.array(list(values), "str"))
            case "blob":
                self._blocks += [value or b"" for value in values]
            case kind:
                self._blocks.append(np.array(values, kind))

    def whole(self) -> Any:
        match self._kind:
            case "word":
                words = [word for word in self._codes if word is not None]
                codes = np.concatenate([np.empty(0, np.int32), *self._blocks])
                if None in self._codes:
                    missing = self._codes[None]
                    codes = np.where(codes == missing, -1, codes - (codes > missing))
                return pd.Categorical.from_codes(codes, words)
            case "text":
                return pd.concat([pd.Series([], dtype="str"), *map(pd.Series, self._blocks)]).array
            case "blob":
                return self._blocks
            case kind:
                return np.concatenate([np.empty(0, kind), *self._blocks])
