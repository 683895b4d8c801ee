"""What other programs did with the cores while a sandbox ran: whose fault is it if that took too long?

Only what surely is somebody else's counts, since who is to blame for the load must not get an evaluation
for free by it: programs that ran before the sandbox and run after it, are not below the judge, and do
nothing on behalf of a sandbox, as the kernel's threads and a container engine do. At a level that reaches
the machine's services, a submission could make those work: there nobody is excused.
"""

import os
import time
from dataclasses import dataclass
from typing import Final, Self

from harness.sandbox.process_tree import below, every_process

#: Above this share of all cores a result says that it was disturbed, ...
NOTED_SHARE: Final = 0.05
#: ... and above that one, what took too long is not held against a submission.
EXCUSED_SHARE: Final = 0.25
#: By the first 15 characters of their names, as the kernel keeps them.
ENGINES: Final = ("dockerd", "containerd", "runc", "podman", "conmon", "crun", "docker-proxy")
KERNEL_THREADS: Final = 2

#: Process id, and when it began in ticks: an id is used again.
_Key = tuple[int, int]


@dataclass(frozen=True)
class Reading:
    """At one moment: seconds of wall time, and CPU seconds of every program that is not ours."""

    at: float
    seconds: dict[_Key, float]

    @classmethod
    def now(cls) -> Self:
        processes = list(every_process())
        ours = {os.getpid(), *(process.pid for process in below(os.getpid(), processes))}
        second = os.sysconf("SC_CLK_TCK")
        return cls(
            time.monotonic(),
            {
                (process.pid, process.start): process.ticks / second
                for process in processes
                if process.pid not in ours
                and KERNEL_THREADS not in (process.pid, process.parent)
                and not process.name.startswith(ENGINES)
            },
        )


def others_share(before: Reading, after: Reading) -> float:
    """Of all that the machine's cores could have done between two readings, what others did: 0 to 1."""
    both = before.seconds.keys() & after.seconds.keys()
    worked = sum(after.seconds[key] - before.seconds[key] for key in both)
    possible = (after.at - before.at) * (os.cpu_count() or 1)
    return min(1.0, worked / possible) if possible > 0 else 0.0
