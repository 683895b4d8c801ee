"""The process between the judge and a sandbox: starts the command, enforces limits, leaves nothing.

The judge starts `python -I -S -c "... supervise()"` with three descriptors: stdin carries the plan (one
line of JSON) and is then the lifeline, whose end means "stop", also when the judge was killed;
stdout takes the ending (JSON) once nothing of the sandbox is left; a memory file takes the log.
"""

import contextlib
import json
import os
import select
import selectors
import subprocess
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

from harness.sandbox.environment import kernel_tasks
from harness.sandbox.job import EndReason
from harness.sandbox.open_files import OpenFiles, StopLookingError, TooManyDescriptorsError
from harness.sandbox.own_group import OwnGroup
from harness.sandbox.process_tree import (
    become_subreaper,
    descendants,
    end_all,
    memory_of,
    tasks_of,
)
from harness.sandbox.removal import remove_tree
from harness.sandbox.user import take_back
from harness.sandbox.watch import Log, TooManyEntriesError, folder_bytes

POLL_SECONDS = 0.1
LONGEST_POLL_SECONDS = 1.0
# Measuring may take this share of one core, so that it does not slow the ranks down.
POLL_SHARE = 0.02
# Looking for mapped files reads every mapping of every process: not each time.
MAPS_SECONDS = 1.0
KILL_SECONDS = 120.0
PIPE_BYTES = 1 << 16
# A flood of output is read in portions, so that the limits are looked at in between.
PORTIONS = 64
WRITABLE_BY_ALL = ("/tmp", "/var/tmp", "/dev/shm")
MEMORY_FOLDERS = ("/tmp", "/dev/shm")
# Above the ranks, where that is allowed: who is to enforce limits must not wait for whom it limits.
NICENESS = -10

#: Reason, exit status, and a sentence.
End = tuple[EndReason, int | None, str]


@dataclass(frozen=True)
class Plan:
    """What the judge orders; sizes in bytes.

    Attributes:
        argv, environment: the outermost command.
        descriptors: inherited by it.
        own_tasks: tasks of the sandbox's own machinery, not counted against the limit.
        group_bytes: what the kernel lets it have in all, files in memory included, where it can be told.
        outbox, scratch: folders whose bytes are limited; the scratch folder is removed at the end.
        user: user id that only this sandbox has, or None.
        writable: folders that were given to that user and are taken back at the end.
        shared_folders: the command saw the host's /tmp and the like: remove what the user left there.
        log: descriptor of the log's memory file.
    """

    argv: list[str]
    environment: dict[str, str]
    descriptors: list[int]
    own_tasks: int
    memory_bytes: int
    group_bytes: int
    processes: int
    outbox: str | None
    outbox_bytes: int
    scratch: str | None
    scratch_bytes: int
    user: int | None
    writable: list[str]
    shared_folders: bool
    log: int
    log_bytes: int


FAILED, LEFT = "failed", "left"


@dataclass(frozen=True)
class Report:
    """The ending as it goes to the judge.

    Attributes:
        reason: an EndReason, FAILED when the supervisor itself did, or LEFT: of the sandbox something
            is left that is no process of ours.
        left: processes that could not be ended.
    """

    reason: str
    exit_status: int | None
    detail: str
    left: list[int]


def supervise() -> None:
    """Entry point: one plan, one report."""
    os.setsid()  # a Ctrl-C is for the judge, who then says stop
    become_subreaper()
    plan = Plan(**first_line())
    supervision = None
    try:
        supervision = _Supervision(plan)
        reason, status, detail = supervision.run()
        report = Report(str(reason), status, detail, [])
    except Exception as error:
        report = Report(FAILED, None, f"{type(error).__name__}: {error}", [])
    left = end_all(plan.user, KILL_SECONDS)
    if supervision is not None:
        supervision.drain()
        if supervision.group is not None:
            supervision.group.remove()
    _clean(plan)
    send(replace(report, left=left))


