"""The container that the judge itself runs in: whether it has one, and what that gives away.

`docs/container.md` says how a container of the image is to be started. What the judge needs of it is
checked before a train file is run; what a result has to warn of, because it was started otherwise, is
found out here.
"""

import os
import stat
from pathlib import Path

from harness.errors import Code, InputError

# The Dockerfile sets it.
MARK = "TRAINJUDGE_CONTAINER"
WORK = Path("/work")

IFF_UP, IFF_LOOPBACK = 0x1, 0x8  # of <net/if.h>
# Of <linux/capability.h>; docs/container.md gives the reason for each.
NEEDED = {"CHOWN": 0, "DAC_OVERRIDE": 1, "SETGID": 6, "SETUID": 7}
SYS_PTRACE, SYS_ADMIN = 19, 21


def inside() -> bool:
    """Whether this judge runs in a container of the image."""
    return bool(os.environ.get(MARK))


def check_rights(user: int, capabilities: int) -> None:
    """That the judge can start the train file as another user, and read what that user wrote.

    Without them no level of isolation works inside a container, and `auto` must not take none.

    Args:
        user: effective user id.
        capabilities: effective ones, a bit set.

    Raises InputError(SANDBOX_UNAVAILABLE).
    """
    if user != 0:
        raise InputError(
            Code.SANDBOX_UNAVAILABLE,
            "inside its container the judge has to be root, to start the train file as another "
            "user: leave out --user",
        )
    missing = [name for name, bit in NEEDED.items() if not capabilities >> bit & 1]
    if missing:
        options = " ".join(f"--cap-add {name}" for name in missing)
        raise InputError(
            Code.SANDBOX_UNAVAILABLE,
            f"the container lacks what isolating the train file needs: start it with {options}",
        )


def exposure() -> list[str]:
    """How this container is weaker than it has to be, a sentence each. Empty outside of one."""
    if not inside():
        return []
    found = []
    if interfaces := outward_interfaces(Path("/sys/class/net")):
        found.append(
            f"the container has a network ({', '.join(interfaces)}) and the train file could use it: "
            "start it with --network none"
        )
    capabilities = effective_capabilities(Path("/proc/self/status"))
    if not capabilities >> SYS_PTRACE & 1:
        found.append(
            "the judge cannot see which memory the train file's processes share (CAP_SYS_PTRACE): it "
            "counts that once for each, and memory files not at all; start it with --cap-add SYS_PTRACE"
        )
    if capabilities >> SYS_ADMIN & 1:
        found.append(
            "the container is privileged (CAP_SYS_ADMIN): a hole in the judge would be one in the "
            "host; start it without --privileged"
        )
    if _writable_by_all(WORK):
        found.append(
            f"{WORK} is writable for everybody, so for the train file too: close the folder "
            "(chmod o-w), or give the file on standard input"
        )
    return found


def outward_interfaces(folder: Path) -> list[str]:
    """Network interfaces that are up and not the loopback; `folder` is /sys/class/net.

    Down ones do not count: some kernels put tunnel devices into every new network namespace.
    """
    found = []
    for interface in sorted(folder.glob("*/flags")):
        flags = int(interface.read_text(), 16)
        if flags & IFF_UP and not flags & IFF_LOOPBACK:
            found.append(interface.parent.name)
    return found


def effective_capabilities(status: Path) -> int:
    """The bit set CapEff of a /proc/PID/status."""
    for line in status.read_text().splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0


def _writable_by_all(folder: Path) -> bool:
    try:
        return bool(folder.stat().st_mode & stat.S_IWOTH)
    except OSError:
        return False
