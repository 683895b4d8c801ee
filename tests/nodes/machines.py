"""Two machines on one: network namespaces of this kernel, each with an agent of the real command in it.

A link from the judge to each, on which it speaks to the agent, and one between both for their ranks. What
they share is the kernel, the cores and the files.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from harness.timed.workspace import PREFIX
from tests.board.processes import wait_until
from tests.project import ROOT

REQUIRED = "TRAINJUDGE_REQUIRE_NODES"
PORT = 7700
START_SECONDS = 60.0


def require_namespaces() -> None:
    """Skip the test where none can be made, or fail it if it is said that they can."""
    missing, trial = "", f"tj-trial-{os.getpid()}"
    if os.geteuid() != 0:
        missing = "making network namespaces needs root"
    elif (
        shutil.which("ip") is None
        or shutil.which("bridge") is None
        or shutil.which("bwrap") is None
    ):
        missing = "ip and bridge (iproute2) and bwrap are not all here"
    elif (tried := _ip("netns", "add", trial, check=False)).returncode != 0:
        missing = f"no network namespace can be made: {tried.stderr.strip()}"
    else:
        _ip("netns", "del", trial)
    if missing:
        (pytest.fail if os.environ.get(REQUIRED) == "1" else pytest.skip)(missing)


@dataclass
class Machines:
    """Both, with their agents.

    Attributes:
        work: folder of the agents' work folders.
        key: what judge and agents share.
        hparams: the benchmark that the agents hold.
        agents: of each machine, while it runs.
    """

    folder: Path
    work: Path
    key: Path
    hparams: Path
    agents: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        """Of commands whose work folders are looked for."""
        return {**os.environ, "TMPDIR": str(self.work)}

    @property
    def addresses(self) -> tuple[str, ...]:
        return tuple(f"{_control(index)}:{PORT}" for index in (0, 1))

    @property
    def judge(self) -> tuple[str, ...]:
        """The command that judges a file on both."""
        return (
            sys.executable, "-m", "harness.cli", "run", str(ROOT / "submissions" / "train_ddp.py"),
            "--hparams", str(self.hparams), "--json", "-",
            "--agents", ",".join(self.addresses), "--agents-key", str(self.key),
        )  # fmt: skip

    def start(self, index: int) -> None:
        """An agent in that machine; returns when it listens."""
        log = self.folder / f"agent{index}.log"
        log.unlink(missing_ok=True)
        command = [
            "ip", "netns", "exec", _name(index), sys.executable, "-m", "harness.cli", "agent", "serve",
            "--listen", f"{_control(index)}:{PORT}", "--fabric", _fabric(index),
            "--key", str(self.key), "--hparams", str(self.hparams),
        ]  # fmt: skip
        environment = {**self.environment, "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(ROOT)}
        with log.open("ab") as written:
            found = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=written, stderr=written, env=environment
            )
        if index < len(self.agents):
            self.agents[index] = found
        else:
            self.agents.append(found)
        wait_until(lambda: "agent of" in self.said(index), START_SECONDS)

    def said(self, index: int) -> str:
        return (self.folder / f"agent{index}.log").read_text(errors="replace")

    def kill(self, index: int) -> None:
        """As if the machine lost its power, for whoever is elsewhere."""
        self.agents[index].kill()
        self.agents[index].wait()

    def left(self) -> list[str]:
        """What is there of evaluations: work folders, and processes that were given one."""
        folders = [path.name for path in self.work.glob(f"{PREFIX}*")]
        marked = f"TRAINJUDGE_OUTBOX={self.work}".encode()
        return [
            *folders,
            *(str(path) for path in Path("/proc").glob("[0-9]*") if _has(path, marked)),
        ]

    def run_inside(self, index: int, *command: str) -> "subprocess.CompletedProcess[str]":
        """In that machine, in no sandbox."""
        return subprocess.run(
            ["ip", "netns", "exec", _name(index), *command],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def end(self) -> None:
        for agent in self.agents:
            agent.send_signal(signal.SIGTERM)
        for agent in self.agents:
            agent.wait(60)


@contextmanager
def two_machines(folder: Path, key: Path, hparams: Path) -> Iterator[Machines]:
    """Both, with an agent each, until the `with` block is left."""
    # Not below pytest's folders, which no other user may enter.
    work = Path(tempfile.mkdtemp(prefix="machines-"))
    work.chmod(0o711)
    machines = Machines(folder, work, key, hparams)
    try:
        _connect()
        for index in (0, 1):
            machines.start(index)
        yield machines
        machines.end()
    finally:
        for agent in machines.agents:
            agent.kill()
            agent.wait()
        for index in (0, 1):
            _ip("netns", "del", _name(index), check=False)
        shutil.rmtree(work)


def _has(process: Path, words: bytes) -> bool:
    try:
        return words in (process / "environ").read_bytes()
    except OSError:
        return False


def _connect() -> None:
    for index in (0, 1):
        name, here = _name(index), f"tj{os.getpid() % 100_000}c{index}"
        _ip("netns", "add", name)
        _ip("-n", name, "link", "set", "lo", "up")
        _ip("link", "add", here, "type", "veth", "peer", "name", "control", "netns", name)
        _ip("addr", "add", f"{_control(index, judge=True)}/24", "dev", here)
        _ip("link", "set", here, "up")
        _ip("-n", name, "addr", "add", f"{_control(index)}/24", "dev", "control")
        _ip("-n", name, "link", "set", "control", "up")
    _ip(
        "link", "add", "ranks", "netns", _name(0), "type", "veth",
        "peer", "name", "ranks", "netns", _name(1),
    )  # fmt: skip
    for index in (0, 1):
        _ip("-n", _name(index), "addr", "add", f"{_fabric(index)}/24", "dev", "ranks")
        _ip("-n", _name(index), "link", "set", "ranks", "up")


def _name(index: int) -> str:
    return f"tj-{os.getpid()}-{index}"


def _control(index: int, *, judge: bool = False) -> str:
    """A test process has links of its own, beside those of others that run at the same time."""
    high, low = os.getpid() % 100, os.getpid() // 100 % 100
    return f"10.{100 + high}.{2 * low + index}.{1 if judge else 2}"


def _fabric(index: int) -> str:
    return f"10.97.0.{index + 1}"


def _ip(*words: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["ip", *words], capture_output=True, text=True, check=check)
