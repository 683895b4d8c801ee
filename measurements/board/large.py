"""A store with a large season, written past the events: a million of them would take hours."""

import itertools
import os
import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from sqlalchemy import select

from harness.board import events as ev
from harness.board.organise import SeasonPlan, open_season
from harness.board.rule import ScoringRule
from harness.board.store import Store
from harness.board.tables import (
    Author,
    Base,
    Document,
    Evaluation,
    EventRow,
    Source,
    Submission,
)
from harness.errors import Code, Verdict
from measurements.board import ROOT
from measurements.board.example import HPARAMS_SHA256, digest, example

HARDWARE: Final = "2 x NVIDIA H100 80GB HBM3"
AUTHORS: Final = 2_000
#: Submissions with source, result document and history.
WHOLE: Final = 300
STRATEGIES: Final = ("dp 2", "dp 2, ep 2 (ep within dp)", "tp 2", "pp 2", "cp 2")
SEASON_SECONDS: Final = 90 * 86_400
BLOCK: Final = 50_000


@dataclass(frozen=True)
class Large:
    """A store with many evaluations.

    Attributes:
        submission: one of those with all that a page can show.
        author: who handed it in.
    """

    url: str
    season: int
    submission: int
    author: str


def new_season(store: Store, rule: ScoringRule) -> int:
    plan = SeasonPlan("autumn", HPARAMS_SHA256, "qwen3-30b-a3b", 2, HARDWARE, rule)
    return open_season(store, plan)


def fill(store: Store, url: str, evaluations: int) -> Large:
    """Write a season of so many evaluations: the tables, and the events of those that are whole."""
    season = new_season(store, ScoringRule(pairs=0))
    now = store.now()
    whole = np.linspace(1, evaluations, min(WHOLE, evaluations)).astype(int).tolist()
    connection = sqlite3.connect(url.removeprefix("sqlite:///"))
    for setting in ("synchronous=OFF", "cache_size=-200000"):
        connection.execute(f"PRAGMA {setting}")
    with connection, later_indexed(connection):
        numbers = range(1, AUTHORS + 1)
        names = [author_name(number) for number in numbers]
        insert(connection, Author, id=numbers, name=names, added_at=now, last_started_at=now)
        draw = np.random.default_rng(11)
        for first in range(1, evaluations + 1, BLOCK):
            numbers = range(first, min(first + BLOCK, evaluations + 1))
            fill_block(connection, draw, season, numbers, now - SEASON_SECONDS, evaluations)
        fill_whole(connection, season, whole, now)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    with store.read() as session:
        good = select(Submission).where(
            Submission.id.in_(whole), Submission.verdict == "accepted", Submission.state == "judged"
        )
        shown = session.scalars(good.order_by(Submission.id.desc()).limit(1)).one()
        return Large(url, season, shown.id, author_name(shown.author_id))


@contextmanager
def later_indexed(connection: sqlite3.Connection) -> Iterator[None]:
    """Indexes are made when all rows are there, which takes a fraction of the time."""
    indexes = connection.execute(
        "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
    ).fetchall()
    for name, _ in indexes:
        connection.execute(f"DROP INDEX {name}")
    yield
    for _, statement in indexes:
        connection.execute(statement)


def author_name(number: int) -> str:
    return f"author-{number:04}"


