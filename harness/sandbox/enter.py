"""The last trusted step: run inside the sandbox, gives up every privilege and becomes the command.

Started as `python -I -S <this file> <settings as JSON>` at every level, so it imports nothing of
the project. As root it changes to the sandbox's user for good: a real user id, which the kernel
checks everywhere, and not merely another name inside a user namespace.
"""

import contextlib
import ctypes
import json
import os
import platform
import resource
import signal
import struct
import sys

PR_SET_PDEATHSIG, PR_CAPBSET_DROP, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 1, 24, 22, 38
PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
SECCOMP_MODE_FILTER = 2
RET_ALLOW, RET_ERRNO = 0x7FFF0000, 0x00050000
EPERM, ENOSYS = 1, 38
CLONE_NEWUSER = 0x10000000

# Refused: what makes namespaces (in a new one a program could mount a tmpfs of any size), memory that
# belongs to no process (System V IPC, keys), large kernel interfaces that training never uses, and the
# kernel's log.
REFUSED = {
    "x86_64": {
        "audit": 0xC000003E,
        "clone": 56,
        "clone3": 435,
        "refused": {
            "shmget": 29, "semget": 64, "msgget": 68, "unshare": 272, "setns": 308,
            "add_key": 248, "request_key": 249, "keyctl": 250, "bpf": 321, "perf_event_open": 298,
            "userfaultfd": 323, "open_by_handle_at": 304, "io_uring_setup": 425,
            "io_uring_enter": 426, "io_uring_register": 427, "syslog": 103,
        },
    },
    "aarch64": {
        "audit": 0xC00000B7,
        "clone": 220,
        "clone3": 435,
        "refused": {
            "shmget": 194, "semget": 190, "msgget": 186, "unshare": 97, "setns": 268,
            "add_key": 217, "request_key": 218, "keyctl": 219, "bpf": 280, "perf_event_open": 241,
            "userfaultfd": 282, "open_by_handle_at": 265, "io_uring_setup": 425,
            "io_uring_enter": 426, "io_uring_register": 427, "syslog": 116,
        },
    },
}  # fmt: skip


def main() -> None:
    settings = json.loads(sys.argv[1])
    os.umask(0o022)
    os.dup2(1, 2)  # one stream, in the order of writing: a container has two
    with contextlib.suppress(PermissionError):  # bubblewrap has made a session already
        os.setsid()  # no terminal: nothing can be typed into the judge's
    make_first_victim()
    for name, limit in settings["rlimits"].items():
        lower_limit(name, limit)
    libc = ctypes.CDLL(None, use_errno=True)
    user = settings["user"]
    if user is not None:
        drop_capabilities(libc)
        os.setgroups(settings["groups"])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
        clear_capabilities(libc)
    if settings["isolated"]:
        prctl(libc, PR_SET_NO_NEW_PRIVS, 1)
        refuse_system_calls(libc)
    # A change of user clears it, so it comes last. It ends the command if the supervisor is killed.
    prctl(libc, PR_SET_PDEATHSIG, signal.SIGKILL)
    os.chdir(settings["folder"])
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores these two; the command decides
        signal.signal(number, signal.SIG_DFL)
    os.execv(settings["argv"][0], settings["argv"])


def make_first_victim() -> None:
    """If the machine runs out of memory, let the kernel end the sandbox and not the judge."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as score:
        score.write("1000")


def lower_limit(name: str, limit: int) -> None:
    """Set a resource limit, or keep the one in force where that is lower."""
    number = getattr(resource, name)
    _, hard = resource.getrlimit(number)
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(number, (limit, limit))


def prctl(libc: ctypes.CDLL, option: int, *arguments: int) -> None:
    padded = [ctypes.c_ulong(value) for value in (*arguments, *[0] * (4 - len(arguments)))]
    if libc.prctl(option, *padded) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}): {os.strerror(number)}")


def drop_capabilities(libc: ctypes.CDLL) -> None:
    """Empty the ambient and the bounding set, which takes a capability itself."""
    with open("/proc/sys/kernel/cap_last_cap") as last:
        highest = int(last.read())
    prctl(libc, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    for capability in range(highest + 1):
        # A container may have taken away the right to do even this; no_new_privs still holds.
        with contextlib.suppress(PermissionError):
            prctl(libc, PR_CAPBSET_DROP, capability)


def clear_capabilities(libc: ctypes.CDLL) -> None:
    """The inheritable set outlives a change of user: empty it, and with it all others."""
    version_3 = 0x20080522
    header = ctypes.create_string_buffer(struct.pack("=Ii", version_3, 0))
    nothing = ctypes.create_string_buffer(24)  # effective, permitted, inheritable: 2 x 32 bits each
    if libc.capset(header, nothing) != 0:
        raise OSError(ctypes.get_errno(), "capset")


def refuse_system_calls(libc: ctypes.CDLL) -> None:
    """Install a seccomp filter with REFUSED; an unknown machine gets none."""
    table = REFUSED.get(platform.machine())
    if table is None:
        return
    program = bpf_program(table)
    buffer = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog { unsigned short len; struct sock_filter *filter; }
    header = ctypes.create_string_buffer(
        struct.pack("@HP", len(program) // 8, ctypes.addressof(buffer))
    )
    prctl(libc, PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(header))


def bpf_program(table: dict) -> bytes:  # type: ignore[type-arg]
    """Classic BPF over `struct seccomp_data`: number at 0, architecture at 4, arguments from 16."""
    load, jump_equal, jump_above, jump_set, back = 0x20, 0x15, 0x25, 0x45, 0x06
    number_limit = 0x3FFFFFFF  # x32 system calls of an x86_64 kernel have bit 30 set
    program = [
        (load, 0, 0, 4),
        (jump_equal, 1, 0, table["audit"]),
        (back, 0, 0, RET_ERRNO | EPERM),
        (load, 0, 0, 0),
        (jump_above, 0, 1, number_limit),
        (back, 0, 0, RET_ERRNO | ENOSYS),
        # clone3 hides its flags behind a pointer; with ENOSYS the C library uses clone.
        (jump_equal, 0, 1, table["clone3"]),
        (back, 0, 0, RET_ERRNO | ENOSYS),
    ]
    for number in table["refused"].values():
        program += [(jump_equal, 0, 1, number), (back, 0, 0, RET_ERRNO | EPERM)]
    program += [
        (jump_equal, 0, 3, table["clone"]),
        (load, 0, 0, 16),
        (jump_set, 0, 1, CLONE_NEWUSER),
        (back, 0, 0, RET_ERRNO | EPERM),
        (back, 0, 0, RET_ALLOW),
    ]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


if __name__ == "__main__":
    main()
