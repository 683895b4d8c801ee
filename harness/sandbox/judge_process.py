"""Whose a container or a folder is: names the judge's process so that nobody can take another for it."""

import os

from harness.sandbox.process_tree import read_process


def this_process() -> str:
    """Names this process for good: its PID namespace, its id, and when it was started."""
    process = read_process(os.getpid())
    assert process is not None
    return f"{os.readlink('/proc/self/ns/pid')} {process.pid} {process.start}"


def judge_lives(name: str) -> bool | None:
    """Whether the judge that `this_process` named is still there; None: it cannot be seen from here."""
    try:
        namespace, pid, start = name.split(" ")
        process = read_process(int(pid))
    except ValueError:
        return None
    # Another namespace has other ids; and where process 1 is hidden, so are other users' judges.
    if namespace != os.readlink("/proc/self/ns/pid") or read_process(1) is None:
        return None
    return process is not None and str(process.start) == start and process.state not in "ZX"