def fill_block(
    connection: sqlite3.Connection,
    draw: np.random.Generator,
    season: int,
    numbers: range,
    begins: float,
    of: int,
) -> None:
    """Submissions with one finished evaluation each; both have the same number."""
    count = len(numbers)
    share = np.arange(numbers.start, numbers.stop) / (of + 1)
    at = begins + share * SEASON_SECONDS
    author = draw.integers(1, AUTHORS + 1, count)
    verdict = draw.choice(["accepted", "rejected", "error"], count, p=[0.72, 0.25, 0.03])
    accepted, error = verdict == "accepted", verdict == "error"
    state = draw.choice(["judged", "held", "invalidated"], count, p=[0.98, 0.01, 0.01])
    state = np.where(error, "failed", np.where(accepted, state, "judged"))
    # One in twenty is a copy of some earlier program.
    original = np.arange(numbers.start, numbers.stop)
    copies = draw.random(count) < 0.05
    original[copies] = draw.integers(1, original[copies] + 1)
    # Everybody gets better during a season, and the best of them ever more rarely.
    level = 0.15 + 0.3 * np.sqrt(share) + 0.03 * draw.normal(size=count)
    mfus = np.clip(level[:, None] * (1 + 0.005 * draw.normal(size=(count, 3))), 0.01, 0.9)
    blobs = mfus.astype("<f8").tobytes()
    code = np.where(accepted, "ok", np.where(error, "worker_failed", "update_mismatch"))
    away = draw.random(count) < 0.02
    isolation = draw.choice(["docker", "bubblewrap", "user"], count, p=[0.68, 0.3, 0.02])
    words = {
        "accepted": "accepted: the update is that of the reference",
        "rejected": "update_error is 0.31, and at most 0.016 is allowed: is a step left out?",
        "error": "rank 1 failed before the file was loaded",
    }
    insert(
        connection,
        Submission,
        id=numbers,
        season_id=season,
        author_id=author.tolist(),
        file_name="train.py",
        note="",
        source_sha256=[digest("source", number) for number in numbers],
        program=[digest("program", number) for number in original.tolist()],
        strategy=draw.choice(STRATEGIES, count).tolist(),
        world_size=2,
        at=at.tolist(),
        state=state.tolist(),
        state_why="",
        verdict=verdict.tolist(),
    )
    insert(
        connection,
        Evaluation,
        id=numbers,
        submission_id=numbers,
        season_id=season,
        author_id=author.tolist(),
        state=np.where(error, "abandoned", "finished").tolist(),
        why="submitted",
        queued_at=at.tolist(),
        starts=1,
        started_at=(at + 60).tolist(),
        finished_at=(at + 360).tolist(),
        worker="judge-1:4026531836:12345:678901",
        machine="5d1c2c0e-8f6b-4a3f-9f1e-2f6f0a7c9b11",
        verdict=verdict.tolist(),
        code=code.tolist(),
        message=[words[each] for each in verdict.tolist()],
        isolation=isolation.tolist(),
        hardware=np.where(away, "8 x NVIDIA A100-SXM4-80GB", HARDWARE).tolist(),
        run_mfus=[
            blobs[24 * place : 24 * place + 24] if good else b""
            for place, good in enumerate(accepted.tolist())
        ],
        failed_runs=(verdict == "rejected").astype(int).tolist(),
        tokens_per_second=[100_000.0 if good else None for good in accepted.tolist()],
        seconds=300.0,
        result_sha256=[digest("result", number) for number in numbers],
        progress="",
    )


def fill_whole(connection: sqlite3.Connection, season: int, numbers: list[int], now: float) -> None:
    """Sources, result documents and histories."""
    text = (ROOT / "submissions" / "train_ddp.py").read_text(encoding="utf-8")
    insert(
        connection,
        Source,
        sha256=[digest("source", number) for number in numbers],
        content=[f"{text}\n# {number}\n".encode() for number in numbers],
        shingles=[os.urandom(2_048) for _ in numbers],
    )
    insert(
        connection,
        Document,
        sha256=[digest("result", number) for number in numbers],
        compressed=[
            zlib.compress(example(number).model_dump_json().encode()) for number in numbers
        ],
    )
    told = [(number, each) for number in numbers for each in history(number, season)]
    insert(
        connection,
        EventRow,
        id=range(2, len(told) + 2),
        at=now,
        kind=[event.kind for _, event in told],
        submission=[number for number, _ in told],
        evaluation=[getattr(event, "evaluation", None) for _, event in told],
        body=[event.model_dump_json() for _, event in told],
    )


def history(number: int, season: int) -> Iterator[ev.EventBody]:
    yield ev.Submitted(
        submission=number,
        season=season,
        author=1,
        file_name="train.py",
        note="",
        source_sha256=digest("source", number),
        program=digest("program", number),
        strategy="dp 2",
        world_size=2,
    )
    yield ev.EvaluationQueued(evaluation=number, submission=number, why="submitted")
    yield ev.EvaluationStarted(evaluation=number, worker="judge-1", machine="machine-1")
    yield ev.EvaluationFinished(
        evaluation=number,
        worker="judge-1",
        verdict=Verdict.ACCEPTED,
        code=Code.OK,
        message="accepted",
        result_sha256=digest("result", number),
        isolation="docker",
        hardware=HARDWARE,
        run_mfus=(0.4, 0.41, 0.42),
        failed_runs=0,
        tokens_per_second=100_000.0,
        seconds=300.0,
    )


def insert(connection: sqlite3.Connection, table: type[Base], **columns: Any) -> None:
    """Rows from columns; what is no list is the same for all of them."""
    lists = [isinstance(each, list | range) for each in columns.values()]
    values = (
        each if many else itertools.repeat(each)
        for each, many in zip(columns.values(), lists, strict=True)
    )
    names, marks = ", ".join(columns), ", ".join("?" * len(columns))
    statement = f"INSERT INTO {table.__tablename__} ({names}) VALUES ({marks})"
    connection.executemany(statement, zip(*values, strict=False))
