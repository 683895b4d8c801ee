"""The same tests against both databases: SQLite in a file, PostgreSQL by a server of the tests' own."""

import itertools
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from harness.board.store import Store, open_store
from harness.board.tables import Base
from tests.board import postgres
from tests.board.examples import (
    accepted_result,
    board_with,
    hand_in,
    judge_next,
    rejected_result,
)

#: Runs a statement on the store as if somebody had opened the database by hand; gives the rows.
Raw = Callable[..., list[tuple[Any, ...]]]
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def server() -> Iterator[postgres.Server]:
    """A PostgreSQL server; the test is skipped where the programs are not installed."""
    with postgres.running(postgres.required()) as started:
        yield started


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new SQLite store, to be copied."""
    path = tmp_path_factory.mktemp("template") / "board.sqlite"
    open_store(f"sqlite:///{path}").close()
    return path


@pytest.fixture(scope="session")
def shared(server: postgres.Server) -> str:
    """A database on the server with all tables, emptied after each test."""
    open_store(server.create("shared")).close()
    return "shared"


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> str:
    """Which of the two; a test that needs it runs with both."""
    return str(request.param)


@pytest.fixture
def empty_url(database: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """A place for a store, with nothing in it yet."""
    with empty_place(database, tmp_path / "board.sqlite", request) as url:
        yield url


@contextmanager
def empty_place(database: str, file: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """A URL with nothing behind it: of that file, or of a new database of the server."""
    if database == "sqlite":
        yield f"sqlite:///{file}"
        return
    running: postgres.Server = request.getfixturevalue("server")
    name = f"board_{next(_numbers)}"
    yield running.create(name)
    running.drop(name)


@pytest.fixture
def url(database: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """A new store that nobody has opened."""
    if database == "sqlite":
        path = tmp_path / "board.sqlite"
        shutil.copy(request.getfixturevalue("migrated"), path)
        yield f"sqlite:///{path}"
        return
    running: postgres.Server = request.getfixturevalue("server")
    shared = request.getfixturevalue("shared")
    yield running.url(shared)
    running.empty(shared, Base.metadata.tables)


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    opened = open_store(url)
    yield opened
    opened.close()


@pytest.fixture
def raw(store: Store) -> Raw:
    """Statements by hand, past all our code: `raw("SELECT name FROM authors WHERE id = :id", id=1)`."""

    def run(statement: str, **values: object) -> list[tuple[Any, ...]]:
        with store.engine.connect() as connection:
            if values:
                result = connection.execute(text(statement), values)
            else:  # a colon means nothing in it
                result = connection.exec_driver_sql(statement)
            rows = [tuple(row) for row in result] if result.returns_rows else []
            connection.commit()
            return rows

    return run


@pytest.fixture
def full(store: Store) -> Store:
    """Two that are ranked, bob first; one of carol that was rejected; one of ada that waits."""
    board_with(store, "ada", "bob", "carol")
    for author, number in (("ada", 1), ("bob", 2), ("carol", 3)):
        hand_in(store, author, number, note=f"a note of {author}")
    results = {
        1: accepted_result((0.30, 0.32, 0.31)),
        2: accepted_result((0.40, 0.42, 0.41)),
        3: rejected_result(),
    }
    for number, result in results.items():
        assert judge_next(store, result) == number
    hand_in(store, "ada", 4)
    return store
