"""`validator run` on a node of the tests, under what may happen to a machine; started as a script.

    judging.py FOLDER FILE OPTIONS...

While FOLDER has a file `busy-HOST`, the host of this node is slow: `NEIGHBOURS` processes share a core with
the ranks for as long as they are timed. A file `halts-HOST` names a phase, in which the judge halts, and
names its processes in `halted-HOST`; in the phase `written` its result is written down, and not reported.
"""

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from harness.board.child import end_with_parent
from harness.cli import main
from harness.fleet.node import this_seat
from harness.phases import PhaseName, Phases

NEIGHBOURS = 10
BUSY = "import os; os.sched_setaffinity(0, [{core}])\nwhile True: pass"
WRITTEN = "written"
#: Whoever halts is killed before, or the test has failed.
HALT_SECONDS = 300.0


class Judge:
    """What is done beside `validator run`, as it goes from phase to phase."""

    def __init__(self, folder: Path) -> None:
        host = this_seat().offer.host
        self.busy, self.halts, self.halted = (
            folder / f"{what}-{host}" for what in ("busy", "halts", "halted")
        )
        self.neighbours: list[subprocess.Popen[bytes]] = []

    def enters(self, phase: str) -> None:
        """A phase begins."""
        for neighbour in self.neighbours:
            neighbour.kill()
            neighbour.wait()
        self.neighbours = []
        if phase == PhaseName.TIMED and self.busy.exists():
            self.neighbours = crowded()
        self.halt(phase)

    def halt(self, phase: str) -> None:
        if self.halts.exists() and self.halts.read_text() == phase:
            new = self.halted.with_suffix(".new")
            new.write_text(" ".join(map(str, (os.getpid(), *ranks()))))
            new.rename(self.halted)
            time.sleep(HALT_SECONDS)


def crowded() -> list["subprocess.Popen[bytes]"]:
    """All ranks on one core, and others who have something to do on it, too."""
    core = min(os.sched_getaffinity(0))
    for rank in ranks():
        with suppress(OSError):  # it, or one of its threads, has just ended
            for thread in Path(f"/proc/{rank}/task").iterdir():
                os.sched_setaffinity(int(thread.name), {core})
    return [
        subprocess.Popen(
            [sys.executable, "-S", "-c", BUSY.format(core=core)],
            start_new_session=True,  # where the kernel shares a core among sessions, each has its part
            preexec_fn=end_with_parent(os.getpid()),
        )
        for _ in range(NEIGHBOURS)
    ]  # fmt: skip


def ranks() -> list[int]:
    """Processes of the sandbox: all below this one."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                state = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(entry.name)] = int(state[1])
    found, new = set[int](), {os.getpid()}
    while new:
        new = {process for process, parent in parents.items() if parent in new}
        found |= new
    return sorted(found)


if __name__ == "__main__":
    judge = Judge(Path(sys.argv.pop(1)))
    enter = Phases.enter

    def entering(self: Phases, name: PhaseName, detail: str = "") -> None:
        enter(self, name, detail)
        judge.enters(name)

    Phases.enter = entering  # type: ignore[method-assign]
    sys.argv.insert(1, "run")
    try:
        main()
    except SystemExit as ended:
        if ended.code in (0, 1):
            judge.enters(WRITTEN)
        raise
