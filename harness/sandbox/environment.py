"""What every command gets: a clean environment, resource limits, and the folders of this Python."""

import json
import os
import site
import sys
from collections.abc import Mapping
from pathlib import Path

from harness.paths import ENTER_PROGRAM
from harness.sandbox.fabric import INTERFACE
from harness.sandbox.gpus import gpu_ids
from harness.sandbox.job import Job

PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
OPEN_FILES = 8192
# The kernel's own limits lie a little above the supervisor's, so that a program that runs into one is
# seen to be over it and ended with the reason, instead of going on with failing system calls.
SPARE_BYTES = 2**20
ENTER = str(ENTER_PROGRAM)
# Every sandbox's user is in this group, which no account has (user.py says which ids are free). In the
# image the project's folder is closed to it, and open to all others: mode 0705. A process without rights
# can leave no group, and in a user namespace of its own neither (`setgroups` in user_namespaces(7)).
SHUT_OUT_GROUP = 61100
# The judge's own values of these go in with the GPUs; none of them is a secret.
GPU_VARIABLES = ("CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH", "CUDA_HOME")


def kernel_tasks(processes: int) -> int:
    """The kernel's own limit of processes and threads: half above the supervisor's.

    A program that starts hundreds between two looks is still below it, and is told which limit it passed.
    """
    return processes + max(16, processes // 2)


def clean_environment(job: Job, temporary: str) -> dict[str, str]:
    """Built from nothing, so that no token or path of the judge's can leak.

    Args:
        job: its `environment` is added last and wins.
        temporary: the private folder for temporary files; also HOME.
    """
    interface = "lo" if job.fabric is None else INTERFACE
    outside = [path for path in package_folders() if not _inside(path, python_folders())]
    environment = {
        "PATH": os.pathsep.join(dict.fromkeys((str(Path(sys.prefix) / "bin"), *PATH.split(":")))),
        "HOME": temporary,
        "TMPDIR": temporary,
        "USER": "sandbox",
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        "PYTHONPATH": os.pathsep.join((str(job.code), *map(str, outside))),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONSAFEPATH": "1",
        "PYTHONNOUSERSITE": "1",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "false",
        # Gloo and NCCL look the host's name up unless they are told where to listen.
        "GLOO_SOCKET_IFNAME": interface,
        "NCCL_SOCKET_IFNAME": interface,
    }
    if job.gpus:
        for name in GPU_VARIABLES:
            if name in os.environ:
                environment[name] = os.environ[name]
        if environment.get("CUDA_VISIBLE_DEVICES"):
            # Where only those that count exist, numbers would be counted anew.
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpu_ids(job.gpus))
    else:
        environment["CUDA_VISIBLE_DEVICES"] = ""
    return environment | dict(job.environment)


def python_folders() -> tuple[Path, ...]:
    """The installation and the virtual environment of the running interpreter."""
    folders = (Path(sys.prefix), Path(sys.base_prefix), Path(sys.exec_prefix))
    real = tuple(folder.resolve() for folder in folders)
    found = dict.fromkeys((*folders, *real))
    return tuple(folder for folder in found if folder != Path("/"))


def package_folders() -> tuple[Path, ...]:
    """Where installed packages may be found: all site folders on the judge's own path."""
    named = [Path(entry) for entry in sys.path if entry]
    folders = [path for path in named if path.name in ("site-packages", "dist-packages")]
    if site.ENABLE_USER_SITE:
        folders.append(Path(site.getusersitepackages()))
    return tuple(dict.fromkeys(path for path in folders if path.is_dir()))


def interpreter_links() -> tuple[Path, ...]:
    """Every hop from `sys.executable` to the real file: each has to exist inside."""
    hops: list[Path] = []
    path = Path(sys.executable)
    while path.is_symlink() and len(hops) < 40:
        hops.append(path)
        # Only the last part is followed here; links among the parents are the folders' affair.
        path = Path(os.path.normpath(path.parent / path.readlink()))
    return (*hops, path)


def _inside(path: Path, folders: tuple[Path, ...]) -> bool:
    return any(path.is_relative_to(folder) for folder in (*folders, Path("/usr")))


def enter_argv(
    job: Job,
    *,
    folder: str,
    user: int | None,
    isolated: bool,
    count_tasks: bool,
    program: str = ENTER,
    python: str = sys.executable,
) -> tuple[str, ...]:
    """The command that drops all privileges (`enter.py`) and becomes `job.argv`.

    Args:
        folder: working directory.
        user: user and group id to become; None: stay.
        isolated: no new privileges, and the system call filter.
        count_tasks: let the kernel limit processes too. Only where the user id is the sandbox's own:
            it counts whatever else the user runs.
        program: where `enter.py` lies as the command sees it.
        python: the interpreter that runs it, as the command sees it.
    """
    limits = job.limits
    rlimits = {
        "RLIMIT_CORE": 0,
        "RLIMIT_NOFILE": OPEN_FILES,
        "RLIMIT_FSIZE": max(limits.outbox_bytes, limits.tmp_bytes) + SPARE_BYTES,
        "RLIMIT_RTPRIO": 0,
        "RLIMIT_MSGQUEUE": 0,
    }
    if count_tasks:
        rlimits["RLIMIT_NPROC"] = kernel_tasks(limits.processes)
    settings: Mapping[str, object] = {
        "argv": job.argv,
        "folder": folder,
        "user": user,
        "groups": [SHUT_OUT_GROUP],
        "isolated": isolated,
        "rlimits": rlimits,
    }
    return (python, "-I", "-S", program, json.dumps(settings))
