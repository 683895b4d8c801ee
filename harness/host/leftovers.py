"""What judges left behind, most of it because they were killed: containers, folders. `validator clean`."""

import os
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.errors import InputError
from harness.sandbox.docker.leftovers import remove_containers
from harness.sandbox.own_group import left_groups
from harness.sandbox.removal import remove_tree
from harness.sandbox.scratch import left_scratch
from harness.timed.workspace import left_folders

#: Folders for compiled code, one for each user: parts of torch make it when they are imported.
TORCH_CACHES: Final = "torchinductor_*"


@dataclass(frozen=True)
class Cleaned:
    """What was done.

    Attributes:
        removed: names of containers and paths of folders.
        kept: sentences about what could not be removed.
        no_engine: why no container was looked for; empty where they were.
    """

    removed: tuple[str, ...]
    kept: tuple[str, ...]
    no_engine: str


def clean_up(every: bool = False) -> Cleaned:
    """Remove what nobody will come for.

    Args:
        every: also containers of judges that live, or that cannot be seen from here.
    """
    removed: list[str] = []
    kept: list[str] = []
    no_engine = ""
    try:
        removed, kept = remove_containers(every)
    except InputError as error:
        no_engine = error.message
    # After the containers, which may still write into them.
    for folder in (*left_folders(), *left_scratch()):
        remove_tree(folder)
        (kept if folder.exists() else removed).append(str(folder))
    for folder in left_groups():
        with suppress(OSError):
            folder.rmdir()
        (kept if folder.exists() else removed).append(str(folder))
    removed += _without_what_is_empty()
    return Cleaned(tuple(removed), tuple(kept), no_engine)


def _without_what_is_empty() -> list[str]:
    """Caches that a judge's torch has made and never filled; one that is in use is somebody's."""
    removed = []
    for folder in sorted(Path(tempfile.gettempdir()).glob(TORCH_CACHES)):
        with suppress(OSError):
            if folder.lstat().st_uid == os.geteuid():
                folder.rmdir()
                removed.append(str(folder))
    return removed
