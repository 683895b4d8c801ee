"""Run by alembic, on the connection that `harness.board.migrate` hands it.

To write a migration after a change of `tables.py`: docs/board.md.
"""

from alembic import context

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=context.config.attributes["metadata"],
    render_as_batch=True,  # SQLite cannot change a column in place
    transactional_ddl=False,  # the transaction is the caller's, which has locked the store
)
context.run_migrations()
