"""Attempts to take more than is allowed, and to stay longer. Each may end the sandbox."""

import contextlib
import errno
import mmap
import os
import signal
import socket
import tempfile
import time
from collections.abc import Callable

from .stage import MIB, Briefing, Tries, call

LINGER_SECONDS = 2.0
MAPS_SECONDS = 6.0  # the supervisor looks for these less often


def fork(stage: Briefing, tries: Tries) -> None:
    """Start more processes than allowed."""
    for count in range(stage.tasks):
        try:
            child = os.fork()
        except OSError as error:
            tries.refused.append(f"after {count} processes: {error.strerror}")
            time.sleep(LINGER_SECONDS)
            return
        if child == 0:
            time.sleep(60)
            os._exit(0)
    linger(tries, f"{stage.tasks} processes")


def memory(stage: Briefing, tries: Tries) -> None:
    """Hold more memory than allowed."""
    held = []
    for count in range(stage.memory_bytes // (16 * MIB)):
        try:
            held.append(bytearray(b"x") * (16 * MIB))
        except MemoryError:
            tries.refused.append(f"after {16 * count} MiB: MemoryError")
            return
    linger(tries, f"{stage.memory_bytes // MIB} MiB")


def kernel_memory(stage: Briefing, tries: Tries) -> None:
    """Hold memory that belongs to the kernel: what is on its way through sockets."""
    taken, kept = 0, []
    while taken < stage.memory_bytes:
        try:
            ends = socket.socketpair()
        except OSError as error:
            tries.refused.append(f"after {taken // MIB} MiB: {error.strerror}")
            return
        kept.append(ends)
        ends[0].setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                taken += ends[0].send(bytes(1 << 16))
    linger(tries, f"{taken // MIB} MiB on their way through sockets")


def outbox(stage: Briefing, tries: Tries) -> None:
    """Fill the disk through the outbox."""
    fill(stage, tries, stage.outbox)
    linger(tries)


def deleted_files(stage: Briefing, tries: Tries) -> None:
    """Fill the disk with files that have no name any more but are open."""

    def unlink(path: str, file: int) -> None:
        os.unlink(path)

    fill(stage, tries, stage.outbox, unlink)
    linger(tries)


def mapped_files(stage: Briefing, tries: Tries) -> None:
    """Fill the disk with files that have no name and are not open, but mapped into memory."""

    def unlink_and_map(path: str, file: int) -> None:
        os.unlink(path)
        # Not `mmap.mmap`, which keeps a descriptor of its own.
        call("mmap", None, MIB, mmap.PROT_READ, mmap.MAP_SHARED, file, 0)
        os.close(file)

    fill(stage, tries, stage.outbox, unlink_and_map)
    linger(tries, seconds=MAPS_SECONDS)


def temporary_folder(stage: Briefing, tries: Tries) -> None:
    """Fill the disk through the own temporary folder."""
    fill(stage, tries, tempfile.gettempdir())
    linger(tries)


def machine_folders(stage: Briefing, tries: Tries) -> None:
    """Fill the disk through the machine's temporary folders."""
    for folder in ("/tmp", "/var/tmp"):
        fill(stage, tries, folder)
    linger(tries)


def shared_memory(stage: Briefing, tries: Tries) -> None:
    """Fill /dev/shm, and take System V shared memory, which belongs to no process."""

    def take() -> None:
        segment = call("shmget", 0, stage.folder_bytes, 0o1600)
        call("shmctl", segment, 0, None)  # IPC_RMID

    tries.way("System V shared memory", take)
    fill(stage, tries, "/dev/shm")
    linger(tries)


def fill(
    stage: Briefing,
    tries: Tries,
    folder: str,
    then: Callable[[str, int], None] = lambda path, file: os.close(file),
) -> None:
    """Write files of 1 MiB; `then` is done with the path and the descriptor of each."""
    for count in range(stage.folder_bytes // MIB):
        path = f"{folder}/{stage.marker}-{count}"
        try:
            file = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
            if os.write(file, bytes(MIB)) < MIB:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            then(path, file)
        except OSError as error:
            tries.refused.append(f"{folder} after {count} MiB: {error.strerror}")
            return
    tries.through.append(f"{stage.folder_bytes // MIB} MiB in {folder}")


def linger(tries: Tries, name: str = "", seconds: float = LINGER_SECONDS) -> None:
    """Keep what was taken for as long as the judge needs to see it."""
    if name:
        tries.through.append(name)
    if tries.through:
        time.sleep(seconds)


def outlive(stage: Briefing, tries: Tries) -> None:
    """Stay when the evaluation is over: daemons, deaf to signals, and nobody left to end them."""
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    for _ in range(3):
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                time.sleep(60)
            os._exit(0)
    time.sleep(0.1)
    if (parent := os.getppid()) > 0:
        tries.way("kill the supervisor", end_parent, parent)


def end_parent(parent: int) -> None:
    """A signal to the first process of one's own PID namespace is taken and does nothing."""
    os.kill(parent, signal.SIGKILL)
    time.sleep(0.1)
    if os.getppid() == parent:
        raise OSError(errno.EPERM, "it lives on")
