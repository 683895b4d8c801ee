"""What the attempts share: the decoys that they aim at, the account that they keep, a few tools."""

import ctypes
import errno
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

MIB = 2**20
REPORT = "escape-report "  # begins each line of the report
FINISHED = "escape-finished"
LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Target:
    """A process outside: its id there, and when it started, by which it is told from another's."""

    pid: int
    start: int


@dataclass(frozen=True)
class Briefing:
    """What the judge has set up. What is empty or None is not there, and nobody tries it.

    Attributes:
        marker: is in the name of every file that is made.
        root: work folder of this evaluation (`harness.timed.workspace`).
        model: model folder of the snapshot.
        corpus: the packed tokens.
        hellos: frames that open this evaluation's sockets, one per rank.
        neighbour: work folder of another evaluation that runs at the same time.
        neighbours: its processes.
        judge: a process of the judge's user, with a secret of `secret_bytes` at `address`.
        addresses: where somebody outside listens on TCP; `abstract` and `service`: on a Unix socket.
        everybodys: a folder that every user may write to.
        setuid: a copy of id(1) that is setuid root.
        tasks, memory_bytes, folder_bytes: how much to take; several times what is allowed.
    """

    marker: str
    root: str
    model: str = ""
    corpus: str = ""
    hellos: tuple[str, ...] = ()
    neighbour: str = ""
    neighbours: tuple[Target, ...] = ()
    judge: Target | None = None
    address: int = 0
    secret_bytes: int = 0
    addresses: tuple[tuple[str, int], ...] = ()
    abstract: str = ""
    service: str = ""
    everybodys: str = ""
    setuid: str = ""
    tasks: int = 0
    memory_bytes: int = 0
    folder_bytes: int = 0

    @classmethod
    def from_json(cls, text: str) -> "Briefing":
        fields = json.loads(text)
        fields["neighbours"] = tuple(Target(**each) for each in fields["neighbours"])
        fields["judge"] = Target(**fields["judge"]) if fields["judge"] else None
        return cls(**fields)

    @property
    def outbox(self) -> str:
        return f"{self.root}/outbox"

    @property
    def targets(self) -> tuple[Target, ...]:
        """All decoy processes."""
        return (*([self.judge] if self.judge else []), *self.neighbours)


@dataclass
class Tries:
    """What came of the ways of one attempt.

    Attributes:
        through, refused: ways, each with what happened.
        evidence: what was read; the judge knows what of it is a secret.
        broke: the exception that broke the attempt off, which is no refusal.
    """

    through: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    evidence: list[str] = field(default_factory=list)
    broke: str = ""

    def way(self, name: str, action: Callable[..., object], *arguments: object) -> None:
        """Try one way; an OSError is a refusal, and anything that was returned is evidence."""
        try:
            found = action(*arguments)
        except OSError as error:
            self.refused.append(f"{name}: {error.strerror or error}")
            return
        self.through.append(name)
        if isinstance(found, bytes):
            self.evidence.append(found.decode("latin-1"))
        elif isinstance(found, str):
            self.evidence.append(found)

    def look(self, name: str, action: Callable[..., bytes], *arguments: object) -> None:
        """Try one way of which only the judge can see whether it led out of the sandbox."""
        try:
            self.evidence.append(action(*arguments).decode("latin-1"))
            self.refused.append(f"{name}: only what is its own")
        except OSError as error:
            self.refused.append(f"{name}: {error.strerror or error}")


def read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read(4096)


def listing(path: str) -> str:
    return " ".join(os.listdir(path))


def process(target: Target, name: str) -> str:
    """Path of an entry below /proc. Raises ProcessLookupError as `recognise` does."""
    recognise(target)
    return f"/proc/{target.pid}/{name}"


def list_process(target: Target, name: str) -> str:
    return listing(process(target, name))


def read_process(target: Target, name: str) -> bytes:
    return read(process(target, name))


def recognise(target: Target) -> None:
    """Raises ProcessLookupError where the id is another process's, as in a PID namespace it is."""
    try:
        start = int(read(f"/proc/{target.pid}/stat").rsplit(b")", 1)[1].split()[19])
    except (FileNotFoundError, ProcessLookupError):
        # It may only be hidden: a signal finds out.
        os.kill(target.pid, 0)
        return
    if start != target.start:
        raise ProcessLookupError(errno.ESRCH, "it does not exist in here")


def call(name: str, *arguments: object) -> int:
    """A function of the C library. Raises OSError."""
    padded = [ctypes.c_ulong(each) if isinstance(each, int) else each for each in arguments]
    if (result := getattr(LIBC, name)(*padded)) == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return int(result)


def in_child(action: Callable[..., object], *arguments: object) -> None:
    """Do it in a child, whose end undoes it. Raises the child's OSError."""
    child = os.fork()
    if child == 0:
        try:
            action(*arguments)
            os._exit(0)
        except OSError as error:
            os._exit(error.errno or errno.EIO)
        finally:
            os._exit(255)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status != 0:
        raise OSError(status, os.strerror(status) if status > 0 else f"ended by signal {-status}")


Attempt = Callable[[Briefing, Tries], None]


def make(name: str, attempt: Attempt, stage: Briefing) -> str:
    """Make one attempt and return its line of the report."""
    tries = Tries()
    try:
        attempt(stage, tries)
    except Exception as error:
        tries.broke = repr(error)
    return REPORT + json.dumps({"attempt": name, **asdict(tries)})
