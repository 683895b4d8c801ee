"""Attempts to reach and to read what is not the sandbox's."""

import ctypes
import errno
import glob
import json
import os
import socket
import struct

from .stage import (
    Briefing,
    Tries,
    call,
    list_process,
    listing,
    process,
    read,
    read_process,
    recognise,
)

PATIENCE_SECONDS = 2.0
UNROUTED = "192.0.2.1"  # TEST-NET-1 of RFC 5737: nobody's address
SERVICES = ("/run/docker.sock", "/run/containerd/containerd.sock", "/run/dbus/system_bus_socket")
PIDFD_GETFD = 438  # the same on every machine

Address = tuple[str, int] | str


def outside(stage: Briefing, tries: Tries) -> None:
    """Reach an address beyond the sandbox."""
    for host, port in stage.addresses:
        tries.way(f"TCP to {host}", knock, socket.AF_INET, (host, port), stage.marker)
    if stage.abstract:
        tries.way("abstract socket", knock, socket.AF_UNIX, f"\0{stage.abstract}", stage.marker)
    tries.way(f"a route to {UNROUTED}", connect, socket.AF_INET, socket.SOCK_DGRAM, (UNROUTED, 9))


def services(stage: Briefing, tries: Tries) -> None:
    """Talk to a service of the machine through its socket file."""
    if stage.service:
        tries.way("a service's socket", knock, socket.AF_UNIX, stage.service, stage.marker)
    for path in SERVICES:
        tries.way(path, connect, socket.AF_UNIX, socket.SOCK_STREAM, path)


def rank_socket(stage: Briefing, tries: Tries) -> None:
    """Open the judge's socket of a rank that has connected already."""
    sockets = sorted(glob.glob(f"{stage.root}/sockets/*.sock"))
    ranks = []
    for path, hello in zip(sockets, stage.hellos, strict=False):
        rank = socket.socket(socket.AF_UNIX)
        rank.connect(path)
        rank.sendall(bytes.fromhex(hello))
        ranks.append(rank)
    for rank in ranks:
        rank.settimeout(PATIENCE_SECONDS)
        rank.recv(1)  # the judge has accepted them all
    for path in sockets:
        tries.way(
            f"a second connection to {os.path.basename(path)}",
            connect, socket.AF_UNIX, socket.SOCK_STREAM, path,
        )  # fmt: skip


def neighbour_socket(stage: Briefing, tries: Tries) -> None:
    """Speak to the judge in the place of another evaluation's rank."""

    def speak() -> None:
        with socket.socket(socket.AF_UNIX) as rank:
            rank.settimeout(PATIENCE_SECONDS)
            rank.connect(f"{stage.neighbour}/sockets/rank0.sock")
            rank.sendall(bytes.fromhex(stage.hellos[0]))
            if not rank.recv(1):
                raise OSError(errno.ECONNRESET, "the judge hung up")

    if stage.neighbour and stage.hellos:
        tries.way("the socket of rank 0", speak)


def knock(family: int, address: Address, word: str) -> None:
    """Send a word to whoever listens there."""
    with socket.socket(family) as door:
        door.settimeout(PATIENCE_SECONDS)
        door.connect(address)
        door.sendall(word.encode())


def connect(family: int, kind: int, address: Address) -> None:
    with socket.socket(family, kind) as door:
        door.settimeout(PATIENCE_SECONDS)
        door.connect(address)


def reference(stage: Briefing, tries: Tries) -> None:
    """Read what only the judge may: its own folder, and the reference's."""
    for folder in ("private", "reference"):
        tries.look(f"list {folder}/", lambda path: listing(path).encode(), f"{stage.root}/{folder}")
    tries.way("a file of private/", read, f"{stage.root}/private/reference.safetensors")
    tries.way("the reference's state", read, f"{stage.root}/reference/output/run0/state")


def challenge(stage: Briefing, tries: Tries) -> None:
    """Read the rows of the run before the clock starts, or the corpus that they are of."""
    for folder in ("private", "inbox"):
        path = f"{stage.root}/{folder}/challenge0.safetensors"
        tries.way(f"{folder}/challenge0.safetensors", read, path)
    if stage.corpus:
        tries.way("the corpus", read, stage.corpus)


def neighbour_files(stage: Briefing, tries: Tries) -> None:
    """Read another evaluation's files."""
    if not stage.neighbour:
        return
    for name in ("inbox/train.py", "outbox/state", "private/challenge0.safetensors"):
        tries.way(name, read, f"{stage.neighbour}/{name}")
    for target in stage.neighbours:
        tries.way("its environment", read_process, target, "environ")
        tries.way("its files through /proc", list_process, target, f"root{stage.neighbour}/outbox")


def judge_memory(stage: Briefing, tries: Tries) -> None:
    """Read the memory, the files or the descriptors of a process of the judge."""
    judge = stage.judge
    if judge is None:
        return

    def from_mem() -> bytes:
        with open(process(judge, "mem"), "rb", buffering=0) as memory:
            memory.seek(stage.address)
            return memory.read(stage.secret_bytes)

    def from_system_call() -> bytes:
        recognise(judge)
        buffer = ctypes.create_string_buffer(stage.secret_bytes)
        here = struct.pack("PN", ctypes.addressof(buffer), stage.secret_bytes)
        there = struct.pack("PN", stage.address, stage.secret_bytes)
        call("process_vm_readv", judge.pid, here, 1, there, 1, 0)
        return buffer.raw

    def take_descriptor() -> None:
        recognise(judge)
        call("syscall", PIDFD_GETFD, os.pidfd_open(judge.pid), 0, 0)

    tries.way("/proc/PID/mem", from_mem)
    tries.way("process_vm_readv", from_system_call)
    for name in ("fd", "root"):
        tries.way(f"/proc/PID/{name}", list_process, judge, name)
    tries.way("pidfd_getfd", take_descriptor)


def environment(stage: Briefing, tries: Tries) -> None:
    """Find a secret in the environment: its own, its parent's, the judge's."""
    tries.look("its own", lambda: json.dumps(dict(os.environ)).encode())
    tries.look("its parent's", read, f"/proc/{os.getppid()}/environ")
    if stage.judge is not None:
        tries.way("the judge's", read_process, stage.judge, "environ")


def processes(stage: Briefing, tries: Tries) -> None:
    """See which programs run on the machine, with their arguments."""
    for target in stage.targets:
        tries.way("the command line of a process", read_process, target, "cmdline")
