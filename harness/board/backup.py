"""A copy of the store while others go on using it."""

import os
import shutil
import sqlite3
import subprocess
from pathlib import Path

from sqlalchemy import Engine

from harness.errors import Code, InputError, JudgeError
from harness.files import make_private_file


def back_up(engine: Engine, path: Path) -> None:
    """Copy the store as it is at one moment: a SQLite file, or what `pg_restore` reads.

    Raises:
        InputError: the file exists, or its folder does not; or `pg_dump` is not there.
        JudgeError(STORE_FAILED): the copy failed.
    """
    if path.exists():
        raise InputError(Code.BAD_ARGUMENT, f"{path} exists: a backup overwrites nothing")
    if not path.absolute().parent.is_dir():
        raise InputError(Code.BAD_ARGUMENT, f"there is no folder {path.absolute().parent}")
    if engine.dialect.name == "sqlite":
        _copy_sqlite(str(engine.url.database), path)
    else:
        _dump_postgresql(engine, path)


def _copy_sqlite(database: str, path: Path) -> None:
    part = path.with_name(path.name + ".part")
    try:
        make_private_file(part)
        source, target = (
            sqlite3.connect(f"{Path(database).absolute().as_uri()}?mode=ro", uri=True),
            sqlite3.connect(part),
        )
        try:
            source.backup(target)
        finally:
            source.close()
            target.close()
        part.rename(path)
    except (sqlite3.Error, OSError) as error:
        part.unlink(missing_ok=True)
        raise JudgeError(Code.STORE_FAILED, f"the backup {path} failed: {error}") from None


def _dump_postgresql(engine: Engine, path: Path) -> None:
    program = shutil.which("pg_dump")
    if program is None:
        raise InputError(
            Code.BAD_ARGUMENT,
            "pg_dump is not there: install PostgreSQL's client programs of the server's version",
        )
    url = engine.url
    try:
        make_private_file(path)
    except OSError as error:
        raise JudgeError(Code.STORE_FAILED, f"the backup {path} failed: {error}") from None
    # libpq reads the password from the environment; on a command line everybody could read it.
    secret = {"PGPASSWORD": url.password} if url.password else {}
    plain = url._replace(drivername="postgresql", password=None).render_as_string()
    done = subprocess.run(
        [program, "--format=custom", f"--file={path}", plain],
        env={**os.environ, **secret},
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode != 0:
        path.unlink(missing_ok=True)
        raise JudgeError(
            Code.STORE_FAILED, f"pg_dump failed with status {done.returncode}", done.stderr[-2000:]
        )
