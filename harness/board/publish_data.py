"""What is published of a store: the boards as they are shown, and a row for every evaluation.

Only what everybody can see on the pages anyway: no source, no key, no note, no worker and no machine.
"""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from sqlalchemy import select
from sqlalchemy.orm import Session

from harness.board.figures import iso
from harness.board.places import board_places
from harness.board.rank import Ranking
from harness.board.tables import Author, Evaluation, Submission
from harness.board.views import SeasonView
from harness.protocol.text import one_line

#: Rows that are in memory at once: a store may have a million.
ROWS_AT_ONCE: Final = 50_000
#: A cell that begins with one of these is a formula to a spreadsheet; the wide ones are to some.
FORMULA: Final = "=+-@＝＋－＠"
_MOMENT: Final = pa.timestamp("us", tz="UTC")


@dataclass(frozen=True)
class PublishedRow:
    """An entry of a main board; `score`, `low` and `high` are shares of the peak, `at` is when it came."""

    rank: int
    author: str
    score: float
    low: float
    high: float
    runs: int
    strategy: str
    world_size: int
    hardware: str
    submission: int
    at: float
    leads: bool


@dataclass(frozen=True)
class LeadRow:
    """A change of the lead: what it was worth then, and what it was ahead, as shares."""

    at: float
    author: str
    submission: int
    score: float
    jump: float


@dataclass(frozen=True)
class SeasonBoard:
    """A season, its main board in order, and who led it from when, oldest first."""

    season: SeasonView
    rows: tuple[PublishedRow, ...]
    leads: tuple[LeadRow, ...]


def season_board(season: SeasonView, ranking: Ranking) -> SeasonBoard:
    """The main board as it is shown everywhere else."""
    authors = ranking.entries["author"]
    return SeasonBoard(
        season=season,
        rows=tuple(
            PublishedRow(
                rank=int(row.rank),
                author=one_line(str(row.author)),
                score=float(row.score),
                low=float(row.low),
                high=float(row.high),
                runs=int(row.runs),
                strategy=one_line(str(row.strategy)),
                world_size=int(row.world_size),
                hardware=one_line(str(row.hardware)),
                submission=int(row.Index),
                at=float(row.at),
                leads=int(row.Index) == ranking.leader,
            )
            for row in board_places(ranking).of(ranking).itertuples()
        ),
        leads=tuple(
            LeadRow(
                at=float(row.at),
                author=one_line(str(authors.at[row.submission])),
                submission=int(row.submission),
                score=float(row.score),
                jump=float(row.jump),
            )
            for row in ranking.records.itertuples()
        ),
    )


# --- board.csv --------------------------------------------------------------------------------

CSV_COLUMNS: Final = (
    "season", "rank", "author", "mfu", "slowest", "fastest", "runs", "strategy", "world_size",
    "hardware", "submission", "handed_in_utc",
)  # fmt: skip


