"""A store of any version: made, brought up to date after a backup, or refused and left as it is."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, RowMapping, column, insert, inspect, select, table, text

from harness.board import migrate
from harness.board.maintenance import check
from harness.board.organise import add_author
from harness.board.store import Store, make_engine, open_store
from harness.board.tables import Author, Base
from harness.errors import Code, InputError, JudgeError
from tests.board import postgres
from tests.board.acting import opens
from tests.board.conftest import empty_place
from tests.board.processes import all_end, start

NEXT = '''
"""A version that does not exist yet."""
import sqlalchemy as sa
from alembic import op

revision = "9999"
down_revision = "0002"


def upgrade() -> None:
    op.create_table("medals", sa.Column("id", sa.Integer(), primary_key=True))
    with op.batch_alter_table("authors") as batch:
        batch.add_column(sa.Column("motto", sa.Text(), nullable=False, server_default="none"))
'''


@pytest.fixture
def newer(tmp_path: Path) -> Path:
    """The migrations of a later version of this program."""
    folder = tmp_path / "newer"
    shutil.copytree(migrate.MIGRATIONS, folder, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "versions" / "9999_next.py").write_text(NEXT)
    return folder


@pytest.fixture(autouse=True)
def data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database: str, request: pytest.FixtureRequest
) -> Path:
    """The board's folder; and PostgreSQL's client programs are found."""
    folder = tmp_path / "data"
    monkeypatch.setenv("TRAINJUDGE_DATA", str(folder))
    if database == "postgresql":
        running: postgres.Server = request.getfixturevalue("server")
        monkeypatch.setenv("PATH", str(running.programs), prepend=":")
    return folder


@pytest.fixture
def url(empty_url: str) -> str:
    """A store that nobody shares: its tables are about to change."""
    open_store(empty_url).close()
    return empty_url


def tables(url: str) -> set[str]:
    engine = make_engine(url)
    try:
        return set(inspect(engine).get_table_names())
    finally:
        engine.dispose()


def run(url: str, *statements: str) -> None:
    engine = make_engine(url)
    with engine.connect() as connection:
        for statement in statements:
            connection.execute(text(statement))
        connection.commit()
    engine.dispose()


def version(url: str) -> str | None:
    engine = make_engine(url)
    try:
        with engine.connect() as connection:
            return migrate.current(connection)
    finally:
        engine.dispose()


def test_the_tables_that_migrations_make_are_those_that_the_code_uses(empty_url: str) -> None:
    open_store(empty_url).close()
    engine = make_engine(empty_url)
    with engine.connect() as connection:
        options = {"compare_type": True, "compare_server_default": True}
        differences = compare_metadata(
            MigrationContext.configure(connection, opts=options), Base.metadata
        )
    engine.dispose()
    assert differences == []


def test_a_new_store_is_empty_and_sound_and_can_be_opened_again(empty_url: str) -> None:
    for _ in range(2):
        store = open_store(empty_url)
        assert check(store).problems == ()
        assert store.last_event() == 0
        store.close()


def test_processes_that_open_a_new_store_at_once_all_work(empty_url: str, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    processes = [start(opens, empty_url, gate) for _ in range(6)]
    gate.touch()
    all_end(processes)
    store = open_store(empty_url)
    add_author(store, "ada")
    assert check(store).problems == ()
    store.close()


def test_a_store_of_a_newer_version_is_refused_and_left_as_it_is(
    store: Store, url: str, newer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_author(store, "ada")
    store.close()
    with monkeypatch.context() as patch:
        patch.setattr(migrate, "MIGRATIONS", newer)
        open_store(url).close()
    before = tables(url)
    with pytest.raises(InputError) as caught:
        open_store(url)
    assert caught.value.code is Code.STORE_NEWER
    assert "9999" in caught.value.message
    assert tables(url) == before
    assert version(url) == "9999"


def test_an_older_store_is_backed_up_and_then_migrated(
    store: Store,
    url: str,
    newer: Path,
    data: Path,
    tmp_path: Path,
    database: str,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    add_author(store, "ada")
    store.close()
    with monkeypatch.context() as patch:
        patch.setattr(migrate, "MIGRATIONS", newer)
        patch.delenv("TRAINJUDGE_DATA")  # the folder that was asked for comes first
        opened = open_store(url, folder=data)
        with opened.read() as session:
            assert session.execute(text("SELECT name, motto FROM authors")).all() == [
                ("ada", "none")
            ]
        opened.close()
    assert "medals" in tables(url)

    folder = tmp_path if database == "sqlite" else data
    (backup,) = folder.glob("*.before-migration-*")
    if database == "sqlite":
        old = f"sqlite:///{backup}"
    else:
        running: postgres.Server = request.getfixturevalue("server")
        old = running.create("before")
        restore = [str(running.programs / "pg_restore"), f"--dbname={old}", str(backup)]
        subprocess.run(restore, check=True)
    assert version(old) == "0002"
    restored = open_store(old)
    with restored.read() as session:
        assert session.scalars(select(Author.name)).all() == ["ada"]
    assert check(restored).problems == ()
    restored.close()


def rows_of(engine: Engine) -> dict[str, list[RowMapping]]:
    """All rows of all tables, in the order in which they can be written."""
    with engine.connect() as connection:
        return {
            kept.name: list(connection.execute(select(kept).order_by(*kept.primary_key)).mappings())
            for kept in Base.metadata.sorted_tables
        }


@pytest.fixture
def second_url(database: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """An empty database beside that of `url`."""
    with empty_place(database, tmp_path / "second.sqlite", request) as url:
        yield url


def test_evaluations_of_the_first_version_learn_their_season_and_author(
    full: Store, second_url: str, data: Path
) -> None:
    expected = rows_of(full.engine)
    engine = make_engine(second_url)
    with engine.connect() as connection:
        command.upgrade(migrate._config(connection), "0001")
        for name, rows in expected.items():
            columns = [each["name"] for each in inspect(connection).get_columns(name)]
            for row in rows:
                old = table(name, *(column(each) for each in columns))
                connection.execute(insert(old), {each: row[each] for each in columns})
        connection.commit()
    engine.dispose()
    migrated = open_store(second_url, folder=data)
    assert rows_of(migrated.engine) == expected
    assert check(migrated).problems == ()
    add_author(migrated, "zoe")
    migrated.close()


def test_a_migration_that_fails_changes_nothing(
    store: Store, url: str, newer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_author(store, "ada")
    store.close()
    before = tables(url)
    script = newer / "versions" / "9999_next.py"
    script.write_text(NEXT + '    op.execute("INSERT INTO nowhere VALUES (1)")\n')
    with monkeypatch.context() as patch:
        patch.setattr(migrate, "MIGRATIONS", newer)
        with pytest.raises(JudgeError) as caught:
            open_store(url)
        assert caught.value.code is Code.STORE_FAILED
    assert tables(url) == before
    again = open_store(url)
    assert check(again).problems == ()
    add_author(again, "bob")
    again.close()


@pytest.mark.parametrize("table", ["events", "authors"])
def test_a_database_of_somebody_elses_is_refused_and_left_as_it_is(
    empty_url: str, table: str
) -> None:
    run(empty_url, f"CREATE TABLE {table} (mine TEXT)", f"INSERT INTO {table} VALUES ('mine')")
    with pytest.raises(InputError) as caught:
        open_store(empty_url)
    assert caught.value.code is Code.STORE_UNAVAILABLE
    assert "somebody else" in caught.value.message
    assert tables(empty_url) == {table}
