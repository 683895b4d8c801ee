"""The store: all of a step or nothing, one writer at a time, and failures that say whose they are."""

import os
import stat
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import func, select, text

from harness.board import events as ev
from harness.board.backup import back_up
from harness.board.maintenance import check
from harness.board.organise import add_author
from harness.board.rule import ScoringRule
from harness.board.store import Store, make_engine, open_store, store_url
from harness.board.tables import Author, Source
from harness.errors import Code, InputError, JudgeError
from harness.paths import data_folder
from tests.board import postgres
from tests.board.conftest import Raw
from tests.board.examples import board_with, hand_in, judge_next, rejected_result

MANY = ScoringRule(submissions_per_day=10_000, pairs=0)

# --- where it is --------------------------------------------------------------------------------


def test_what_was_asked_for_comes_before_the_environment_and_that_before_the_home(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    for name in ("TRAINJUDGE_DATA", "TRAINJUDGE_STORE", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert data_folder() == Path("/home/ada/.local/share/trainjudge")
    assert store_url(Path("/b")) == "sqlite:////b/board.sqlite"
    monkeypatch.setenv("XDG_DATA_HOME", "/share")
    assert data_folder() == Path("/share/trainjudge")
    monkeypatch.setenv("TRAINJUDGE_DATA", "/board")
    monkeypatch.setenv("TRAINJUDGE_STORE", "postgresql://db/x")
    assert data_folder() == Path("/board")
    assert store_url(Path("/b")) == "postgresql://db/x"
    assert data_folder(Path("/mine")) == Path("/mine")
    assert store_url(Path("/b"), "sqlite:///y") == "sqlite:///y"


def not_opened(url: str) -> InputError:
    with pytest.raises(InputError) as caught:
        open_store(url)
    assert caught.value.code is Code.STORE_UNAVAILABLE
    return caught.value


@pytest.mark.parametrize("url", ["mysql://u@h/n", "nonsense", "", "oracle://x", "sqlite+nope:///x"])
def test_a_url_of_no_store_is_refused_with_one_that_would_do(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "sqlite:///FILE or postgresql://USER@HOST/NAME" in not_opened(url).message
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("my notes, which are no database at all\n" * 100)
    assert "notes.txt" in not_opened(f"sqlite:///{file}").message
    assert file.read_text() == "my notes, which are no database at all\n" * 100


def test_a_folder_in_place_of_the_file_is_refused(tmp_path: Path) -> None:
    not_opened(f"sqlite:///{tmp_path}")


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "folder" in not_opened(f"sqlite:///{tmp_path}/file/board.sqlite").message


def test_a_server_that_is_not_there_is_said_without_the_password(tmp_path: Path) -> None:
    refusal = not_opened(f"postgresql://ada:sesame@/board?host={tmp_path}")
    assert "cannot be opened" in refusal.message
    assert "sesame" not in refusal.message + refusal.detail


def test_a_folder_is_made_and_may_have_any_name(tmp_path: Path) -> None:
    path = tmp_path / "50% #1 é" / "board.sqlite"
    opened = open_store(f"sqlite:///{path}")
    add_author(opened, "ada")
    copy = tmp_path / "copy.sqlite"
    back_up(opened.engine, copy)
    opened.close()
    assert path.exists()
    assert authors(f"sqlite:///{copy}") == ["ada"]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_no_other_user_may_read_a_store_or_its_backup(tmp_path: Path) -> None:
    """Such as that of a train file at level `user`: hidden sources and hashes of keys are in it."""
    folder = tmp_path / "data"
    store = open_store(f"sqlite:///{folder / 'board.sqlite'}")
    back_up(store.engine, folder / "backup.sqlite")
    add_author(store, "ada")
    assert mode(folder) == 0o700
    assert {file.name: mode(file) for file in folder.iterdir()} == dict.fromkeys(
        ("board.sqlite", "board.sqlite-wal", "board.sqlite-shm", "backup.sqlite"), 0o600
    )
    store.close()


def test_a_folder_that_others_may_enter_stays_as_its_owner_made_it(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    open_store(f"sqlite:///{tmp_path / 'board.sqlite'}").close()
    assert mode(tmp_path) == 0o755
    assert mode(tmp_path / "board.sqlite") == 0o600


def authors(url: str) -> list[str]:
    opened = open_store(url)
    try:
        assert check(opened).problems == ()
        with opened.read() as session:
            return list(session.scalars(select(Author.name).order_by(Author.id)))
    finally:
        opened.close()


# --- all or nothing ------------------------------------------------------------------------------


def test_a_step_that_fails_half_way_keeps_nothing(store: Store, raw: Raw) -> None:
    with pytest.raises(RuntimeError), store.write() as writer:
        writer.append(ev.AuthorAdded(author=1, name="ada"))
        writer.session.add(Source(sha256="0" * 64, content=b"x", shingles=b""))
        writer.session.flush()
        raise RuntimeError
    assert raw("SELECT * FROM events") == []
    assert raw("SELECT * FROM authors") == []
    assert raw("SELECT * FROM sources") == []


def test_what_the_database_refuses_is_our_failure_and_keeps_nothing(store: Store, raw: Raw) -> None:
    with pytest.raises(JudgeError) as caught, store.write() as writer:
        writer.append(ev.AuthorAdded(author=1, name="ada"))
        writer.append(ev.AuthorAdded(author=2, name="ada"))
    assert caught.value.code is Code.STORE_FAILED
    assert raw("SELECT * FROM events") == []


def test_numbers_have_no_gaps_and_no_double_however_many_write(store: Store, raw: Raw) -> None:
    def add(number: int) -> None:
        for each in range(5):
            add_author(store, f"author-{number}-{each}")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(8)))
    assert [number for (number,) in raw("SELECT id FROM authors ORDER BY id")] == [*range(1, 41)]
    assert [number for (number,) in raw("SELECT id FROM events ORDER BY id")] == [*range(1, 81)]
    assert check(store).problems == ()


def test_a_reader_sees_one_moment_and_holds_nobody_up(store: Store) -> None:
    add_author(store, "ada")
    count = select(func.count(Author.id))
    with store.read() as session:
        assert session.scalar(count) == 1
        add_author(store, "bob")
        assert session.scalar(count) == 1
    with store.read() as session:
        assert session.scalar(count) == 2


def test_the_newest_event_is_known_by_its_number(store: Store) -> None:
    assert store.last_event() == 0
    add_author(store, "ada")  # the author, and a key
    assert store.last_event() == 2


# --- one writer at a time ------------------------------------------------------------------------


def test_a_writer_that_does_not_end_is_not_waited_for_for_ever(store: Store, url: str) -> None:
    impatient = open_store(url, busy_seconds=1)
    with store.write(), pytest.raises(JudgeError) as caught:
        add_author(impatient, "ada")
    assert caught.value.code is Code.STORE_FAILED
    add_author(impatient, "ada")
    impatient.close()


def test_a_thread_does_not_wait_for_ever_for_another_of_its_process(tmp_path: Path) -> None:
    """With PostgreSQL the transaction that says nothing is ended before."""
    impatient = open_store(f"sqlite:///{tmp_path / 'board.sqlite'}", busy_seconds=0.2)
    with ThreadPoolExecutor(1) as pool, impatient.write(), pytest.raises(JudgeError) as caught:
        pool.submit(add_author, impatient, "ada").result()
    assert caught.value.code is Code.STORE_FAILED
    add_author(impatient, "ada")
    impatient.close()


def test_a_write_that_fails_leaves_the_turn_to_the_next(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), store.write():
        raise ZeroDivisionError
    with ThreadPoolExecutor(1) as pool:
        pool.submit(add_author, store, "ada").result(timeout=10)


def test_a_postgresql_database_without_an_encoding_can_be_used(server: postgres.Server) -> None:
    """As one has that was set up where no locale is: its texts would arrive as bytes."""
    server.run("CREATE DATABASE plain TEMPLATE template0 ENCODING SQL_ASCII LOCALE 'C'")
    store = open_store(server.url("plain"))
    try:
        add_author(store, "ada")
        with store.read() as session:
            assert session.scalars(select(Author.name)).all() == ["ada"]
    finally:
        store.close()
        server.drop("plain")


def test_a_writer_whose_machine_stopped_does_not_stop_the_board(server: postgres.Server) -> None:
    url = server.create("stopped")
    store, stopped = open_store(url), open_store(url, busy_seconds=1)
    with pytest.raises(JudgeError) as caught, stopped.write() as writer:
        # It says nothing from here on; its transaction is ended in its absence.
        add_author(store, "ada")
        writer.append(ev.AuthorAdded(author=1, name="bob"))
    assert caught.value.code is Code.STORE_FAILED
    stopped.close()
    store.close()
    assert authors(url) == ["ada"]


# --- a full disk ---------------------------------------------------------------------------------


def fill(store: Store) -> int:
    """Submit until the store fails; gives how many were taken."""
    for number in range(1, 1000):
        try:
            hand_in(store, "ada", number, "x" * 500)
        except JudgeError as error:
            assert error.code is Code.STORE_FAILED
            assert "disk full" in error.message
            return number - 1
    raise AssertionError("it never was full")


def nothing_is_half_kept(store: Store, taken: int) -> None:
    assert check(store).problems == ()
    with store.read() as session:
        # Our sources are all different, and one without a submission would be a half.
        assert session.scalar(select(func.count(Source.sha256))) == taken


def test_a_full_database_keeps_nothing_of_the_step_and_works_again_with_room(
    tmp_path: Path, migrated: Path
) -> None:
    path = tmp_path / "board.sqlite"
    path.write_bytes(migrated.read_bytes())
    store = open_store(f"sqlite:///{path}")
    board_with(store, "ada", rule=MANY)
    with store.engine.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + 8}")
    taken = fill(store)
    assert taken > 0
    nothing_is_half_kept(store, taken)
    with store.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 1000000")
    assert hand_in(store, "ada", 1001) == taken + 1
    nothing_is_half_kept(store, taken + 1)
    store.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_full_disk_keeps_nothing_of_the_step_and_works_again_with_room(
    tmp_path: Path, migrated: Path
) -> None:
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=600k", "none", str(tmp_path)], check=False
    )
    if mounted.returncode:
        pytest.skip("this container may not mount anything")
    try:
        (tmp_path / "board.sqlite").write_bytes(migrated.read_bytes())
        (tmp_path / "ballast").write_bytes(bytes(100_000))
        store = open_store(f"sqlite:///{tmp_path / 'board.sqlite'}")
        board_with(store, "ada", rule=MANY)
        taken = fill(store)
        assert taken > 0
        (tmp_path / "ballast").unlink()
        nothing_is_half_kept(store, taken)
        assert hand_in(store, "ada", 1001) == taken + 1
        nothing_is_half_kept(store, taken + 1)
        store.close()
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