def write_csv(path: Path, boards: Sequence[SeasonBoard]) -> None:
    """The boards one below the other. MFU is a share of the peak."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(CSV_COLUMNS)
        for each in boards:
            for row in each.rows:
                writer.writerow(
                    (
                        _cell(each.season.name),
                        row.rank,
                        _cell(row.author),
                        _share(row.score),
                        _share(row.low),
                        _share(row.high),
                        row.runs,
                        _cell(row.strategy),
                        row.world_size,
                        _cell(row.hardware),
                        row.submission,
                        iso(row.at),
                    )
                )


def _cell(text: str) -> str:
    """Foreign text that no spreadsheet computes."""
    return f"'{text}" if text.lstrip()[:1] in tuple(FORMULA) else text


def _share(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.6f}"


# --- results.parquet --------------------------------------------------------------------------

#: Name, type and meaning of every column; the README has the same table.
COLUMNS: Final[tuple[tuple[str, pa.DataType, str], ...]] = (
    ("season", pa.string(), "what was competed for"),
    ("submission", pa.int64(), "number of the submitted file"),
    ("evaluation", pa.int64(), "number of this evaluation of it"),
    ("author", pa.string(), "who handed it in"),
    ("strategy", pa.string(), "how the ranks share the work, as declared"),
    ("world_size", pa.int64(), "ranks"),
    ("hardware", pa.string(), "class of the machine that judged"),
    ("isolation", pa.string(), "level of the sandbox"),
    ("state", pa.string(), "queued, running, finished, cancelled or abandoned"),
    ("verdict", pa.string(), "accepted, rejected, or error, which is the judge's own failure"),
    ("code", pa.string(), "the reason of the verdict"),
    ("run_mfus", pa.list_(pa.float64()), "MFU of each timed run, a share of the peak"),
    ("failed_runs", pa.int64(), "runs that the submission failed"),
    ("tokens_per_second", pa.float64(), "median over the runs"),
    ("seconds", pa.float64(), "of the whole evaluation"),
    ("score", pa.float64(), "of the submission, by the season's rule, over all its evaluations"),
    ("score_low", pa.float64(), "MFU of its slowest run"),
    ("score_high", pa.float64(), "MFU of its fastest run"),
    ("scored_runs", pa.int64(), "runs that the score is of"),
    ("rank", pa.int64(), "of the submission on the season's main board"),
    ("why_not", pa.string(), "why it has no rank"),
    ("handed_in_at", _MOMENT, "when the file was handed in"),
    ("queued_at", _MOMENT, "when this evaluation began to wait"),
    ("started_at", _MOMENT, "when it was started last"),
    ("finished_at", _MOMENT, "when it ended"),
)
SCHEMA: Final = pa.schema([(name, kind) for name, kind, _ in COLUMNS])
#: Columns of a ranking's entries under the names that they are published with.
_RANKED: Final = {
    "score": "score", "low": "score_low", "high": "score_high", "runs": "scored_runs", "rank": "rank",
    "why_not": "why_not",
}  # fmt: skip


class ResultsFile:
    """results.parquet while it is written, season by season."""

    def __init__(self, path: Path) -> None:
        self._writer = pq.ParquetWriter(path, SCHEMA, compression="zstd")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._writer.close()

    def add(self, session: Session, season: SeasonView, ranking: Ranking) -> None:
        """All evaluations of a season, with how their submissions stand."""
        query = (
            select(
                Submission.id.label("submission"),
                Evaluation.id.label("evaluation"),
                Author.name.label("author"),
                Submission.strategy,
                Submission.world_size,
                Evaluation.hardware,
                Evaluation.isolation,
                Evaluation.state,
                Evaluation.verdict,
                Evaluation.code,
                Evaluation.run_mfus,
                Evaluation.failed_runs,
                Evaluation.tokens_per_second,
                Evaluation.seconds,
                Submission.at.label("handed_in_at"),
                Evaluation.queued_at,
                Evaluation.started_at,
                Evaluation.finished_at,
            )
            .join(Submission, Submission.id == Evaluation.submission_id)
            .join(Author, Author.id == Submission.author_id)
            .where(Submission.season_id == season.id)
            .order_by(Evaluation.id)
            .execution_options(yield_per=ROWS_AT_ONCE)
        )
        names = [column.name for column in query.selected_columns]
        for rows in session.execute(query).partitions():
            columns = dict(zip(names, zip(*rows, strict=True), strict=True))
            columns |= _standing(columns["submission"], ranking.entries)
            columns["season"] = [one_line(season.name)] * len(rows)
            arrays = [_array(columns[field.name], field.type) for field in SCHEMA]
            self._writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=SCHEMA))


def _standing(submissions: Sequence[int], entries: pd.DataFrame) -> dict[str, Any]:
    """What the ranking says of these; nothing of one that came after it was made."""
    found = entries[list(_RANKED)].reindex(list(submissions))
    found = found.astype({"runs": "Int64", "rank": "Int64", "why_not": object})
    return {name: found[column] for column, name in _RANKED.items()}


def _array(values: Any, kind: pa.DataType) -> pa.Array:
    """A column; what came from outside is harmless in it."""
    if pa.types.is_list(kind):
        # As the store keeps them: little-endian float64.
        blobs = [blob or b"" for blob in values]
        ends = np.cumsum([0, *(len(blob) // 8 for blob in blobs)], dtype=np.int32)
        return pa.ListArray.from_arrays(pa.array(ends), np.frombuffer(b"".join(blobs), "<f8"))
    if pa.types.is_timestamp(kind):
        micros = [None if each is None else round(each * 1e6) for each in values]
        return pa.array(micros, pa.int64()).cast(kind)
    if pa.types.is_string(kind) and not isinstance(values, pd.Series):
        # Few different ones: looking at every character of a million would take longer than the rest.
        harmless = {each: one_line(each) for each in set(values) if each is not None}
        values = [harmless.get(each) for each in values]
    return pa.array(values, kind, from_pandas=True)
