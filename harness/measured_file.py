"""Files of long measurements: written after every part, read back to be added to."""

from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from harness.errors import Code, InputError
from harness.files import in_lines, write_whole
from harness.records import Record

AnyRecord = TypeVar("AnyRecord", bound=Record)


def write_down(file: Path, record: Record) -> None:
    """Whole, and for people: whoever ends a measurement keeps what it had."""
    write_whole(file, in_lines(record.model_dump(mode="json")) + "\n")


def read_back(file: Path, kind: type[AnyRecord], command: str) -> AnyRecord | None:
    """What a command wrote; None where there is no file.

    Raises InputError(BAD_ARGUMENT): it holds something else.
    """
    try:
        return kind.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError):
        raise InputError(
            Code.BAD_ARGUMENT, f"{file} is there, and is no file of `{command}`: name another"
        ) from None
