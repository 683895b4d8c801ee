"""Folders of the machine that everybody may write to: a sandbox that sees them may have left something."""

import os
import stat
from collections.abc import Iterator
from typing import Final

#: Folders in each other that are looked into. Deeper ones are somebody's own business.
DEPTH: Final = 4
#: The kernel's own: nothing stays there.
PASSED_OVER: Final = frozenset({"/proc", "/sys"})


def folders_for_all(top: str = "/") -> Iterator[str]:
    """Their paths. No link is followed, and what others may not enter, or may fill, is not looked into."""
    pending = [(top, 0)]
    while pending:
        folder, depth = pending.pop()
        for path, mode in _folders(folder):
            if path in PASSED_OVER or not mode & stat.S_IXOTH:
                continue
            if mode & stat.S_IWOTH:
                yield path
            elif depth + 1 < DEPTH:
                pending.append((path, depth + 1))


def _folders(folder: str) -> list[tuple[str, int]]:
    """Paths and modes of those in it; none where it has gone or is closed to us."""
    found = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    found.append((entry.path, entry.stat(follow_symlinks=False).st_mode))
    except OSError:
        return []
    return found
