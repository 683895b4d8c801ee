"""Level `bubblewrap`: namespaces of its own and a file system that holds only what the job names.

The root is an empty tmpfs; the system's programs and libraries, the running Python and the job's paths
are bound into it, each at the path that it has outside. What is not bound does not exist: no home
folder, no repository, no work folder of another evaluation. As bubblewrap makes the folders above
a bound path itself, a Python below a home folder of mode 0700 works.

As root no user namespace is made: `enter.py` changes to a real user id inside. An ordinary user
gets a user namespace, in which no further ones can be made.
"""

import functools
import os
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from harness.paths import HARNESS
from harness.sandbox.environment import (
    ENTER,
    enter_argv,
    interpreter_links,
    package_folders,
    python_folders,
)
from harness.sandbox.gpus import device_files
from harness.sandbox.job import Job
from harness.sandbox.user import Command

INSTALL = "install it with `apt-get install bubblewrap` (or your system's package manager)"
ENTER_INSIDE = "/run/enter.py"
# bwrap itself and the first process of its namespace.
OWN_TASKS = 2
SYSTEM_FOLDERS = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
BOUND_IF_THERE = (
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/alternatives",
    "/etc/localtime",
    "/nix/store",
    # Numbers of cores and their caches, for the thread pools of torch's libraries.
    "/sys/devices/system/cpu",
    "/sys/devices/system/node",
)
# For CUDA and NCCL to find the devices and how they are connected.
GPU_FOLDERS = ("/sys/devices", "/sys/bus/pci", "/sys/class/pci_bus", "/sys/class/infiniband")
SANDBOX_USER = 65534  # as it is called inside the user namespace of an ordinary user's sandbox


def command(job: Job, user: int | None) -> Command:
    """The bwrap command for `job`.

    Args:
        user: real user id to become when the judge is root; None: in a user namespace.

    Returns:
        The command, and the descriptors of its arguments and synthesised files: neither other
        users nor the sandbox can read them from the command line.
    """
    bwrap = shutil.which("bwrap")
    assert bwrap is not None, "probe() before start()"
    inside = SANDBOX_USER if user is None else user
    descriptors: list[int] = []
    arguments = [
        *_namespaces(user, shares_network=job.fabric is not None),
        *_system(job, inside, descriptors),
        *_python(),
        *_without_the_judge(),
        *_job_paths(job),
        *(*_parents(Path(ENTER_INSIDE)), "--ro-bind", ENTER, ENTER_INSIDE),
        # Every mount is in place: nothing can be made in the root or in /dev any more.
        *("--remount-ro", "/dev", "--remount-ro", "/"),
    ]
    descriptors.append(_memory_file("\0".join(arguments) + "\0"))
    enter = enter_argv(
        job, folder="/tmp", user=user, isolated=True, count_tasks=True, program=ENTER_INSIDE
    )
    return Command((bwrap, "--args", str(descriptors[-1]), "--", *enter), tuple(descriptors))


def _namespaces(user: int | None, *, shares_network: bool) -> list[str]:
    """With `shares_network` the supervisor has made the network's, and is in it itself."""
    arguments = [
        "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try",
        "--die-with-parent", "--new-session", "--hostname", "localhost", "--cap-drop", "ALL",
    ]  # fmt: skip
    if not shares_network:
        arguments.append("--unshare-net")
    if user is None:
        arguments += ["--unshare-user", "--uid", str(SANDBOX_USER), "--gid", str(SANDBOX_USER)]
        if "--disable-userns" in _help():
            arguments.append("--disable-userns")
    else:
        # Only for enter.py, which gives them up.
        for capability in ("CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP"):
            arguments += ["--cap-add", capability]
    return arguments


def _system(job: Job, user: int, descriptors: list[int]) -> list[str]:
    size = str(job.limits.tmp_bytes)
    arguments = ["--proc", "/proc", "--dev", "/dev"]
    for folder in ("/tmp", "/dev/shm"):
        arguments += ["--perms", "1777", "--size", size, "--tmpfs", folder]
    arguments += ["--ro-bind", "/usr", "/usr"]
    for name in SYSTEM_FOLDERS:
        path = Path(name)
        if path.is_symlink():
            arguments += ["--symlink", str(path.readlink()), name]
        elif path.is_dir():
            arguments += ["--ro-bind", name, name]
    wanted = (*BOUND_IF_THERE, *(GPU_FOLDERS if job.gpus else ()))
    arguments += _bind("--ro-bind", [Path(name) for name in wanted if Path(name).exists()])
    if job.gpus:
        for device in device_files(job.gpus):
            arguments += ["--dev-bind", str(device), str(device)]
    for name, text in _synthesised(user).items():
        descriptors.append(_memory_file(text))
        arguments += [
            *_parents(Path(name)),
            "--perms",
            "0644",
            "--file",
            str(descriptors[-1]),
            name,
        ]
    return arguments


def _synthesised(user: int) -> dict[str, str]:
    """The few files of /etc that programs ask for, without this machine's accounts and names."""
    return {
        "/etc/passwd": f"root:x:0:0::/:/bin/false\nsandbox:x:{user}:{user}::/tmp:/bin/false\n",
        "/etc/group": f"root:x:0:\nsandbox:x:{user}:\n",
        "/etc/hosts": "127.0.0.1 localhost\n::1 localhost\n",
        "/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
    }


def _python() -> list[str]:
    """The running interpreter with all that it is linked to, and its packages."""
    folders = python_folders()
    elsewhere = [
        path
        for path in (*package_folders(), *interpreter_links())
        if not any(path.is_relative_to(folder) for folder in folders)
    ]
    return _bind("--ro-bind", (*folders, *elsewhere))


def _without_the_judge() -> list[str]:
    """Where the judge is installed among the packages, an empty folder in place of it and its corpus."""
    shown = (Path("/usr"), *python_folders(), *package_folders())
    if not any(HARNESS.is_relative_to(folder) for folder in shown):
        return []
    return ["--perms", "0711", "--tmpfs", str(HARNESS), "--remount-ro", str(HARNESS)]


def _job_paths(job: Job) -> list[str]:
    read_only = _bind("--ro-bind", (job.code, *job.read_only))
    return read_only + _bind("--bind", job.writable)


def _bind(option: str, paths: Iterable[Path]) -> list[str]:
    arguments: list[str] = []
    # A folder comes before what lies in it, or it would hide it.
    for path in sorted(dict.fromkeys(paths), key=lambda path: len(path.parts)):
        if path.is_relative_to("/usr") and option == "--ro-bind":
            continue  # it is there already
        arguments += [*_parents(path), option, str(path), str(path)]
    return arguments


def _parents(path: Path) -> list[str]:
    """Make the folders above `path`. Left to itself, bwrap would make them for root alone."""
    arguments: list[str] = []
    for parent in reversed(path.parents[:-1]):
        arguments += ["--perms", "0755", "--dir", str(parent)]
    return arguments


def _memory_file(text: str) -> int:
    descriptor = os.memfd_create("trainjudge-bwrap")
    os.write(descriptor, text.encode())
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


@functools.cache
def _help() -> str:
    return subprocess.run(["bwrap", "--help"], capture_output=True, text=True, check=False).stdout


def unavailable() -> str | None:
    """Why bubblewrap cannot work here, or None. Whether it does is tried by `probe`."""
    if shutil.which("bwrap") is None:
        return f"bwrap is not installed; {INSTALL}"
    if "--size" not in _help():
        return f"this bwrap is older than 0.5 (no --size for a tmpfs); {INSTALL}"
    return None
