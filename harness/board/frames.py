"""From the store's tables to the frames that `rank` takes; large texts become numbers."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from sqlalchemy import Integer, cast, select
from sqlalchemy.orm import Session

from harness.board.columns import (
    Array,
    Digests,
    Floats64,
    Numbers,
    Words,
    in_order,
    read,
)
from harness.board.memory import given_back
from harness.board.scores import ascending, positions
from harness.board.states import EvaluationState
from harness.board.tables import Author, Comparison, Evaluation, Submission


@dataclass(frozen=True)
class SeasonFrames:
    """What `past_of` and `rank` want of a season; they say which columns."""

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
    accepted = np.flatnonzero((evaluations["verdict"] == "accepted").to_numpy(bool))
    of = positions(submissions.index, evaluations["submission"].to_numpy()[accepted])
    last = np.full(len(submissions), -1, np.int64)
    last[of[of >= 0]] = accepted[of >= 0]  # of several assignments the last one stays
    for column in ("hardware", "isolation"):
        # A file does not say where it is judged: it is where it was accepted last.
        words = evaluations.pop(column).cat
        words = words.set_categories(words.categories.union([""])).cat
        nowhere = words.categories.get_loc("")
        codes = np.append(words.codes.to_numpy(), nowhere)[last]
        codes[codes < 0] = nowhere
        submissions[column] = pd.Categorical.from_codes(codes, words.categories)
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
    number, author, world_size = Numbers("int64"), Numbers("int64"), Numbers("int32")
    at, program, strategy, state = Numbers("float64"), Digests(), Words(), Words()
    read(session, query, (number, author, at, program, strategy, world_size, state))
    numbers = number.whole()
    order = ascending(numbers)
    programs = program.whole(order)
    return pd.DataFrame(
        {
            "author": _names(session, in_order(author.whole(), order)),
            "at": in_order(at.whole(), order),
            "strategy": strategy.whole(order),
            "world_size": in_order(world_size.whole(), order),
            "state": state.whole(order),
            "program": programs,
        },
        index=_index(in_order(numbers, order), "submission"),
        copy=False,
    )


def _index(numbers: Array, name: str) -> "pd.Index[Any]":
    """Of ascending numbers; as a range, which takes no memory, where there are no gaps."""
    if len(numbers) and numbers[-1] - numbers[0] == len(numbers) - 1:
        return pd.RangeIndex(int(numbers[0]), int(numbers[-1]) + 1, name=name)
    return pd.Index(numbers, name=name)


def _names(session: Session, authors: Array) -> pd.Categorical:
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
        # No index by state: in its order a million rows would be read from all over the file.
        .where(Evaluation.season_id == season, Evaluation.state + "" == EvaluationState.FINISHED)
    )
    number, submission, failed = Numbers("int64"), Numbers("int64"), Numbers("int32")
    at, verdict, hardware, isolation = Numbers("float64"), Words(), Words(), Words()
    run_mfus = Floats64()
    read(
        session,
        query,
        (number, submission, at, verdict, failed, hardware, isolation, run_mfus),
    )
    numbers = number.whole()
    order = ascending(numbers)
    counts, mfus = run_mfus.whole()
    # There are several runs of each.
    of = numbers.astype(np.min_scalar_type(numbers.max(initial=0)))
    runs = pd.DataFrame({"evaluation": np.repeat(of, counts), "mfu": mfus}, copy=False)
    evaluations = pd.DataFrame(
        {
            "submission": in_order(submission.whole(), order),
            "at": in_order(at.whole(), order),
            "verdict": verdict.whole(order),
            "failed_runs": in_order(failed.whole(), order),
            "hardware": hardware.whole(order),
            "isolation": isolation.whole(order),
        },
        index=_index(in_order(numbers, order), "evaluation"),
        copy=False,
    )
    return evaluations, runs


def _comparisons(session: Session, season: int) -> pd.DataFrame:
    query = select(
        Comparison.at,
        Comparison.contender_id,
        Comparison.leader_id,
        cast(Comparison.faster, Integer),  # SQLite has nothing else
    ).where(Comparison.season_id == season)
    at, contender, leader = Numbers("float64"), Numbers("int64"), Numbers("int64")
    faster = Numbers("bool")
    read(session, query, (at, contender, leader, faster))
    return pd.DataFrame(
        {
            "at": at.whole(),
            "contender": contender.whole(),
            "leader": leader.whole(),
            "faster": faster.whole(),
        }
    )
