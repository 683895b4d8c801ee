"""An evaluation knows its season and its author, and the lines of those that wait have an index."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

OF_THE_SUBMISSION = ("season_id", "author_id")


def upgrade() -> None:
    identity = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    with op.batch_alter_table("evaluations") as batch:
        for name in OF_THE_SUBMISSION:
            batch.add_column(sa.Column(name, identity, nullable=True))
    for name in OF_THE_SUBMISSION:
        op.execute(
            f"UPDATE evaluations SET {name} = "
            f"(SELECT {name} FROM submissions WHERE submissions.id = evaluations.submission_id)"
        )
    with op.batch_alter_table("evaluations") as batch:
        for name, table in zip(OF_THE_SUBMISSION, ("seasons", "authors"), strict=True):
            batch.alter_column(name, existing_type=identity, nullable=False)
            batch.create_foreign_key(f"fk_evaluations_{name}", table, [name], ["id"])
        batch.drop_index("ix_evaluations_state")
        batch.create_index("ix_evaluations_season_id", ["season_id"])
        batch.create_index("ix_evaluations_line", ["state", "season_id", "author_id", "id"])
