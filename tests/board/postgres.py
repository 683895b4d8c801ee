"""A PostgreSQL server for the tests: its own folder, its own Unix socket, and gone afterwards."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

START_SECONDS = 60
#: Tests lose nothing that matters when the machine loses power.
SETTINGS = (
    "fsync=off", "full_page_writes=off", "synchronous_commit=off", "max_connections=200",
    "wal_level=minimal", "max_wal_senders=0",
)  # fmt: skip


class Server:
    """A server in a folder of its own. Databases are made by `create` and removed by `drop`.

    Args:
        programs: where those of PostgreSQL lie.
        settings: of the server.
    """

    def __init__(self, programs: Path, settings: Sequence[str]) -> None:
        # Not below pytest's folder: that is closed to the user that the server runs as.
        self.folder = Path(tempfile.mkdtemp(prefix="trainjudge-pg-"))
        self.programs, self._settings = programs, settings
        self._data = self.folder / "data"
        self._environment = {**os.environ, "LC_ALL": "C", "HOME": str(self.folder)}
        self._as_user = ["setpriv", "--pdeathsig=QUIT"]
        if os.geteuid() == 0:  # as root it refuses to start
            user = _ordinary_user()
            os.chown(self.folder, user.pw_uid, user.pw_gid)
            self._as_user += [f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]

    def make(self) -> None:
        """Its files."""
        subprocess.run(
            [
                *self._as_user, str(self.programs / "initdb"), f"--pgdata={self._data}",
                "--username=board", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync",
            ],
            env=self._environment, cwd=self.folder, check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip

    def start(self) -> None:
        """Start it, and wait until it answers; it ends with this process at the latest."""
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *self._as_user, str(self.programs / "postgres"), "-D", str(self._data),
                    "-k", str(self.folder), "-h", "",
                    *(word for setting in self._settings for word in ("-c", setting)),
                ],
                env=self._environment, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        _wait(self, self._process)

    def end(self) -> None:
        """In good order, where its clients let it."""
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:  # it waits for clients; we are done with them
            self.end_at_once()

    def end_at_once(self) -> None:
        """As `pg_ctl stop --mode immediate`: it recovers from its log when it is started again."""
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait()

    def url(self, database: str) -> str:
        return f"postgresql://board@/{database}?host={self.folder}"

    def create(self, database: str, template: str = "template1") -> str:
        """A new database, as a copy of `template`; gives its URL."""
        self.run(f"CREATE DATABASE {database} TEMPLATE {template}")
        return self.url(database)

    def drop(self, database: str) -> None:
        self.run(f"DROP DATABASE {database} WITH (FORCE)")

    def empty(self, database: str, tables: Iterable[str]) -> None:
        """Remove all rows, and whoever still uses the database; much faster than a new one."""
        with psycopg.connect(self.url(database)) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            for statement in (
                "ALTER TABLE events DISABLE TRIGGER USER",
                f"TRUNCATE {', '.join(tables)}",
                "ALTER TABLE events ENABLE TRIGGER USER",
            ):
                connection.execute(statement.encode())

    def run(self, statement: str) -> None:
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(statement.encode())


def programs() -> Path | None:
    """Where the server's programs lie, the newest version first; None where there are none."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    versions = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    return max((found.parent for found in versions), default=None, key=_version)


def required() -> Path:
    """The programs; skips the test without them, or fails it if they are said to be there."""
    found = programs()
    if found is not None and shutil.which("setpriv"):
        return found
    missing = "PostgreSQL is not installed: `apt-get install postgresql`"
    if os.environ.get("TRAINJUDGE_REQUIRE_POSTGRESQL") == "1":
        pytest.fail(missing)
    pytest.skip(missing)


@contextmanager
def running(programs: Path, settings: Sequence[str] = SETTINGS) -> Iterator[Server]:
    """Make and start a server; nothing of it is left afterwards."""
    server = Server(programs, settings)
    try:
        server.make()
        server.start()
        try:
            yield server
        finally:
            server.end()
    finally:
        shutil.rmtree(server.folder, ignore_errors=True)


def _wait(server: Server, process: "subprocess.Popen[bytes]") -> None:
    end = time.monotonic() + START_SECONDS
    while True:
        try:
            server.run("SELECT 1")
            return
        except psycopg.OperationalError as error:
            if process.poll() is not None or time.monotonic() > end:
                log = (server.folder / "log").read_text(errors="replace")
                raise RuntimeError(f"the server does not start: {error}\n{log}") from None
        time.sleep(0.05)


def _ordinary_user() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise RuntimeError("there is neither a user postgres nor a user nobody")


def _version(programs: Path) -> int:
    name = programs.parent.name
    return int(name) if name.isdecimal() else 0
