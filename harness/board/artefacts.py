"""Kept evaluations on a worker's disk: one folder each, the oldest go when there is too much of them."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from harness.errors import Code, InputError
from harness.paths import data_folder


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
        """Where to keep an evaluation; what an earlier start of it left is gone. None: not kept."""
        if self.limit_bytes <= 0:
            return None
        self.folder.mkdir(parents=True, exist_ok=True)
        place = self.folder / str(evaluation)
        shutil.rmtree(place, ignore_errors=True)
        return place

    def prune(self) -> list[int]:
        """Remove the oldest until the rest fits; gives their numbers.

        A single one that is larger than all that may be kept goes too.
        """
        kept = {number: _size(place) for number, place in self._places().items()}
        removed = []
        for number in sorted(kept):
            if sum(kept.values()) <= self.limit_bytes:
                break
            shutil.rmtree(self.folder / str(number), ignore_errors=True)
            del kept[number]
            removed.append(number)
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


def _size(folder: Path) -> int:
    """Bytes on disk of a tree; links are not followed."""
    return sum(path.lstat().st_blocks * 512 for path in (folder, *folder.rglob("*")))
