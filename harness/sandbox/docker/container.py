"""Level `docker`: the judge on the host, the job in a hardened container of the project's image.

Like level `bubblewrap`, the container sees the job's paths where they are outside, and nothing else of
the machine; Python, torch and transformers are the image's. This module says what the container is;
`supervisor.py` starts it and leaves nothing of it. Everything that is not named here is the
engine's default, the seccomp profile above all.
"""

import os
import resource
import secrets
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from harness.sandbox.docker.engine import Image
from harness.sandbox.environment import (
    ENTER,
    GPU_VARIABLES,
    OPEN_FILES,
    PATH,
    SHUT_OUT_GROUP,
    SPARE_BYTES,
    clean_environment,
    enter_argv,
    kernel_tasks,
)
from harness.sandbox.gpus import gpu_ids
from harness.sandbox.job import Job
from harness.sandbox.judge_process import this_process

ENTER_INSIDE: Final = "/run/enter.py"
FOLDER: Final = "/tmp"
# docker-init, which reaps what the job's processes leave.
OWN_TASKS: Final = 1
MOST_SHARES: Final = 2**18  # the kernel's own limit
SANDBOX_LABEL: Final = "org.trainjudge.sandbox"
JUDGE_LABEL: Final = "org.trainjudge.judge"


@dataclass(frozen=True)
class Container:
    """A container to be made, in the words of the Docker SDK.

    Attributes:
        create: arguments of `APIClient.create_container`, without `host_config`.
        host: arguments of `APIClient.create_host_config`.
    """

    create: dict[str, Any]
    host: dict[str, Any]


@dataclass(frozen=True)
class DockerPlan:
    """What the judge orders of `supervisor.py`; sizes in bytes.

    Attributes:
        engine: address of the engine's socket.
        create, host: as in `Container`.
        memory_bytes, processes: the limits, for the words about them; the kernel enforces them.
        outbox: folder whose bytes are limited.
        writable: folders that were given to a user of the sandbox's own and are taken back at the end.
        log: descriptor of the log's memory file.
    """

    engine: str
    create: dict[str, Any]
    host: dict[str, Any]
    memory_bytes: int
    processes: int
    outbox: str | None
    outbox_bytes: int
    writable: list[str]
    log: int
    log_bytes: int


def container(job: Job, image: Image, user: int | None) -> Container:
    """What `job` runs in.

    Args:
        user: user and group id to run as; None: the judge's own, who is not root.
    """
    owner = (os.geteuid(), os.getegid()) if user is None else (user, user)
    if job.argv[0] == sys.executable:
        job = replace(job, argv=(image.python, *job.argv[1:]))
    enter = enter_argv(
        job,
        folder=FOLDER,
        user=None,
        isolated=True,
        # The kernel counts a user's processes on the whole machine.
        count_tasks=user is not None,
        program=ENTER_INSIDE,
        python=image.python,
    )
    create: dict[str, Any] = {
        "image": image.digest,
        "name": f"trainjudge-{os.getpid()}-{secrets.token_hex(4)}",
        "entrypoint": list(enter),
        "command": [],
        "user": f"{owner[0]}:{owner[1]}",
        "environment": environment(job, image),
        "working_dir": FOLDER,
        "hostname": "localhost",
        "labels": {SANDBOX_LABEL: "1", JUDGE_LABEL: this_process()},
        # The SDK would add the proxies of ~/.docker/config.json, with their passwords.
        "use_config_proxy": False,
    }
    return Container(create, _host(job, user))


