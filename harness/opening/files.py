"""How many files a rank may open its state in: each takes a descriptor and a mapping of the judge's.

What the machine allows is shared out before the start, so that whoever writes more than that is to blame.
"""

import resource
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from harness.errors import Code, InputError
from harness.protocol.opening import MAX_FILE_BYTES

#: However much the machine allows.
MAX_FILES: Final = 1024
#: Of the judge itself: sockets, the snapshot's files, the reference's, libraries.
SPARE: Final = 512
MAX_MAP_COUNT: Final = Path("/proc/sys/vm/max_map_count")


def files_allowed(world_size: int, runs: int) -> int:
    """Files of one rank and run that can be mapped while all others' are; raises the soft limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    limits = [hard] if hard != resource.RLIM_INFINITY else []
    if MAX_MAP_COUNT.exists():
        limits.append(int(MAX_MAP_COUNT.read_text(encoding="ascii")))
    shares = [(limit - SPARE) // (world_size * runs) for limit in limits]
    return max(0, min([MAX_FILES, *shares]))


def check_files(
    shapes: Mapping[str, Sequence[int]], state_bytes: int, world_size: int, runs: int
) -> None:
    """Whether an honest rank's files fit. Raises InputError(BAD_ARGUMENT): `ulimit -n` is too low.

    A file holds one box of a name, so a state in per-expert names has two files for each expert: a fused
    tensor of two matrices (gate and up) has a box for each of them.

    Args:
        shapes: of all tensors, by name.
        state_bytes: of a whole state.
        world_size, runs: of the evaluation.
    """
    boxes = max((2 * shape[0] for shape in shapes.values() if len(shape) == 3), default=1)
    needed = boxes + -(-state_bytes // MAX_FILE_BYTES) + 1
    allowed = files_allowed(world_size, runs)
    if allowed < needed:
        raise InputError(
            Code.BAD_ARGUMENT,
            f"this machine lets the judge map {allowed} files of each rank and run, and {needed} can be "
            f"needed: allow {SPARE + needed * world_size * runs} open files (`ulimit -n`, and "
            "vm.max_map_count as many)",
        )
