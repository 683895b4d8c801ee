"""Kept evaluations on a worker's disk: one folder each, the oldest go when there is too much of them.

Submissions have written into them: no path is followed that one of them could have made too long or closed.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from harness.errors import Code, InputError
from harness.files import make_private_folder
from harness.paths import data_folder
from harness.sandbox.removal import remove_tree
from harness.sandbox.watch import TooManyEntriesError, folder_bytes


def kept_folder(data: Path | None = None) -> Path:
    """Where a board's worker keeps evaluations, below its data folder."""
    return data_folder(data) / "kept"


@dataclass(frozen=True)
class Artefacts:
    """A folder of kept evaluations; it belongs to one machine.

    Attributes:
        folder: made when something is kept.
        limit_bytes: of all together; 0 keeps nothing.
    """

    folder: Path
    limit_bytes: int

    def place(self, evaluation: int) -> Path | None:
        """Where to keep an evaluation; what an earlier start of it left is gone.

        None: not kept, also where something is there that cannot be removed. Raises OSError.
        """
        if self.limit_bytes <= 0:
            return None
        make_private_folder(self.folder)
        place = self.folder / str(evaluation)
        remove_tree(place)
        return None if os.path.lexists(place) else place

    def remove(self, evaluation: int) -> None:
        """Keep it no more."""
        remove_tree(self.folder / str(evaluation))

    def prune(self) -> list[int]:
        """Remove the oldest until the rest fits; gives their numbers.

        A single one that is larger than all that may be kept goes too, and one that cannot be measured: it
        may be of any size. Raises OSError.
        """
        sizes = {number: _size(place) for number, place in self._places().items()}
        kept = {number: size for number, size in sizes.items() if size is not None}
        for number in sorted(kept):
            if sum(kept.values()) <= self.limit_bytes:
                break
            del kept[number]
        removed = sorted(sizes.keys() - kept.keys())
        for number in removed:
            self.remove(number)
        return removed

    def find(self, evaluation: int) -> Path:
        """The folder of an evaluation. Raises InputError(UNKNOWN_ID): it was not kept, or not here."""
        place = self._places().get(evaluation)
        if place is None:
            raise InputError(
                Code.UNKNOWN_ID,
                f"evaluation {evaluation} is not kept in {self.folder}: it was judged without --keep, "
                "on another machine, or so long ago that it had to go",
            )
        return place

    def _places(self) -> dict[int, Path]:
        if not self.folder.is_dir():
            return {}
        return {
            int(place.name): place
            for place in self.folder.iterdir()
            if place.name.isdecimal() and place.is_dir() and not place.is_symlink()
        }


def _size(folder: Path) -> int | None:
    """Bytes of a tree; None where it is too deep, has too many entries, or is closed to us."""
    try:
        return folder_bytes(str(folder))
    except (TooManyEntriesError, OSError):
        return None