def _host(job: Job, user: int | None) -> dict[str, Any]:
    limits = job.limits
    host: dict[str, Any] = {
        "network_mode": "none",
        "read_only": True,
        "cap_drop": ["ALL"],
        "group_add": [SHUT_OUT_GROUP],
        "security_opt": ["no-new-privileges"],
        "ipc_mode": "private",
        "cgroupns": "private",
        "init": True,
        # Programs are run from /tmp: torch.compile builds its kernels there.
        "tmpfs": {FOLDER: f"rw,exec,nosuid,nodev,mode=1777,size={limits.tmp_bytes}"},
        "shm_size": limits.tmp_bytes,
        "mem_limit": limits.memory_bytes,
        "memswap_limit": limits.memory_bytes,  # memory and swap together: no swap
        "pids_limit": kernel_tasks(limits.processes),
        "ulimits": [
            {"name": name, "soft": limit, "hard": limit}
            for name, limit in _resource_limits(job, user).items()
        ],
        "log_config": {
            "type": "json-file",
            "config": {"max-size": str(limits.log_bytes), "max-file": "1"},
        },
        "mounts": [
            *_mounts((job.code, *job.read_only), read_only=True),
            _mount(Path(ENTER), Path(ENTER_INSIDE), read_only=True),
            # The engine would show this machine's name servers.
            _mount(Path(os.devnull), Path("/etc/resolv.conf"), read_only=True),
            *_mounts(job.writable, read_only=False),
        ],
    }
    return host | _cores() | _gpus(job)


def _resource_limits(job: Job, user: int | None) -> dict[str, int]:
    """As `enter.py` lowers them; podman would set some higher than the machine may allow."""
    limits = job.limits
    tasks = kernel_tasks(limits.processes)
    if user is None:
        tasks = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    return {
        "core": 0,
        "nofile": OPEN_FILES,
        "fsize": max(limits.outbox_bytes, limits.tmp_bytes) + SPARE_BYTES,
        "nproc": tasks,
    }


def _cores() -> dict[str, Any]:
    """The judge's own cores; the same ones where it may not use all."""
    usable = sorted(os.sched_getaffinity(0))
    cores: dict[str, Any] = {
        "nano_cpus": len(usable) * 10**9,
        # A container weighs as much as one thread outside of it: here, as one for each of its cores.
        "cpu_shares": min(len(usable) * 1024, MOST_SHARES),
    }
    if len(usable) < (os.cpu_count() or 1):
        cores["cpuset_cpus"] = ",".join(map(str, usable))
    return cores


def _gpus(job: Job) -> dict[str, Any]:
    if not job.gpus:
        return {}
    request: dict[str, Any] = {"driver": "nvidia", "capabilities": [["gpu", "compute", "utility"]]}
    return {"device_requests": [request | {"device_ids": list(gpu_ids(job.gpus))}]}


def _mounts(paths: Iterable[Path], *, read_only: bool) -> list[dict[str, Any]]:
    return [_mount(path, path, read_only=read_only) for path in dict.fromkeys(paths)]


def _mount(source: Path, target: Path, *, read_only: bool) -> dict[str, Any]:
    """In the engine's own words. A missing source is an error, where `binds` would make a folder."""
    return {
        "Type": "bind",
        "Source": str(source),
        "Target": str(target),
        "ReadOnly": read_only,
        "BindOptions": {"Propagation": "rprivate"},
    }


def environment(job: Job, image: Image) -> dict[str, str | None]:
    """The clean environment with the image's Python in place of this machine's.

    The image's other variables stay beside it, but for those that tell the judge where its things are: None
    takes a variable away.
    """
    variables: dict[str, str | None] = dict.fromkeys(image.judges_variables)
    variables |= clean_environment(job, FOLDER)
    if job.gpus:
        # Paths of this machine, and numbers of GPUs that are counted anew inside.
        for name in GPU_VARIABLES:
            variables.pop(name, None)
    else:
        # NVIDIA's runtime, where it is the engine's default, would give all of them.
        variables["NVIDIA_VISIBLE_DEVICES"] = "void"
    variables |= {
        "PATH": os.pathsep.join(dict.fromkeys((str(Path(image.python).parent), *PATH.split(":")))),
        "PYTHONPATH": str(job.code),
    }
    return variables | dict(job.environment)
