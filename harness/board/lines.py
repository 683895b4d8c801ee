"""Who waits: for each benchmark a line of every author, counted in an index alone.

What is asked at every upload is put together once: that takes longer than to count a queue of thousands.
"""

from typing import Final

from sqlalchemy import ColumnElement, Subquery, and_, bindparam, func, select

from harness.board.states import EvaluationState
from harness.board.tables import Evaluation, Season

#: Of an evaluation: it waits for a worker that has this benchmark. With :hparams_sha256.
WAITS: Final = and_(
    Evaluation.state == EvaluationState.QUEUED,
    Evaluation.season_id.in_(
        select(Season.id).where(Season.hparams_sha256 == bindparam("hparams_sha256"))
    ),
)


def lines_of(*which: ColumnElement[bool]) -> Subquery:
    """Of each author of whom something waits that is `which`, as `LINES`."""
    # By season first, as the index is: so nothing is sorted.
    of_seasons = (
        select(
            Evaluation.author_id,
            func.count().label("length"),
            func.min(Evaluation.id).label("oldest"),
        )
        .where(WAITS, *which)
        .group_by(Evaluation.season_id, Evaluation.author_id)
        .subquery()
    )
    return (
        select(
            of_seasons.c.author_id,
            func.sum(of_seasons.c.length).label("length"),
            func.min(of_seasons.c.oldest).label("oldest"),
        )
        .group_by(of_seasons.c.author_id)
        .subquery()
    )


#: Of each author of whom something waits: `author_id`, `length`, and the number of the `oldest`. With
#: :hparams_sha256.
LINES: Final = lines_of()
