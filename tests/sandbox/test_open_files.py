"""What processes hold open is seen, and however much it is, a look ends."""

import mmap
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness.sandbox import open_files
from harness.sandbox.open_files import OpenFiles, StopLookingError, TooManyDescriptorsError
from harness.sandbox.process_tree import memory_of, read_process

KIB, MIB = 2**10, 2**20
MINE = [os.getpid()]


def never() -> bool:
    return False


@contextmanager
def holding(*hold: Callable[[], object]) -> Iterator[list[int]]:
    """Processes that hold what they opened, until this is over; their ids, in this order."""
    children = []
    for each in hold:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.closerange(3, writing)
            os.closerange(writing + 1, 10_000)
            kept = each()
            os.write(writing, b"x")
            signal.pause()
            del kept
        os.read(reading, 1)
        os.close(reading)
        os.close(writing)
        children.append(child)
    yield children
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def memory_file(size: int) -> int:
    file = os.memfd_create("held")
    os.write(file, bytes(size))
    return file


def test_files_without_a_name_are_counted_where_they_take_room(tmp_path: Path) -> None:
    named = (tmp_path / "named").open("wb")
    nameless = (tmp_path / "nameless").open("w+b")
    for file in (named, nameless):
        file.write(bytes(5000))
        file.flush()
    files = OpenFiles(str(tmp_path), never)

    def counted() -> int:
        files.look(MINE, mapped=True)
        return files.nameless_bytes

    before = counted()
    (tmp_path / "nameless").unlink()
    size = os.fstat(nameless.fileno()).st_blocks * 512
    assert counted() - before == size >= 5000
    held = mmap.mmap(nameless.fileno(), 4096)
    for file in (named, nameless):
        file.close()
    assert counted() - before == size  # Python's mmap keeps a descriptor of its own
    held.close()
    assert counted() == before


def test_a_mapped_file_is_looked_for_when_that_is_asked_and_remembered(tmp_path: Path) -> None:
    path = tmp_path / "mapped"
    path.write_bytes(bytes(8192))

    def hold() -> object:
        import ctypes

        file = os.open(path, os.O_RDWR)
        libc = ctypes.CDLL(None, use_errno=True)
        libc.mmap.restype = ctypes.c_void_p
        assert libc.mmap(None, 8192, mmap.PROT_READ, mmap.MAP_SHARED, file, 0) != 2**64 - 1
        os.close(file)
        path.unlink()
        return None

    with holding(hold) as pids:
        files = OpenFiles(str(tmp_path), never)
        files.look(pids, mapped=False)
        assert files.nameless_bytes == 0
        for mapped in (True, False):
            files.look(pids, mapped=mapped)
            assert files.nameless_bytes >= 8192
    files.look([], mapped=False)
    assert files.nameless_bytes == 0


def test_memory_files_count_once_however_many_hold_them() -> None:
    shared = memory_file(MIB)
    path = f"/proc/{os.getpid()}/fd/{shared}"
    before = OpenFiles(None, never)
    before.look(MINE, mapped=False)
    with holding(lambda: memory_file(2 * MIB), *[lambda: os.open(path, os.O_RDONLY)] * 2) as pids:
        files = OpenFiles(None, never)
        files.look(pids, mapped=False)
        assert files.memory_bytes == 3 * MIB
        files.look([*MINE, *pids], mapped=False)
        assert files.memory_bytes - before.memory_bytes == 2 * MIB
    os.close(shared)


def test_more_descriptors_than_anybody_needs_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    with holding(*[lambda: [os.dup(2) for _ in range(40)]] * 3) as pids:
        monkeypatch.setattr(open_files, "MOST_DESCRIPTORS", 100)
        OpenFiles(None, never).look(pids[:2], mapped=False)
        with pytest.raises(TooManyDescriptorsError, match="more than 100 open files"):
            OpenFiles(None, never).look(pids, mapped=False)


def test_one_process_with_too_many_is_not_looked_at_to_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked_at: list[str] = []
    readlink = os.readlink

    def count(path: str) -> str:
        looked_at.append(path)
        return readlink(path)

    monkeypatch.setattr(os, "readlink", count)
    monkeypatch.setattr(open_files, "MOST_DESCRIPTORS", 10)
    with (
        holding(lambda: [os.dup(2) for _ in range(200)]) as pids,
        pytest.raises(TooManyDescriptorsError),
    ):
        OpenFiles(None, never).look(pids, mapped=False)
    assert len(looked_at) == 10


def test_a_look_without_time_reaches_all_of_them_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """And what it does not reach keeps what was seen of it."""
    monkeypatch.setattr(open_files, "LOOK_SECONDS", 0.0)
    with holding(*[lambda: memory_file(MIB)] * 3) as pids:
        files = OpenFiles(None, never)
        seen = []
        for _ in range(5):
            files.look(pids, mapped=False)
            seen.append(files.memory_bytes // MIB)
        assert seen == [1, 2, 3, 3, 3]
        files.look(pids[:1], mapped=False)
        assert files.memory_bytes == MIB


def test_the_judge_is_heard_in_the_middle_of_a_look() -> None:
    asked = []

    def stop() -> bool:
        asked.append(time.monotonic())
        return len(asked) > 2

    with (
        holding(lambda: [os.dup(2) for _ in range(4_000)]) as pids,
        pytest.raises(StopLookingError),
    ):
        OpenFiles(None, stop).look(pids, mapped=False)
    assert len(asked) == 3


def test_a_process_that_has_gone_is_nothing() -> None:
    files = OpenFiles(None, never)
    files.look([2**22 - 1], mapped=True)
    assert (files.memory_bytes, files.nameless_bytes) == (0, 0)


def test_memory_that_takes_too_long_to_be_weighed_counts_as_the_cheap_sum(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else hundreds of processes that share a large mapping would hold the judge up for minutes."""
    with holding(lambda: bytearray(b"x") * (20 * MIB)) as pids:
        process = read_process(pids[0])
        assert process is not None
        cheap = memory_of([process], 2**60, 5, never)
        assert cheap > 20 * MIB
        weighed = memory_of([process], 0, 5, never)
        monkeypatch.setattr("harness.sandbox.process_tree.WEIGH_SECONDS", -1.0)
        assert memory_of([process], 0, 5, never) == cheap >= weighed
        monkeypatch.undo()
        assert memory_of([process], 0, 5, lambda: True) == cheap