def send(report: Report) -> NoReturn:
    """Tell the judge, and end."""
    with contextlib.suppress(OSError):  # the judge may be gone
        os.write(1, json.dumps(asdict(report)).encode())
    os._exit(0)


def first_line() -> dict[str, Any]:
    """The plan, from standard input."""
    data = b""
    while not data.endswith(b"\n"):
        part = os.read(0, 1 << 16)
        if not part:
            os._exit(1)  # the judge died before it had given an order
        data += part
    plan: dict[str, Any] = json.loads(data)
    return plan


class _Supervision:
    """From the command's start to the reason for its end; what is left is then `end_all`'s."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._look = Look(plan.outbox)
        self._log = Log(plan.log, plan.log_bytes)
        self.group = OwnGroup.make(plan.group_bytes, plan.own_tasks + kernel_tasks(plan.processes))
        self._command = subprocess.Popen(
            plan.argv,
            env=plan.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=plan.descriptors,
            preexec_fn=None if self.group is None else self.group.join,
        )
        for descriptor in plan.descriptors:
            os.close(descriptor)
        with contextlib.suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, 0, NICENESS)  # only now: the command would inherit it
        assert self._command.stdout is not None
        self._output = self._command.stdout.fileno()
        os.set_blocking(self._output, False)

    def run(self) -> End:
        """Wait for the first of: the command's exit, the judge's word, a limit."""
        exited = os.pidfd_open(self._command.pid)
        selector = selectors.DefaultSelector()
        for source in (0, exited, self._output):
            selector.register(source, selectors.EVENT_READ)
        next_poll = 0.0
        while True:
            ready = {key.fd for key, _ in selector.select(max(0.0, next_poll - time.monotonic()))}
            if self._output in ready and not self.drain():
                selector.unregister(self._output)
            if 0 in ready:
                return EndReason.STOPPED, None, "stopped by the judge"
            began = time.monotonic()
            if exited in ready:
                return self._exit()
            if began >= next_poll:
                limit = None
                with contextlib.suppress(
                    StopLookingError
                ):  # the judge's word is read at the next turn
                    limit = self._over_limit()
                if limit is not None:
                    return limit
                _reap_orphans(self._command.pid)
                cost = time.monotonic() - began
                wait = min(max(POLL_SECONDS, cost / POLL_SHARE), LONGEST_POLL_SECONDS)
                next_poll = began + wait

    def _exit(self) -> End:
        status = self._command.wait()
        self.drain()
        # A limit that was passed in the last moment is a limit passed.
        if (over := self._over_group()) is not None:
            return over
        over = self._over_folders()
        if over is not None:
            return over
        if status < 0:
            return EndReason.EXITED, 128 - status, f"ended by signal {-status}"
        return EndReason.EXITED, status, f"ended with exit status {status}"

    def drain(self) -> bool:
        """Move output into the log. False at its end."""
        for _ in range(PORTIONS):
            try:
                data = os.read(self._output, PIPE_BYTES)
            except BlockingIOError:
                return True
            if not data:
                return False
            self._log.append(data)
        return True

    def _over_limit(self) -> End | None:
        """What is known at once comes first: tasks and memory, then what has to be walked through."""
        plan = self._plan
        if (over := self._over_group()) is not None:
            return over
        processes = descendants()
        tasks = tasks_of(processes) - plan.own_tasks
        if tasks > plan.processes:
            return (
                EndReason.PROCESSES,
                None,
                f"{tasks} processes and threads where {plan.processes} are allowed",
            )
        files = self._look.files
        for look_again in (False, True):
            if look_again and (over := self._look.over(p.pid for p in processes)) is not None:
                return over
            memory = memory_of(processes, plan.memory_bytes, files.memory_bytes, stop_was_said)
            if self.group is not None:
                in_files = max((files_in_memory(each.pid) for each in processes), default=0)
                memory = max(memory, self.group.memory_bytes() - in_files)
            if memory > plan.memory_bytes and not stop_was_said():
                return (
                    EndReason.MEMORY,
                    None,
                    f"{mib(memory)} of memory where {mib(plan.memory_bytes)} are allowed",
                )
        return self._over_folders()

    def _over_group(self) -> End | None:
        if self.group is None or not self.group.killed_for_memory():
            return None
        allowed = mib(self._plan.memory_bytes)
        return EndReason.MEMORY, None, f"memory ran out where {allowed} are allowed"

    def _over_folders(self) -> End | None:
        plan = self._plan
        return over_size(
            "the outbox", plan.outbox, plan.outbox_bytes, self._look.files.nameless_bytes
        ) or over_size("the temporary folder", plan.scratch, plan.scratch_bytes)


def files_in_memory(pid: int) -> int:
    """Bytes in /tmp and /dev/shm of a sandbox that has these to itself, in memory, with their own limits.

    A control group counts them as memory. 0 for a process that sees the machine's.
    """
    devices: dict[int, int] = {}
    with contextlib.suppress(OSError):
        if os.readlink(f"/proc/{pid}/ns/mnt") == os.readlink("/proc/self/ns/mnt"):
            return 0
        for folder in MEMORY_FOLDERS:
            path = f"/proc/{pid}/root{folder}"
            status = os.statvfs(path)
            devices[os.stat(path).st_dev] = (status.f_blocks - status.f_bfree) * status.f_frsize
    return sum(devices.values())


class Look:
    """What the processes hold open, looked at again and again.

    Args:
        outbox: its file system is where files without a name are counted.
    """

    def __init__(self, outbox: str | None) -> None:
        self._next_maps = 0.0
        self.files = OpenFiles(outbox, stop_was_said)

    def over(self, pids: Iterable[int]) -> End | None:
        """Look; the end of a sandbox that holds too many files open. Raises StopLookingError."""
        mapped = time.monotonic() >= self._next_maps
        if mapped:
            self._next_maps = time.monotonic() + MAPS_SECONDS
        try:
            self.files.look(pids, mapped=mapped)
        except TooManyDescriptorsError as error:
            return EndReason.PROCESSES, None, str(error)
        return None


def stop_was_said() -> bool:
    """Whether the judge has closed the lifeline, or said a word."""
    return bool(select.select([0], [], [], 0)[0])


def over_size(name: str, folder: str | None, allowed: int, nameless: int = 0) -> End | None:
    """The end of a sandbox whose `folder` holds more than `allowed` bytes, or None.

    Args:
        nameless: bytes on its file system in files without a name.
    """
    if folder is None:
        return None
    try:
        size = folder_bytes(folder) + nameless
    except TooManyEntriesError as error:
        return EndReason.OUTBOX, None, f"{name} has {error}"
    if size > allowed:
        return EndReason.OUTBOX, None, f"{mib(size)} in {name} where {mib(allowed)} are allowed"
    return None


def _reap_orphans(command: int) -> None:
    """Collect dead orphans, but leave the command's exit status to whoever waits for it."""
    while True:
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if found is None or found.si_pid == command:
            return
        os.waitpid(found.si_pid, 0)


def mib(size: int) -> str:
    """For a person."""
    return f"{size / 2**20:.1f} MiB"


def _clean(plan: Plan) -> None:
    """Take back what the user was given, remove what it left. Nothing of it runs any more."""
    take_back(plan.writable)
    if plan.scratch is not None:
        remove_tree(Path(plan.scratch))
    if plan.user is None or not plan.shared_folders:
        return
    for folder in WRITABLE_BY_ALL:
        with contextlib.suppress(OSError):
            for entry in list(os.scandir(folder)):
                if entry.stat(follow_symlinks=False).st_uid != plan.user:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    remove_tree(Path(entry.path))
                else:
                    os.unlink(entry.path)
