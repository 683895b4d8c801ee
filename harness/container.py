"""Inside the image: the entry of `docker run validator ...`, and what the container itself gives away.

A first argument that is no command but a file means `run`, and `-` reads the train file from standard
input. Everything else is the command line of `validator`. `docs/container.md` says how a container is
to be started; what a result has to warn of, because it was started otherwise, is found out here.
"""

import os
import stat
import sys
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from harness.errors import Code, InputError, SubmissionError

if TYPE_CHECKING:
    from typer.models import CommandInfo

    from harness.result import EvaluationResult

# The Dockerfile sets it.
MARK = "TRAINJUDGE_CONTAINER"
STDIN_NAME = "stdin.py"
WORK = Path("/work")

# Commands that run train files.
JUDGING = ("run", "calibrate")

IFF_UP, IFF_LOOPBACK = 0x1, 0x8  # of <net/if.h>
# Of <linux/capability.h>; docs/container.md gives the reason for each.
NEEDED = {"CHOWN": 0, "DAC_OVERRIDE": 1, "SETGID": 6, "SETUID": 7}
SYS_PTRACE, SYS_ADMIN = 19, 21


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


def inside() -> bool:
    """Whether this judge runs in a container of the image."""
    return bool(os.environ.get(MARK))


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
    from harness.submission import MAX_BYTES

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


# --- results in the caller's folder -----------------------------------------------------------------


def result_place(name: str, wanted: Path | None) -> Path | None:
    """As `report.result_file`; inside, None where nobody asked for a file and there is no place for one.

    Raises InputError(BAD_ARGUMENT) where the wanted file cannot be written.
    """
    from harness.report import result_file

    if not inside():
        return result_file(name, wanted)
    with _as_owner(Path.cwd() if wanted is None else wanted.absolute()):
        try:
            return result_file(name, wanted)
        except InputError:
            if wanted is not None:
                raise
            return None


def store_result(result: "EvaluationResult", path: Path) -> None:
    """As `report.store`; inside, the file becomes the folder's owner's, and not root's."""
    from harness.report import store

    if not inside():
        store(result, path)
        return
    with _as_owner(path.absolute()):
        store(result, path)


@contextmanager
def _as_owner(path: Path) -> Iterator[None]:
    """Act with the rights of whoever owns `path`, or the first folder above it that exists.

    A folder of the host's is written to as its owner would, who need not be root.
    """
    status = next(place.stat() for place in (path, *path.parents) if place.exists())
    if os.geteuid() != 0 or status.st_uid == 0:
        yield
        return
    group = os.getegid()
    try:
        os.setegid(status.st_gid)
        os.seteuid(status.st_uid)
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)


# --- what a result has to warn of -------------------------------------------------------------------


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


if __name__ == "__main__":
    main()