# --- backups -------------------------------------------------------------------------------------


@pytest.fixture
def dump_there(
    database: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL's client programs are found, wherever this machine has them."""
    if database == "postgresql":
        running: postgres.Server = request.getfixturevalue("server")
        monkeypatch.setenv("PATH", f"{running.programs}{os.pathsep}{os.environ['PATH']}")


@pytest.mark.usefixtures("dump_there")
def test_a_backup_while_others_write_is_the_store_of_one_moment(
    store: Store, tmp_path: Path, database: str, request: pytest.FixtureRequest
) -> None:
    board_with(store, "ada", rule=MANY)
    for number in range(5):
        hand_in(store, "ada", number)
    stop = threading.Event()

    def go_on() -> None:
        number = 100
        while not stop.is_set():
            add_author(store, f"author-{number}")
            number += 1

    thread = threading.Thread(target=go_on)
    thread.start()
    copy = tmp_path / "copy"
    try:
        back_up(store.engine, copy)
    finally:
        stop.set()
        thread.join()
    if database == "sqlite":
        restored = open_store(f"sqlite:///{copy}")
    else:
        running: postgres.Server = request.getfixturevalue("server")
        place = running.create("restored")
        command = [str(running.programs / "pg_restore"), f"--dbname={place}", str(copy)]
        subprocess.run(command, check=True)
        restored = open_store(place)
    assert check(restored).problems == ()
    with restored.read() as session:
        assert session.scalar(select(func.count(Source.sha256))) == 5
    # Changes of events are refused in the copy too.
    with pytest.raises(JudgeError), restored.write() as writer:
        writer.session.execute(text("DELETE FROM events"))
    restored.close()
    assert sorted(path.name for path in tmp_path.glob("copy*")) == ["copy"]


@pytest.mark.usefixtures("dump_there")
def test_a_backup_overwrites_nothing(store: Store, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(InputError, match="overwrites nothing"):
        back_up(store.engine, tmp_path / "mine")
    assert (tmp_path / "mine").read_text() == "mine"


@pytest.mark.usefixtures("dump_there")
def test_a_backup_into_a_folder_that_is_not_there_is_refused(store: Store, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        back_up(store.engine, tmp_path / "nowhere" / "copy")
    assert caught.value.code is Code.BAD_ARGUMENT


def test_the_password_is_on_no_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "pg_dump"
    program.write_text(
        f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/argv\necho "$PGPASSWORD" > {tmp_path}/env\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    back_up(make_engine("postgresql://ada:sesame@db/board"), tmp_path / "copy")
    assert "sesame" not in (tmp_path / "argv").read_text()
    assert "postgresql://ada@db/board" in (tmp_path / "argv").read_text()
    assert (tmp_path / "env").read_text() == "sesame\n"


def test_a_backup_without_the_client_programs_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="pg_dump is not there"):
        back_up(make_engine("postgresql://ada@db/board"), tmp_path / "copy")


def test_a_dump_that_fails_leaves_no_half_of_a_file(
    tmp_path: Path, server: postgres.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{server.programs}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(JudgeError) as caught:
        back_up(make_engine(server.url("no_such_database")), tmp_path / "copy")
    assert caught.value.code is Code.STORE_FAILED
    assert list(tmp_path.iterdir()) == []


# --- a server that goes away ---------------------------------------------------------------------


def test_a_connection_that_was_cut_is_our_failure_and_the_next_step_works(
    server: postgres.Server,
) -> None:
    store = open_store(server.create("cut"))
    with pytest.raises(JudgeError) as caught, store.write() as writer:
        writer.append(ev.AuthorAdded(author=1, name="ada"))
        with psycopg.connect(server.url("postgres")) as other:
            other.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'cut'"
            )
        writer.append(ev.AuthorAdded(author=2, name="bob"))
    assert caught.value.code is Code.STORE_FAILED
    add_author(store, "cyd")
    board_with(store)
    hand_in(store, "cyd")
    judge_next(store, rejected_result())
    assert authors(server.url("cut")) == ["cyd"]
    store.close()
