"""What children do in tests. Standard library only, as theirs has to be."""

import os
import resource
import signal
import time
from pathlib import Path

from harness.parsing import child


def echo() -> None:
    child.answer({"given": child.begin().decode()})


def facts() -> None:
    """What a child holds and is: open descriptors, its server, its limits."""
    child.begin()
    child.answer(
        {
            "descriptors": len(list(Path("/proc/self/fd").iterdir())) - 1,  # one is of the listing
            "server": os.getppid(),
            "core": resource.getrlimit(resource.RLIMIT_CORE)[0],
            "cpu": resource.getrlimit(resource.RLIMIT_CPU)[0],
            "memory": resource.getrlimit(resource.RLIMIT_AS)[0],
        }
    )


def slow_echo() -> None:
    given = child.begin().decode()
    time.sleep(1)
    child.answer({"given": given})


def fail() -> None:
    raise ValueError("a mistake of ours")


def be_killed() -> None:
    os.kill(os.getpid(), int(child.begin()))


def need_memory() -> None:
    child.begin()
    bytearray(child.ADDRESS_SPACE_BYTES)


def kill_the_server_once() -> None:
    """The second time, the marker is there."""
    marker = Path(child.begin().decode())
    if not marker.exists():
        marker.touch()
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(30)
    child.answer({"alive": True})


def always_kill_the_server() -> None:
    os.kill(os.getppid(), signal.SIGKILL)
