"""A small interpreter that forks a child for every source: a fork takes a millisecond, a start fifty.

It never sees a source: what a child reads and writes are files in memory that come with the request, and a
child can change nothing of the server. Standard library only.
"""

import os
import selectors
import signal
import socket
import sys
import traceback
from importlib import import_module

#: What comes with a request: files for stdin, stdout and stderr, and a pipe for the status.
DESCRIPTORS = 4
REQUEST_BYTES = 1_000
#: Wall time of a child. CPU time is limited by the child itself; only a machine in trouble gets here.
CHILD_SECONDS = 120


def serve() -> None:
    """Serve requests that come over stdin, a socket of packets, until nobody can send one any more.

    A request is a module and a function of it, separated by a space. Its status is that of `os.wait`,
    as text, on the pipe.
    """
    with socket.socket(fileno=os.dup(0)) as requests, selectors.DefaultSelector() as ready:
        woken, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        ready.register(requests, selectors.EVENT_READ)
        ready.register(woken, selectors.EVENT_READ)
        children: dict[int, int] = {}
        while True:
            for key, _ in ready.select():
                if key.fd == woken:
                    os.read(woken, 4_096)
                    _reap(children)
                elif not _take(requests, children):
                    return


def _take(requests: socket.socket, children: dict[int, int]) -> bool:
    """Start the child of the next request; False where there will be none."""
    request, files, _, _ = socket.recv_fds(requests, REQUEST_BYTES, DESCRIPTORS)
    if not request:
        return False
    *streams, status = files
    module, _, function = request.decode().partition(" ")
    import_module(module)  # here, so that the next child has it
    child = os.fork()
    if child == 0:
        _be_child(module, function, streams)
    for stream in streams:
        os.close(stream)
    children[child] = status
    return True


def _be_child(module: str, function: str, streams: list[int]) -> None:
    status = 1
    try:
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        # Among them the pipes of its siblings: whoever holds one keeps its reader waiting.
        os.closerange(len(streams), os.sysconf("SC_OPEN_MAX"))
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.alarm(CHILD_SECONDS)
        getattr(import_module(module), function)()
        sys.stdout.flush()
        status = 0
    except BaseException:  # there is nobody above us: the server's loop is not ours
        os.write(2, traceback.format_exc().encode(errors="replace"))
    finally:
        os._exit(status)


def _reap(children: dict[int, int]) -> None:
    while children:
        child, status = os.waitpid(-1, os.WNOHANG)
        if child == 0:
            return
        report = children.pop(child)
        os.write(report, str(os.waitstatus_to_exitcode(status)).encode())
        os.close(report)
