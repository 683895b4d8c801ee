"""Threads that write at the same time share a transaction, and nothing else."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import event, select

from harness.board import events as ev
from harness.board.maintenance import check
from harness.board.organise import add_author
from harness.board.store import Store, open_store
from harness.board.tables import Author
from harness.board.writer import Writer
from harness.errors import Code, InputError, JudgeError
from tests.board.conftest import Raw

THREADS = 8


def adding(name: str) -> Callable[[Writer], int]:
    def add(writer: Writer) -> int:
        number = writer.next_id(Author)
        writer.append(ev.AuthorAdded(author=number, name=name))
        return number

    return add


def written_and_refused(writer: Writer) -> int:
    adding("mallory")(writer)
    raise InputError(Code.NOT_NOW, "too late")


def written_and_broken(writer: Writer) -> int:
    adding("mallory")(writer)
    raise ZeroDivisionError


@contextmanager
def all_waiting(store: Store, steps: list[Callable[[Writer], int]]) -> Iterator[list[Future[int]]]:
    """Threads that each want to write a step, while another is writing; it ends when the block does."""
    with ThreadPoolExecutor(len(steps)) as pool, store.write():
        futures = [pool.submit(store.write_with_others, step) for step in steps]
        while len(store._steps) < len(steps):
            time.sleep(0.01)
        yield futures


def names(raw: Raw) -> list[str]:
    return [name for (name,) in raw("SELECT name FROM authors ORDER BY id")]


def test_what_waits_together_is_kept_by_one_commit(store: Store, raw: Raw) -> None:
    commits: list[object] = []
    with all_waiting(store, [adding(f"author-{n}") for n in range(THREADS)]) as futures:
        event.listen(store.engine, "commit", commits.append)
    assert sorted(future.result() for future in futures) == [*range(1, THREADS + 1)]
    assert len(commits) == 2  # of the one that was writing, and of all others
    assert len(names(raw)) == THREADS
    assert check(store).problems == ()


def test_one_that_is_refused_is_undone_alone_and_leaves_no_gap(store: Store, raw: Raw) -> None:
    steps = [adding("ada"), written_and_refused, adding("bob")]
    with all_waiting(store, steps) as (ada, refused, bob):
        pass
    with pytest.raises(InputError, match="too late"):
        refused.result()
    assert {ada.result(), bob.result()} == {1, 2}
    assert sorted(names(raw)) == ["ada", "bob"]
    assert check(store).problems == ()


@pytest.mark.parametrize("broken", [written_and_broken, adding("ada")])
def test_a_defect_or_the_database_undoes_all_and_all_are_told(
    store: Store, raw: Raw, broken: Callable[[Writer], int]
) -> None:
    with all_waiting(store, [adding("ada"), broken, adding("bob")]) as futures:
        pass
    told = {type(future.exception()) for future in futures}
    assert told == {ZeroDivisionError if broken is written_and_broken else JudgeError}
    assert names(raw) == []
    assert store.write_with_others(adding("carol")) == 1


def test_a_step_whose_turn_does_not_come_is_not_written_later(tmp_path: Path) -> None:
    impatient = open_store(f"sqlite:///{tmp_path / 'board.sqlite'}", busy_seconds=0.2)
    with ThreadPoolExecutor(1) as pool, impatient.write(), pytest.raises(JudgeError) as caught:
        pool.submit(impatient.write_with_others, adding("ada")).result()
    assert caught.value.code is Code.STORE_FAILED
    add_author(impatient, "bob")
    assert impatient.write_with_others(adding("carol")) == 2
    with impatient.read() as session:
        assert session.scalars(select(Author.name).order_by(Author.id)).all() == ["bob", "carol"]
    impatient.close()


def test_a_step_that_another_thread_is_writing_is_waited_for(tmp_path: Path) -> None:
    """However impatient its own thread is: what it says has to be what became of it."""
    store = open_store(f"sqlite:///{tmp_path / 'board.sqlite'}", busy_seconds=1)
    entered, go_on = threading.Event(), threading.Event()

    def slow(writer: Writer) -> int:
        entered.set()
        go_on.wait()
        return adding("ada")(writer)

    with ThreadPoolExecutor(2) as pool:
        with store.write():
            first = pool.submit(store.write_with_others, slow)
            while not store._steps:
                time.sleep(0.01)
            second = pool.submit(store.write_with_others, adding("bob"))
            while len(store._steps) < 2:
                time.sleep(0.01)
        entered.wait()
        time.sleep(1.3)  # more than either would wait for its turn
        assert not first.done()
        assert not second.done()
        go_on.set()
        assert (first.result(), second.result()) == (1, 2)
    store.close()
