"""The program that looks round in a sandbox: `python -m program FACTS WHAT`.

Runs inside, where nothing of the project is, and writes what it finds to the file FACTS, as JSON. WHAT is
JSON too, with the keys of `Wanted`. What was refused is told by the name of its error.
"""

# Raw paths and descriptors are the point here.
# ruff: noqa: PTH101, PTH103, PTH107, PTH113, PTH115, PTH123, PTH208, PTH211

import ctypes
import errno
import json
import mmap
import multiprocessing
import os
import platform
import resource
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Any, TypedDict


class Wanted(TypedDict):
    """paths: to look at; places: folders in which a file, a folder and a link of this name are left."""

    paths: list[str]
    places: list[str]
    name: str


# With arguments that each call refuses for another reason than EPERM, where it may be made at all:
# nothing is made by any of them. The numbers are those of Linux's own tables.
NOTHING = (-1, 0, 0, 0, 0)
CALLS: dict[str, dict[str, tuple[int, ...]]] = {
    "x86_64": {
        "shmget": (29, *NOTHING), "semget": (64, *NOTHING), "msgget": (68, *NOTHING),
        "unshare": (272, -1), "setns": (308, *NOTHING), "add_key": (248, *NOTHING),
        "request_key": (249, *NOTHING), "keyctl": (250, *NOTHING), "bpf": (321, *NOTHING),
        "perf_event_open": (298, *NOTHING), "userfaultfd": (323, *NOTHING),
        "open_by_handle_at": (304, *NOTHING), "io_uring_setup": (425, *NOTHING),
        "io_uring_enter": (426, *NOTHING), "io_uring_register": (427, *NOTHING),
        "syslog": (103, *NOTHING), "clone": (56, 0x10000000 | 0x200), "clone3": (435, 0, 0),
    },
    "aarch64": {
        "shmget": (194, *NOTHING), "semget": (190, *NOTHING), "msgget": (186, *NOTHING),
        "unshare": (97, -1), "setns": (268, *NOTHING), "add_key": (217, *NOTHING),
        "request_key": (218, *NOTHING), "keyctl": (219, *NOTHING), "bpf": (280, *NOTHING),
        "perf_event_open": (241, *NOTHING), "userfaultfd": (282, *NOTHING),
        "open_by_handle_at": (265, *NOTHING), "io_uring_setup": (425, *NOTHING),
        "io_uring_enter": (426, *NOTHING), "io_uring_register": (427, *NOTHING),
        "syslog": (116, *NOTHING), "clone": (220, 0x10000000 | 0x200), "clone3": (435, 0, 0),
    },
}  # fmt: skip
# mov eax, 20 (getpid of i386); int 0x80; ret
CALL_OF_I386 = b"\xb8\x14\x00\x00\x00\xcd\x80\xc3"


def outcome(action: Callable[..., object], *arguments: object) -> str:
    try:
        action(*arguments)
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    return "done"


def touch(path: str) -> None:
    """Make a file and remove it: at a level that does not protect, it works."""
    with open(path, "x"):
        pass
    os.remove(path)


def text(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""


def system_calls() -> dict[str, str]:
    libc = ctypes.CDLL(None, use_errno=True)
    found = {}
    for name, arguments in CALLS.get(platform.machine(), {}).items():
        result = libc.syscall(*(ctypes.c_long(each) for each in arguments))
        found[name] = "done" if result >= 0 else errno.errorcode[ctypes.get_errno()]
    return found


def call_of_i386() -> str:
    """What comes of a system call of the 32-bit architecture; in a child, as it may end by a signal."""
    if platform.machine() != "x86_64":
        return "no such call"
    child = os.fork()
    if child == 0:
        code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        code.write(CALL_OF_I386)
        address = ctypes.addressof(ctypes.c_char.from_buffer(code))
        os._exit(0 if ctypes.CFUNCTYPE(ctypes.c_int)(address)() == os.getpid() else 1)
    return {0: "done", 1: "refused"}.get(
        os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), "ended"
    )


