"""Removing what a sandbox left behind, however it was made to resist."""

import contextlib
import os
from pathlib import Path

# Longer than any name that the judge gives, so that no folder of `root` is in the way.
_MOVED = "moved-up-by-the-judge-"


def remove_tree(root: Path) -> None:
    """Remove a folder that a submission has written to; call it when nothing of the sandbox runs.

    A program can nest folders deeper than Python recurses (`shutil.rmtree`) or a path is long, and
    take all permissions from those of its own user. So every folder below is first moved up into
    `root`. No link is followed. What cannot be removed stays.
    """
    try:
        top = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return
    moved = 0
    try:
        waiting = _empty(top)
        while waiting:
            name = waiting.pop()
            with contextlib.suppress(OSError):
                os.chmod(name, 0o700, dir_fd=top)
                folder = os.open(
                    name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=top
                )
                try:
                    for below in _empty(folder):
                        with contextlib.suppress(OSError):
                            # Another parent means another "..": that takes the right to write.
                            os.chmod(below, 0o700, dir_fd=folder)
                            moved += 1
                            upper = f"{_MOVED}{moved}"
                            os.rename(below, upper, src_dir_fd=folder, dst_dir_fd=top)
                            waiting.append(upper)
                finally:
                    os.close(folder)
                os.rmdir(name, dir_fd=top)
    finally:
        os.close(top)
    with contextlib.suppress(OSError):
        root.rmdir()


def _empty(folder: int) -> list[str]:
    """Remove everything but folders, and name those."""
    folders = []
    with os.scandir(folder) as entries:
        for entry in list(entries):
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.name)
                continue
            with contextlib.suppress(OSError):
                os.unlink(entry.name, dir_fd=folder)
    return folders
