"""Versions of the store: what a new one gets, how an old one is brought up, that a newer is refused."""

import time
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, inspect, text

from harness.board.backup import back_up
from harness.board.tables import Base
from harness.errors import Code, InputError
from harness.files import make_private_folder

MIGRATIONS: Final = Path(__file__).parent / "migrations"
#: Of PostgreSQL's advisory lock: two servers that start at once do not both migrate.
MIGRATION_LOCK: Final = 0x7472_6A76


def bring_up_to_date(engine: Engine, folder: Path) -> None:
    """Make the tables, or migrate them after a backup.

    Args:
        engine: of the database.
        folder: where a backup of PostgreSQL goes; that of SQLite lies beside its file.

    Raises InputError(STORE_NEWER or STORE_UNAVAILABLE).
    """
    script = ScriptDirectory.from_config(_config())
    head = script.get_current_head()
    with engine.connect() as connection:
        if current(connection) == head:
            return
    with engine.connect() as connection:
        _begin_alone(connection)
        found = current(connection)  # again: another may have migrated while we waited
        if found is None and Base.metadata.tables.keys() & set(
            inspect(connection).get_table_names()
        ):
            raise InputError(
                Code.STORE_UNAVAILABLE,
                "this database has tables of somebody else's; give the board one of its own",
            )
        if found is not None and found not in {each.revision for each in script.walk_revisions()}:
            raise InputError(
                Code.STORE_NEWER,
                f"the store was written by a newer version (its schema is {found}, this one knows "
                f"{head}): update this program, or open a backup",
            )
        if found != head:
            if found is not None:
                _back_up(engine, folder)
            command.upgrade(_config(connection), "head")
        connection.commit()


def current(connection: Connection) -> str | None:
    """The version of the schema; None where there is none yet."""
    return MigrationContext.configure(connection).get_current_revision()


def _begin_alone(connection: Connection) -> None:
    if connection.dialect.name == "sqlite":
        connection.execute(text("BEGIN IMMEDIATE"))
    else:
        connection.execute(text(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})"))


def _back_up(engine: Engine, folder: Path) -> None:
    database = Path(engine.url.database or "board")
    if engine.dialect.name != "sqlite":
        make_private_folder(folder)
        database = folder / database.name
    back_up(engine, database.with_name(f"{database.name}.before-migration-{int(time.time())}"))


def _config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    config.attributes["metadata"] = Base.metadata
    return config
