"""A sandbox that starts in no time and protects from nothing, for whole evaluations of known files.

A rank takes seconds to import torch and transformers. Here one process imports them, once for all
tests, and is forked for every rank that a job asks for. The ranks, the judge's end of the sockets, the
reference and the verification are the real ones. What is missing is what a sandbox and torchrun do:
isolation, limits, an end of all ranks when one of them dies. Files that are about these are judged in a
real sandbox (`test_evaluation.py`).

Run as a program, this file is the process that is forked.
"""

import gc
import importlib
import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, NoReturn, Self

from harness.protocol.text import printable
from harness.sandbox import Ending, EndReason, Job, Level, Running, Sandbox
from harness.sandbox.environment import clean_environment
from tests.project import ROOT

IMPORTED: Final = (
    "env.worker",
    "harness.reference.loop",
    # The models of these tests; transformers imports a model's code when one is built.
    "transformers.models.qwen3_moe.modeling_qwen3_moe",
)
ORDER_BYTES: Final = 1 << 16


class ForkedRanks(Sandbox):
    """Starts jobs by forking. Leaving the `with` block ends the process that is forked."""

    def __init__(self) -> None:
        super().__init__(Level.NONE)
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env={
                    **os.environ,
                    "PYTHONPATH": str(ROOT),
                    "HF_HUB_OFFLINE": "1",  # read when it is imported
                    "OMP_NUM_THREADS": "1",  # a pool of threads does not survive a fork
                },
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._control.close()
        self._process.kill()
        self._process.wait()

    def start(self, job: Job) -> Running:
        """Fork the ranks that `job.argv` would start."""
        *launcher, module = job.argv[: _module_index(job.argv) + 1]
        worlds = [word.partition("=")[2] for word in launcher if "--nproc-per-node=" in word]
        scratch = tempfile.TemporaryDirectory(prefix="forked-")
        order = {
            "module": module,
            "arguments": job.argv[len(launcher) + 1 :],
            "world": int(worlds[0]) if worlds else 1,
            "environment": clean_environment(job, scratch.name),
        }
        alive, held = os.pipe()
        log = os.memfd_create("log")
        try:
            socket.send_fds(self._control, [json.dumps(order).encode()], [held, log])
            answer = self._control.recv(ORDER_BYTES)
        finally:
            os.close(held)
        assert answer, "the process that is forked has died: its standard error says why"
        return ForkedRun(int(answer), alive, log, scratch)


class ForkedRun(Running):
    """Ranks that were forked.

    Args:
        leader: process group of the ranks.
        alive: the end of a pipe that is readable once the last of them has died.
        log: file that they print to.
    """

    def __init__(
        self, leader: int, alive: int, log: int, scratch: "tempfile.TemporaryDirectory[str]"
    ) -> None:
        self.user = os.geteuid()
        self._leader, self._alive, self._printed, self._scratch = leader, alive, log, scratch
        self._end: Ending | None = None
        self._text: str | None = None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        self._text = self.log()
        os.close(self._alive)
        os.close(self._printed)
        self._scratch.cleanup()

    def fileno(self) -> int:
        return self._alive

    def ended(self) -> Ending | None:
        if self._end is None and self._over(0.0):
            self._end = Ending(EndReason.EXITED, 0, "ended")
        return self._end

    def stop(self) -> Ending:
        if (ended := self.ended()) is not None:
            return ended
        while not self._over(0.05):  # a leader that has just been forked may not lead a group yet
            with suppress(ProcessLookupError):
                os.killpg(self._leader, signal.SIGKILL)
        self._end = Ending(EndReason.STOPPED, None, "stopped by the judge")
        return self._end

    def log(self) -> str:
        if self._text is not None:
            return self._text
        return printable(os.pread(self._printed, 1 << 20, 0))

    def _over(self, seconds: float) -> bool:
        poll = select.poll()
        poll.register(self._alive, select.POLLIN | select.POLLHUP)
        return bool(poll.poll(seconds * 1000))


def _module_index(argv: tuple[str, ...]) -> int:
    """Where the module to run stands: after the last -m, which is torchrun's own where there are two."""
    return len(argv) - argv[::-1].index("-m")


# --- the process that is forked -------------------------------------------------------------------


def serve(control: socket.socket) -> None:
    """Import what every rank needs, then fork for every order until the tests are over."""
    for name in IMPORTED:
        importlib.import_module(name)
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks for a leader's exit status
    while True:
        data, descriptors, _, _ = socket.recv_fds(control, ORDER_BYTES, 2)
        if not data:
            return
        leader = os.fork()
        if leader == 0:
            control.close()
            lead(json.loads(data), *descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        control.send(str(leader).encode())


def lead(order: dict[str, Any], alive: int, log: int) -> NoReturn:
    """Fork the ranks; `alive` closes with the last of them."""
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.dup2(log, 1)
    os.dup2(log, 2)
    port = free_port()
    for rank in range(order["world"]):
        if os.fork() == 0:
            become(order, rank, port)
    with suppress(ChildProcessError):
        while True:
            os.wait()
    os._exit(0)


def become(order: dict[str, Any], rank: int, port: int) -> NoReturn:
    """Run the module as `python -m` would; train files know it as `__main__`."""
    ranks = {
        "RANK": rank,
        "LOCAL_RANK": rank,
        **dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), order["world"]),
        "MASTER_PORT": port,
    }
    os.environ.clear()
    os.environ |= {**order["environment"], "MASTER_ADDR": "127.0.0.1"}
    os.environ |= {name: str(value) for name, value in ranks.items()}
    sys.argv = [order["module"], *order["arguments"]]
    module: Any = sys.modules[order["module"]]
    sys.modules["__main__"] = module
    try:
        module.main()
    except BaseException:
        traceback.print_exc()
    os._exit(1)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
