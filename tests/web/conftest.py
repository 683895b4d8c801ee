"""A board in a SQLite file, its pages by a test client, and the same by a real server for what is live."""

import http.client
import re
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import uvicorn
from starlette.testclient import TestClient

from harness.board.organise import new_key
from harness.board.store import Store, open_store
from harness.web.app import make_app
from harness.web.server import Server as UvicornServer
from tests.board.examples import board_with

#: What a page must not hold, whatever stands in a name, a note or a log.
HOSTILE = "<script>alert(1)</script>\x1b[31mred\x1b[0m \u202eevil\u202c \x00\x07 " + "w" * 10_000


@pytest.fixture(scope="session")
def new_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with nothing in it, to be copied."""
    path = tmp_path_factory.mktemp("template") / "board.sqlite"
    open_store(f"sqlite:///{path}").close()
    return path


@pytest.fixture
def empty(new_store: Path, tmp_path: Path) -> Iterator[Store]:
    """A store with nothing in it."""
    path = tmp_path / "board.sqlite"
    shutil.copy(new_store, path)
    opened = open_store(f"sqlite:///{path}")
    yield opened
    opened.close()


@pytest.fixture
def store(empty: Store) -> Store:
    """An open season, and the authors alice and bob."""
    board_with(empty, "alice", "bob")
    return empty


@pytest.fixture
def key(store: Store) -> str:
    """Alice's."""
    return new_key(store, "alice")


@pytest.fixture
def client(store: Store) -> TestClient:
    return TestClient(make_app(store), raise_server_exceptions=False, follow_redirects=False)


@dataclass(frozen=True)
class Server:
    """A server in a thread."""

    url: str
    port: int

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)


@contextmanager
def serving(store: Store) -> Iterator[Server]:
    """A store, served at a free port."""
    app = make_app(store, look_seconds=0.05)
    config = uvicorn.Config(app, port=0, log_level="error", timeout_graceful_shutdown=5)
    server = UvicornServer(config, app.state.site)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield Server(f"http://127.0.0.1:{port}", port)
    finally:
        server.handle_exit(signal.SIGTERM, None)
        thread.join(20)


@pytest.fixture
def server(store: Store) -> Iterator[Server]:
    with serving(store) as started:
        yield started


def words(html: str) -> str:
    """What a person reads: no tags, single spaces."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", html)).strip()
