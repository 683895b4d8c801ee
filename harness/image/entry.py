"""Inside the image: the entry of `docker run validator ...`.

A first argument that is no command but a file means `run`, and `-` reads the train file from standard
input. Everything else is the command line of `validator`. `docs/container.md` says how a container is
to be started, `harness.sandbox.judge_container` finds out whether it was.
"""

import os
import sys
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from harness.errors import Code, InputError, SubmissionError
from harness.sandbox.judge_container import check_rights, effective_capabilities

if TYPE_CHECKING:
    from typer.models import CommandInfo

STDIN_NAME = "stdin.py"

# Commands that run train files.
JUDGING = ("run", "compare", "calibrate", "power", "worker")


def main() -> None:
    """ENTRYPOINT of the image; exit statuses as of `validator`."""
    from harness import cli

    with cli.exit_statuses():
        commands = {_name(command) for command in cli.app.registered_commands}
        arguments = expand(sys.argv[1:], commands)
        with _staged(arguments) as staged:
            if staged[0] in JUDGING and not any(each.startswith("--sandbox") for each in staged):
                check_rights(os.geteuid(), effective_capabilities(Path("/proc/self/status")))
            sys.argv[1:] = staged
            cli.app(prog_name="validator", standalone_mode=True)


def _name(command: "CommandInfo") -> str:
    if command.name is not None:
        return command.name
    return "" if command.callback is None else command.callback.__name__.replace("_", "-")


def expand(arguments: Sequence[str], commands: Collection[str]) -> list[str]:
    """What stands behind the image's name, as a command line of `validator` with these commands."""
    if not arguments:
        return ["--help"]
    first, *rest = arguments
    if first == "-":
        return ["run", first, *rest]
    if first in commands or first.startswith("-"):
        return [first, *rest]
    if first.endswith(".py") or Path(first).exists():
        return ["run", first, *rest]
    return [first, *rest]  # no command: `validator` says so, and which there are


@contextmanager
def _staged(arguments: list[str]) -> Iterator[list[str]]:
    """The arguments with standard input as a file, where `run` is to read it."""
    if arguments[0] not in JUDGING:
        yield arguments
        return
    temporary = _temporary_folder()
    # The `-` of `--json -` is that option's value.
    found = [
        index
        for index, (before, argument) in enumerate(pairwise(arguments), start=1)
        if argument == "-" and before != "--json"
    ]
    if not found:
        yield arguments
        return
    with tempfile.TemporaryDirectory(prefix="trainjudge-stdin-", dir=temporary) as folder:
        path = Path(folder, STDIN_NAME)
        path.write_bytes(read_submission(sys.stdin.buffer))
        yield [*arguments[: found[0]], str(path), *arguments[found[0] + 1 :]]


def read_submission(stdin: BinaryIO) -> bytes:
    """A train file from standard input, at most 1 MiB of it.

    Raises:
        SubmissionError: FILE_TOO_LARGE.
        InputError: FILE_UNREADABLE where there is nothing.
    """
    from harness.submission.read import MAX_BYTES

    source = stdin.read(MAX_BYTES + 1)
    if len(source) > MAX_BYTES:
        raise SubmissionError(
            Code.FILE_TOO_LARGE, f"standard input is larger than the {MAX_BYTES:,} bytes allowed"
        )
    if not source:
        raise InputError(
            Code.FILE_UNREADABLE, "standard input is empty: is the `-i` of `docker run -i` missing?"
        )
    return source


def _temporary_folder() -> str:
    """/tmp or $TMPDIR; never, as Python would, the current folder, which may be the caller's own.

    Raises InputError(BAD_ARGUMENT) where nothing can be written there.
    """
    folder = os.environ.get("TMPDIR") or "/tmp"
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(
            Code.BAD_ARGUMENT,
            f"nothing can be written to {folder} ({error.strerror}): a read-only container needs "
            "`--tmpfs /tmp`",
        ) from None
    tempfile.tempdir = folder
    return folder


if __name__ == "__main__":
    main()
