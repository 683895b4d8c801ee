"""Our side: bytes in, what a child says of them out."""

import atexit
import json
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Final

from harness.errors import Code, JudgeError
from harness.parsing import fork_server
from harness.standalone import standalone_argv

#: How a child ends that its source, or its limits, were too much for.
BROKE_DOWN: Final = (signal.SIGXCPU, signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS)
#: No child has so much to say.
ANSWER_BYTES: Final = 16 * 2**20
#: Beyond the child's own time.
PATIENCE_SECONDS: Final = 10.0


@dataclass(frozen=True)
class Broken:
    """The child broke down over what it was given; `how` names the signal or the exception."""

    how: str


def ask(module: str, function: str, given: bytes) -> dict[str, object] | Broken:
    """What a function of ours says of untrusted bytes, from a child that `child` has put under limits.

    Args:
        module: with the standard library as its only need.
        function: of that module, without arguments; begins with `child.begin`, ends with `child.answer`.
        given: what it reads.

    Raises JudgeError(INTERNAL): the machine could not run the child, or our function failed.
    """
    try:
        ended = _server.run(f"{module} {function}", given)
    except (OSError, EOFError) as error:
        raise JudgeError(
            Code.INTERNAL,
            "could not run the process that looks at sources; is the machine overloaded?",
            str(error),
        ) from None
    if -ended.status in BROKE_DOWN:
        return Broken(signal.Signals(-ended.status).name)
    if b"MemoryError" in ended.said:
        return Broken("MemoryError")
    if ended.status != 0:
        raise JudgeError(
            Code.INTERNAL,
            f"the process that looks at sources ended with status {ended.status}",
            ended.said.decode(errors="replace")[-2_000:],
        )
    answer = json.loads(ended.answer)
    assert isinstance(answer, dict)
    return answer


@dataclass(frozen=True)
class _Ended:
    """How a child ended: its status, minus the signal; what it wrote to stdout and to stderr."""

    status: int
    answer: bytes
    said: bytes


class _Server:
    """The fork server, started when it is first asked for. Safe to share between threads."""

    def __init__(self) -> None:
        self._starting = threading.Lock()
        self._started: tuple[subprocess.Popen[bytes], socket.socket] | None = None

    def run(self, request: str, given: bytes) -> _Ended:
        """Raises OSError or EOFError, also where a server that was gone could not be replaced."""
        requests = self._requests()
        try:
            return _run(requests, request, given)
        except (BrokenPipeError, ConnectionResetError, EOFError):
            # Somebody has killed it. What we ask for changes nothing, so it can be asked for again.
            self.end(requests)
            return _run(self._requests(), request, given)

    def _requests(self) -> socket.socket:
        with self._starting:
            if self._started is None:
                ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                with theirs:
                    process = subprocess.Popen(
                        standalone_argv(fork_server.__name__, "serve"),
                        stdin=theirs.fileno(),
                        stdout=subprocess.DEVNULL,
                        stderr=subprocess.DEVNULL,
                    )
                self._started = process, ours
            return self._started[1]

    def end(self, which: socket.socket | None = None) -> None:
        """End it, if it is that one still; whoever asks next starts another."""
        with self._starting:
            if self._started is None or which not in (None, self._started[1]):
                return
            process, ours = self._started
            self._started = None
            ours.close()
            process.kill()
            process.wait()


def _run(requests: socket.socket, request: str, given: bytes) -> _Ended:
    with ExitStack() as held:
        stdin, stdout, stderr = (held.enter_context(_memory()) for _ in range(3))
        os.pwrite(stdin, given, 0)
        report, status = os.pipe()
        with os.fdopen(report, "rb") as reading:
            try:
                socket.send_fds(requests, [request.encode()], [stdin, stdout, stderr, status])
            finally:
                os.close(status)
            said = reading.read()
        if not said:
            raise EOFError("the fork server is gone")
        return _Ended(
            int(said), os.pread(stdout, ANSWER_BYTES, 0), os.pread(stderr, ANSWER_BYTES, 0)
        )


@contextmanager
def _memory() -> Iterator[int]:
    """The descriptor of a file in memory: nobody has to read while another writes."""
    descriptor = os.memfd_create("trainjudge")
    try:
        yield descriptor
    finally:
        os.close(descriptor)


_server = _Server()


@atexit.register
def end_server() -> None:
    """End the fork server; whoever asks next starts another."""
    _server.end()
