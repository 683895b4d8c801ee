"""What was found out of this machine once, in a JSON file of the data folder, by name.

Whoever cannot keep it, as a container that is thrown away, finds it out again.
"""

from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, TypeVar

from pydantic import TypeAdapter, ValidationError

from harness.files import make_private_folder, write_whole
from harness.paths import data_folder

Value = TypeVar("Value")


@dataclass(frozen=True)
class Remembered(Generic[Value]):
    """Attributes:
    file: its name in the data folder.
    kind: of what is in it.
    """

    file: str
    kind: TypeAdapter[dict[str, Value]]

    def read(self) -> dict[str, Value]:
        """Nothing where there is no such file, or none that we understand."""
        with suppress(OSError, ValidationError):
            return self.kind.validate_json((data_folder() / self.file).read_bytes())
        return {}

    def write(self, known: dict[str, Value]) -> None:
        """In place of what was there; nothing happens where it cannot be written."""
        with suppress(OSError):
            make_private_folder(data_folder())
            write_whole(data_folder() / self.file, self.kind.dump_json(known, indent=1).decode())
