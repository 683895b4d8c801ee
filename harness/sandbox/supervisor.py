"""The process between the judge and a sandbox: starts the command, enforces limits, leaves nothing.

The judge starts `python -I -S -c "... supervise()"` with three descriptors: stdin carries the plan (one
line of JSON) and is then the lifeline, whose end means "stop", also when the judge was killed;
stdout takes the ending (JSON) once nothing of the sandbox is left; a memory file takes the log.
"""

import contextlib
import os
import selectors
import subprocess
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.sandbox import fabric
from harness.sandbox.environment import kernel_tasks
from harness.sandbox.for_all import folders_for_all
from harness.sandbox.job import EndReason, Fabric
from harness.sandbox.own_group import OwnGroup
from harness.sandbox.process_tree import (
    become_subreaper,
    descendants,
    end_all,
    memory_of,
    tasks_of,
)
from harness.sandbox.removal import remove_tree
from harness.sandbox.supervising import (
    FAILED,
    KILL_SECONDS,
    End,
    Look,
    Report,
    first_line,
    go_above_the_ranks,
    look_once,
    mib,
    out_of_memory,
    over_size,
    send,
    stop_was_said,
    too_many_tasks,
)
from harness.sandbox.user import take_back
from harness.sandbox.watch import Log

PIPE_BYTES = 1 << 16
# A flood of output is read in portions, so that the limits are looked at in between.
PORTIONS = 64
MEMORY_FOLDERS = ("/tmp", "/dev/shm")


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
        shared_folders: the command saw the host's /tmp and others that everybody may write to: remove what
            the user left there.
        log: descriptor of the log's memory file.
        fabric: a network to other sandboxes: the fields of a `Fabric`.
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
    fabric: dict[str, Any] | None = None


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


class _Supervision:
    """From the command's start to the reason for its end; what is left is then `end_all`'s."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._look = Look(plan.outbox)
        self._log = Log(plan.log, plan.log_bytes)
        if plan.fabric is not None:
            fabric.enter(Fabric(**plan.fabric))
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
        go_above_the_ranks()
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
            if exited in ready:
                return self._exit()
            if (began := time.monotonic()) >= next_poll:
                _reap_orphans(self._command.pid)
                limit, wait = look_once(self._over_limit)
                if limit is not None:
                    return limit
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
            return too_many_tasks(tasks, plan.processes)
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
        return out_of_memory(self._plan.memory_bytes)

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


def _clean(plan: Plan) -> None:
    """Take back what the user was given, remove what it left. Nothing of it runs any more."""
    take_back(plan.writable)
    if plan.scratch is not None:
        remove_tree(Path(plan.scratch))
    if plan.user is None or not plan.shared_folders:
        return
    for folder in folders_for_all():
        with contextlib.suppress(OSError):
            for entry in list(os.scandir(folder)):
                if entry.stat(follow_symlinks=False).st_uid != plan.user:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    remove_tree(Path(entry.path))
                else:
                    os.unlink(entry.path)
