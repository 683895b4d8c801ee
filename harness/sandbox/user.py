"""Level `user`: another user id, no new privileges, resource limits. Also finds such a user id.

The ids are of a range that neither Linux distributions nor systemd give out (60578 to 61183 is
unassigned in systemd's table, https://systemd.io/UIDS-GIDS/). Each sandbox has its own, so that two
that run at the same time cannot signal or read one another, and one signal ends all that is of it.
That signal reaches into containers, whose judges see neither the host's processes nor one another's:
they have a range of their own, and begin somewhere in it.
"""

import contextlib
import os
import pwd
import secrets
import socket
import stat
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from harness.errors import Code, JudgeError
from harness.sandbox.environment import (
    enter_argv,
    package_folders,
    python_folders,
)
from harness.sandbox.job import Job
from harness.sandbox.judge_container import inside

HOST_USERS = range(60600, 60700)
CONTAINER_USERS = range(60700, 61100)


@dataclass(frozen=True)
class SandboxUser:
    """A user id for one sandbox, taken as long as `lock` is open in some process."""

    number: int
    lock: socket.socket


@dataclass(frozen=True)
class Command:
    """What the supervisor starts; `descriptors` are inherited and then closed by it."""

    argv: tuple[str, ...]
    descriptors: tuple[int, ...]


def allocate_user() -> SandboxUser:
    """Take a user id that no account, no process and no other sandbox has.

    The lock is a name in the abstract socket namespace: the kernel frees it when the last process
    that holds it has died, however it died. Raises JudgeError when all are taken.
    """
    in_use = _users_of_processes()
    for number in _candidates():
        if number in in_use or _has_account(number):
            continue
        lock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            lock.bind(f"\0trainjudge-user-{number}")
        except OSError:
            lock.close()
            continue
        return SandboxUser(number, lock)
    raise JudgeError(
        Code.SANDBOX_UNAVAILABLE,
        "all user ids for sandboxes are in use: other evaluations are running, or processes of old "
        "ones are left",
    )


def _candidates() -> list[int]:
    if not inside():
        return list(HOST_USERS)
    first = secrets.randbelow(len(CONTAINER_USERS))
    return [*CONTAINER_USERS[first:], *CONTAINER_USERS[:first]]


def _users_of_processes() -> set[int]:
    users = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                users.add(entry.stat().st_uid)
            except OSError:
                continue
    return users


def _has_account(number: int) -> bool:
    try:
        pwd.getpwuid(number)
    except KeyError:
        return False
    return True


def hand_over(job: Job, user: int) -> None:
    """Make the writable folders the sandbox user's own, and let no other into these and the private ones.

    The judge, being root, still has access.
    """
    # The mode first: in a container root may not change that of a folder which is another's already.
    for folder in job.writable:
        folder.chmod(0o700)
        os.chown(folder, user, user)
    for folder in job.private:
        folder.chmod(0o750)
        os.chown(folder, 0, user)


def take_back(folders: Iterable[str]) -> None:
    """Undo `hand_over` once nothing of the sandbox runs: root's alone, mode 0700.

    The next sandbox may have the same user id: it must not reach this one's files, which the judge is
    about to read.
    """
    for folder in folders:
        with contextlib.suppress(OSError):
            os.chown(folder, 0, 0, follow_symlinks=False)
            os.chmod(folder, 0o700)


def command(job: Job, scratch: str, user: int) -> Command:
    """Run `job.argv` as `user`. Raises JudgeError when that user cannot reach what the job names."""
    paths = (job.code, *job.read_only, *job.writable, Path(scratch))
    blocked = unreachable(paths)
    if blocked is not None:
        raise JudgeError(Code.SANDBOX_UNAVAILABLE, f"level user: {blocked}")
    argv = enter_argv(job, folder=scratch, user=user, isolated=True, count_tasks=True)
    return Command(argv, ())


def unavailable() -> str | None:
    """Why a sandbox cannot be another user here, or None. Whether it can is tried by `probe`."""
    if os.geteuid() != 0:
        return (
            "changing to another user needs root; run the judge as root inside its container, "
            "or install bubblewrap"
        )
    blocked = unreachable((*python_folders(), *package_folders(), Path(sys.executable)))
    if blocked is not None:
        return (
            f"another user cannot run this Python: {blocked}; install Python and the virtual "
            "environment where every user can read them, or use bubblewrap"
        )
    return None


def unreachable(paths: Iterable[Path]) -> str | None:
    """The first folder above any of `paths`, links followed, that other users may not enter."""
    for path in paths:
        for spelled in dict.fromkeys((path, path.resolve())):
            for folder in reversed(spelled.parents):
                try:
                    mode = folder.stat().st_mode
                except OSError as error:
                    return f"{folder}: {error.strerror}"
                if not mode & stat.S_IXOTH:
                    return (
                        f"{path} lies in {folder}, which is closed to other users "
                        f"(mode {stat.S_IMODE(mode):04o})"
                    )
    return None
