"""Programs for sandboxes, and what tells whether anything of them is left."""

import select
import sys
import time
from pathlib import Path

from harness.benchmark.rules import Limits
from harness.escapes.decoys import processes_with as processes_with  # for the tests too
from harness.sandbox import Ending, Job, Level, Running, Sandbox

MIB = 2**20


def make_job(folder: Path, program: str, *arguments: str, **limits: int) -> Job:
    code, outbox = folder / "code", folder / "outbox"
    code.mkdir(exist_ok=True)
    outbox.mkdir(exist_ok=True)
    (code / "program.py").write_text(program)
    return Job(
        argv=(sys.executable, "-m", "program", *arguments),
        code=code,
        read_only=(),
        writable=(outbox,),
        environment={"GREETING": "hello"},
        limits=Limits(**limits),
        outbox=outbox,
    )


def run(level: Level, job: Job, seconds: float = 30.0) -> tuple[Ending, str]:
    with Sandbox(level).start(job) as running:
        return ended_by_itself(running, seconds), running.log()


def ended_by_itself(running: Running, seconds: float = 30.0) -> Ending:
    assert select.select([running], [], [], seconds)[0], "the sandbox did not end by itself"
    ending = running.ended()
    assert ending is not None
    return ending


def wait_until_none(marker: str, seconds: float = 10.0) -> None:
    until = time.monotonic() + seconds
    while (left := processes_with(marker)) and time.monotonic() < until:
        time.sleep(0.05)
    assert left == [], f"still running: {left}"


def wait_for(path: Path, seconds: float = 10.0) -> None:
    until = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < until, f"{path} did not appear"
        time.sleep(0.02)


# Its processes are forked, doubly forked, deaf to signals, and one is a reaper of its own.
HYDRA = """
import os, signal, sys, time
for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGUSR1):
    signal.signal(number, signal.SIG_IGN)
def linger(name):
    os.close(1); os.close(2)
    open(os.path.join(sys.argv[1], name), "w").close()
    time.sleep(600)
if os.fork() == 0:
    linger("child")
if os.fork() == 0:
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            linger("daemon")
        os._exit(0)
    os._exit(0)
if os.fork() == 0:
    os.setsid()
    import ctypes
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # a subreaper of its own
    if os.fork() == 0:
        if os.fork() == 0:
            linger("hoarded")
        os._exit(0)
    linger("hoarder")
open(os.path.join(sys.argv[1], "main"), "w").close()
if sys.argv[2] == "stay":
    time.sleep(600)
while not all(os.path.exists(os.path.join(sys.argv[1], name))
              for name in ("child", "daemon", "hoarded", "hoarder")):
    time.sleep(0.02)
"""
HEADS = ("child", "daemon", "hoarded", "hoarder", "main")


def hydra(folder: Path, mode: str, marker: str) -> Job:
    job = make_job(folder, HYDRA, str(folder / "outbox"), mode)
    return Job(**{**vars(job), "environment": {"MARKER": marker}})
