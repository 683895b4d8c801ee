"""All processes below this one: find them, count them, weigh them, end them. Reads /proc only.

The caller has to be a child subreaper (`become_subreaper`): then a process whose parent has died
becomes the caller's child, no descendant can leave the tree, and "no child is left" proves that no
descendant is.
"""

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

PR_SET_CHILD_SUBREAPER = 36
KIB = 1024
# A rank with tens of gibibytes takes a tenth of a second.
WEIGH_SECONDS = 10.0


@dataclass(frozen=True)
class Process:
    """One line of /proc/PID/stat. `start` (clock ticks since boot) tells a reused pid apart.

    `name` is the program's own choice; `ticks` of CPU time were used by it, also on the kernel's side.
    """

    pid: int
    parent: int
    threads: int
    start: int
    state: str
    name: str
    ticks: int

    @property
    def alive(self) -> bool:
        """A process whose first thread has ended looks like a zombie as long as the others go on."""
        return self.state not in "ZX" or self.threads > 1


def become_subreaper() -> None:
    """Adopt every orphan below this process. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def read_process(pid: int) -> Process | None:
    """None when it has gone."""
    text = _read(f"/proc/{pid}/stat")
    if text is None:
        return None
    # The name in parentheses may hold anything, parentheses too.
    name, _, rest = text.partition(b"(")[2].rpartition(b")")
    fields = rest.split()
    return Process(
        pid=pid,
        parent=int(fields[1]),
        threads=int(fields[17]),
        start=int(fields[19]),
        state=fields[0].decode(),
        name=name.decode(errors="replace"),
        ticks=int(fields[11]) + int(fields[12]),
    )


def every_process() -> Iterator[Process]:
    """All that one pass over /proc sees; inside a container these are its own."""
    for name in os.listdir("/proc"):
        if name.isdecimal() and (process := read_process(int(name))) is not None:
            yield process


def below(root: int, processes: Iterable[Process]) -> list[Process]:
    """Those of `processes` that descend from the one with the id `root`, in no order."""
    children: dict[int, list[Process]] = {}
    for process in processes:
        children.setdefault(process.parent, []).append(process)
    found: list[Process] = []
    parents = [root]
    while parents:
        those = children.get(parents.pop(), [])
        found += those
        parents += [process.pid for process in those]
    return found


def descendants() -> list[Process]:
    """Every process below this one."""
    return below(os.getpid(), every_process())


def tasks_of(processes: Iterable[Process]) -> int:
    """Processes and threads."""
    return sum(process.threads for process in processes if process.alive)


def memory_of(
    processes: Iterable[Process], limit: int, memory_files: int, stop: Callable[[], bool]
) -> int:
    """Bytes of anonymous and shared memory.

    The cheap sum (resident pages of each process) counts a page once for each process that maps it.
    Only if it is over the limit are the proportional sizes read, which count a page once in all but
    walk the page tables; who spreads so much over so many that this takes too long has the cheap sum.

    Args:
        processes: of the sandbox.
        limit: bytes.
        memory_files: bytes in memory files that they hold open.
        stop: whether the judge wants the sandbox to end, so that nothing of this matters any more.
    """
    alive = [living_task(process) for process in processes if process.alive]
    cheap = sum(map(_resident, alive)) + memory_files
    if cheap <= limit:
        return cheap
    until = time.monotonic() + WEIGH_SECONDS
    anonymous, shared = 0, 0
    for task in alive:
        if stop() or time.monotonic() > until:
            return cheap
        sizes = _proportional(task)
        anonymous += sizes[0]
        shared += sizes[1]
    # A mapped memory file is in both sums, so the larger stands for both.
    return anonymous + max(shared, memory_files)


def living_task(process: Process) -> str:
    """The folder below /proc that tells of its memory and files: its own, or one of a thread that lives."""
    folder = f"/proc/{process.pid}"
    if process.state not in "ZX":
        return folder
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"{folder}/task"):
            if thread != str(process.pid):
                return f"{folder}/task/{thread}"
    return folder


def _resident(task: str) -> int:
    fields = _fields(f"{task}/status", (b"RssAnon", b"RssShmem", b"HugetlbPages"))
    return sum(fields.values())


def _proportional(task: str) -> tuple[int, int]:
    """Anonymous and shared bytes; the resident sizes where the kernel does not tell."""
    fields = _fields(f"{task}/smaps_rollup", (b"Pss_Anon", b"Pss_Shmem"))
    if len(fields) < 2:
        return _resident(task), 0
    return fields[b"Pss_Anon"], fields[b"Pss_Shmem"]


def _fields(path: str, names: tuple[bytes, ...]) -> dict[bytes, int]:
    found = {}
    for line in (_read(path) or b"").splitlines():
        name, _, value = line.partition(b":")
        if name in names:
            found[name] = int(value.split()[0]) * KIB
    return found


def _read(path: str) -> bytes | None:
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        parts = []
        while part := os.read(file, 1 << 16):
            parts.append(part)
        return b"".join(parts)
    except OSError:
        return None
    finally:
        os.close(file)


def reap() -> bool:
    """Collect the dead. True when no child is left, and so no descendant."""
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return True
        if pid == 0:
            return False


def end_all(user: int | None, seconds: float) -> list[int]:
    """Kill every descendant until none is left.

    All are stopped before any is killed: a program that forks faster than it can be killed one by
    one forks no more once it is stopped.

    Args:
        user: user id that only the sandbox has, where this process is root: one signal reaches all
            of its processes at once, children being forked in that moment included. None: no such.
        seconds: how long to try. Only a process that hangs inside the kernel takes any.

    Returns:
        Process ids that could not be ended; empty as a rule.
    """
    until = time.monotonic() + seconds
    while True:
        if user is not None:
            _kill_user(user)
        _stop_all(until)
        for process in descendants():
            _signal(process, signal.SIGKILL)
        patience = time.monotonic() + 0.05
        while time.monotonic() < patience:
            if reap():
                return []
            time.sleep(0.001)
        if time.monotonic() > until:
            return [process.pid for process in descendants()]


def _stop_all(until: float) -> None:
    """SIGSTOP all descendants, until a pass over /proc shows no new one."""
    stopped: set[tuple[int, int]] = set()
    while time.monotonic() < until:
        found = descendants()
        new = [process for process in found if (process.pid, process.start) not in stopped]
        if not new:
            return
        for process in new:
            _signal(process, signal.SIGSTOP)
            stopped.add((process.pid, process.start))


def _signal(process: Process, number: signal.Signals) -> None:
    """Signal this very process: a fork bomb uses up process ids, and one may be another's by now."""
    try:
        handle = os.pidfd_open(process.pid)
    except OSError:
        return  # it has gone
    try:
        now = read_process(process.pid)
        if now is not None and now.start == process.start:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(handle, number)
    finally:
        os.close(handle)


def _kill_user(user: int) -> None:
    """SIGKILL to every process of a user, from a child that has become that user."""
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            os.setgroups([])
            os.setresuid(user, user, user)
            os.kill(-1, signal.SIGKILL)
        os._exit(0)
    os.waitpid(child, 0)
