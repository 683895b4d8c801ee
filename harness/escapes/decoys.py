"""Decoys for the escape probe: somebody who listens, a process of the judge's user, a second evaluation.

Their secrets are random and known to nobody but the judge, so that a secret in a program's report proves
that it was read.
"""

import contextlib
import os
import secrets
import selectors
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from harness.benchmark.rules import Limits
from harness.errors import Code, JudgeError, TrainjudgeError
from harness.escapes.inside.stage import Target
from harness.files import write_readable
from harness.protocol.messages import PROTOCOL_VERSION, Bye, Hello, Stage
from harness.sandbox import Job, Running, Sandbox, code_folder
from harness.sandbox.process_tree import read_process
from harness.timed.session import Session
from harness.timed.workspace import Workspace

MIB = 2**20
# What stands in the judge's memory is not in its arguments or environment.
JUDGE = (
    "import ctypes, sys; kept = ctypes.create_string_buffer(sys.stdin.readline().strip().encode()); "
    "print(ctypes.addressof(kept), flush=True); sys.stdin.read()"
)
SLEEPER = "import time; print('asleep'); time.sleep(600)"
START_SECONDS = 20.0
WORLD = 2
# Small, so that the machine does not notice; the attempts aim at four times as much.
LIMITS = Limits(
    memory_bytes=128 * MIB,
    processes=64,
    outbox_bytes=16 * MIB,
    tmp_bytes=16 * MIB,
    log_bytes=MIB,
)


def target(pid: int) -> Target:
    """Raises LookupError when there is no such process."""
    found = read_process(pid)
    if found is None:
        raise LookupError(f"process {pid} has gone")
    return Target(pid, found.start)


def processes_with(marker: str) -> list[int]:
    """Ids of all living processes that name `marker` in their arguments or environment."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                text = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
                if marker.encode() in text:
                    found.append(int(entry.name))
    return found


class Listeners:
    """Somebody outside who listens, and notes who came: TCP on this machine's addresses, two sockets."""

    def __init__(self, service: Path, word: str) -> None:
        self.heard: set[str] = set()
        self.addresses: list[tuple[str, int]] = []
        self.abstract = f"trainjudge-{word}"
        self.service = service
        self._word = word
        self._selector = selectors.DefaultSelector()
        self._closing = threading.Event()
        for host in ("127.0.0.1", *_own_address()):
            listener = socket.create_server((host, 0))
            self.addresses.append((host, listener.getsockname()[1]))
            self._add(listener, "outside")
        for address, attempt in ((f"\0{self.abstract}", "outside"), (str(service), "services")):
            local = socket.socket(socket.AF_UNIX)
            local.bind(address)
            local.listen()
            self._add(local, attempt)
        service.chmod(0o666)
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _add(self, listener: socket.socket, attempt: str) -> None:
        self._selector.register(listener, selectors.EVENT_READ, attempt)

    def _listen(self) -> None:
        while not self._closing.is_set():
            for key, _ in self._selector.select(0.1):
                assert isinstance(key.fileobj, socket.socket)
                with contextlib.suppress(OSError):
                    visitor, _ = key.fileobj.accept()
                    with visitor:
                        visitor.settimeout(1)
                        if visitor.recv(64).decode("latin-1") == self._word:
                            self.heard.add(key.data)

    def close(self) -> None:
        self._closing.set()
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            assert isinstance(key.fileobj, socket.socket)
            key.fileobj.close()
        self._selector.close()


def _own_address() -> list[str]:
    """The address that this machine has in its network; no packet is sent to find out."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
        probe.connect(("192.0.2.1", 9))
        return [str(probe.getsockname()[0])]
    return []


class Neighbour:
    """Another evaluation at the same level: a sandbox that sleeps, and a session that waits for it."""

    def __init__(self, sandbox: Sandbox, stack: contextlib.ExitStack) -> None:
        self.workspace = stack.enter_context(Workspace())
        self.secret = secrets.token_hex(16)
        folder = self.workspace
        write(folder.inbox / "train.py", self.secret)
        write(folder.private / "challenge0.safetensors", self.secret)
        write(folder.outbox / "state", self.secret)
        code_folder(folder.code)
        job = Job(
            argv=(sys.executable, "-S", "-u", "-c", SLEEPER, folder.root.name),
            code=folder.code,
            read_only=(folder.inbox, folder.sockets),
            writable=(folder.outbox,),
            environment={"NEIGHBOURS_SECRET": self.secret},
            limits=LIMITS,
            outbox=folder.outbox,
            private=(folder.inbox, folder.sockets),
        )
        self.session = stack.enter_context(Session(folder.sockets, 1, lambda stage: None))
        self.running: Running = stack.enter_context(sandbox.start(job))
        self.deceived = False
        self.session.watch(self.running)

    def targets(self) -> tuple[Target, ...]:
        """Its processes, once its program runs. Raises JudgeError when it does not."""
        until = time.monotonic() + START_SECONDS
        while "asleep" not in self.running.log():
            if time.monotonic() > until or self.running.ended() is not None:
                raise JudgeError(
                    Code.SANDBOX_UNAVAILABLE,
                    "the sandbox that stands for another evaluation does not start",
                    self.running.log(),
                )
            time.sleep(0.01)
        found = []
        for pid in processes_with(self.workspace.root.name):
            with contextlib.suppress(LookupError):
                found.append(target(pid))
        return tuple(found)

    def wait_for_rank(self, seconds: float) -> None:
        """Note whether somebody could speak in the place of this evaluation's rank."""
        with contextlib.suppress(TrainjudgeError):
            self.session.gather(Hello, Stage.LOADING, seconds)
            self.deceived = True
            self.session.broadcast(Bye())


class Judge:
    """A process of the judge's user that holds a secret in its memory, environment and arguments."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self.memory, self.environment, self.arguments = (secrets.token_hex(16) for _ in range(3))
        self.process = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", JUDGE, self.arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={"TRAINJUDGE_TOKEN": self.environment},
            )
        )
        stack.callback(self.process.kill)
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(self.memory.encode() + b"\n")
        self.process.stdin.flush()
        self.address = int(self.process.stdout.readline())


def hello(rank: int) -> Hello:
    return Hello(
        protocol=PROTOCOL_VERSION,
        rank=rank,
        world_size=WORLD,
        torch="",
        transformers="",
        device="cpu",
    )


def write(path: Path, text: str) -> None:
    write_readable(path, text.encode())