def run_program(folder: str) -> str:
    """Write a program into `folder` and run it, as torch.compile does."""
    path = f"{folder}/program"
    with open(path, "w") as file:
        file.write("#!/bin/sh\necho it runs\n")
    os.chmod(path, 0o755)
    return subprocess.run([path], capture_output=True, text=True, check=False).stdout


def size_of(folder: str) -> int:
    """Of the file system that `folder` is on."""
    status = os.statvfs(folder)
    return status.f_blocks * status.f_frsize


def leave(place: str, name: str) -> None:
    """A folder with a link out of it, and a file."""
    try:
        os.makedirs(f"{place}/{name}/sub")
        os.symlink("/usr", f"{place}/{name}/link")
        with open(f"{place}/{name}-file", "w"):
            pass
    except OSError:
        return


def facts(wanted: Wanted) -> dict[str, Any]:
    temporary = os.environ["TMPDIR"]
    status = dict(line.split(":", 1) for line in text("/proc/self/status").splitlines())
    with socket.create_server(("127.0.0.1", 0)) as server:
        loopback = outcome(socket.create_connection, server.getsockname())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        # Sends nothing: the kernel is only asked for a way to nobody's address (RFC 5737).
        beyond = outcome(datagrams.connect, ("192.0.2.1", 9))
    return {
        "environment": dict(os.environ),
        "status": {
            name: status[name].split()
            for name in (
                "Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb",
                "NoNewPrivs", "Seccomp",
            )
        },
        "system_calls": system_calls(),
        "call_of_i386": call_of_i386(),
        "resource_limits": {
            name: resource.getrlimit(number)
            for name, number in (
                ("core", resource.RLIMIT_CORE), ("open files", resource.RLIMIT_NOFILE),
                ("queues", resource.RLIMIT_MSGQUEUE), ("real time", resource.RLIMIT_RTPRIO),
                ("a file", resource.RLIMIT_FSIZE),
            )
        },
        "oom_score": int(text("/proc/self/oom_score_adj")),
        "session": os.getsid(0),
        "terminal": outcome(os.open, "/dev/tty", os.O_RDWR),
        "cores": sorted(os.sched_getaffinity(0)),
        "paths": {path: outcome(os.stat, path) for path in wanted["paths"]},
        "texts": {path: text(path) for path in wanted["paths"] if os.path.isfile(path)},
        "accounts": [line.split(":")[0] for line in text("/etc/passwd").splitlines()],
        "writes": {path: outcome(touch, f"{path}/probe") for path in ("/", "/usr", "/etc", "/dev")},
        "resolver": text("/etc/resolv.conf"),
        "interfaces": [name for _, name in socket.if_nameindex()],
        "loopback": loopback,
        "beyond": beyond,
        "namespaces": {
            name: os.readlink(f"/proc/self/ns/{name}") for name in os.listdir("/proc/self/ns")
        },
        "processes": [int(name) for name in os.listdir("/proc") if name.isdecimal()],
        "host_name": socket.gethostname(),
        "sizes": {folder: size_of(folder) for folder in ("/tmp", "/dev/shm")},
        "temporary_program": run_program(temporary),
        "lock": outcome(multiprocessing.Lock),
    }  # fmt: skip


def main() -> None:
    # First of all, before anything here opens a file: what was inherited, and the listing itself.
    descriptors = sorted(map(int, os.listdir("/proc/self/fd")))
    standard_input = os.read(0, 100)
    wanted: Wanted = json.loads(sys.argv[2])
    found = facts(wanted) | {
        "descriptors": descriptors,
        "standard_input": standard_input.decode("latin-1"),
    }
    for place in (*wanted["places"], os.environ["TMPDIR"]):
        leave(place, wanted["name"])
    with open(sys.argv[1], "w") as file:
        json.dump(found, file)
    os.write(1, b"\x1b[2Jcleared \x07 \xff \xe2\x80\xae evil\r\n")
    os.write(2, b"on the other stream\n")
    sys.exit(7)


if __name__ == "__main__":
    main()
