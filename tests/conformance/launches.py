"""The launches that many tests look at: a program that looks round, and two sandboxes at once."""

import contextlib
import json
import os
import stat
import uuid
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import pytest

from harness.escapes.decoys import processes_with
from harness.sandbox import Ending, Level, Running, Sandbox
from harness.sandbox.for_all import folders_for_all
from tests.conformance.promises import Promise, kept_by
from tests.project import ROOT
from tests.sandbox_programs import MIB, ended_by_itself, make_job, wait_for

SPY: Final = (Path(__file__).parent / "spy.py").read_text(encoding="utf-8")
#: Such as /run/lock beside those that one thinks of.
TEMPORARY_FOLDERS: Final = tuple({"/tmp", "/var/tmp", "/dev/shm", *folders_for_all()})
# Each larger than what Python itself needs, and no two the same.
OUTBOX_BYTES, TMP_BYTES = 8 * MIB, 24 * MIB


@dataclass(frozen=True)
class Spied:
    """What the program found, and what was left of its sandbox.

    Attributes:
        facts: keys as of `spy.facts`.
        told: the ending each time that it was asked for.
        given: a folder that the job names, with a file in it.
        secret: a file beside it that the job does not name.
        owner, mode: of the outbox once the sandbox had ended.
        left: of what the program left in temporary folders, what is there still.
    """

    facts: dict[str, Any]
    told: tuple[Ending | None, ...]
    log: str
    given: Path
    secret: Path
    owner: int
    mode: int
    left: list[Path]


def look_round(level: Level, folder: Path) -> Spied:
    given, secret = folder / "inbox", folder / "judge" / "reference.safetensors"
    for place in (given, secret.parent):
        place.mkdir()
    (given / "train.py").write_text("the train file")
    secret.write_text("secret")
    name = f"trainjudge-left-{uuid.uuid4().hex}"
    tidy = Promise.TIDY in kept_by(level)
    wanted = {
        "paths": [
            *map(str, (given, given / "train.py", secret, ROOT / "pyproject.toml")),
            # Through the root of another process, and what a machine has beside its programs.
            f"/proc/1/root{secret}", "/home", "/var", "/run/docker.sock", "/etc/machine-id", "/etc/shadow",
        ],
        "places": TEMPORARY_FOLDERS if tidy else (),
        "name": name,
    }  # fmt: skip
    outbox = folder / "outbox"
    job = make_job(
        folder,
        SPY,
        str(outbox / "facts.json"),
        json.dumps(wanted),
        outbox_bytes=OUTBOX_BYTES,
        tmp_bytes=TMP_BYTES,
    )
    environment = {"GREETING": "hello", "TOKENIZERS_PARALLELISM": "true"}
    job = replace(job, read_only=(given,), environment=environment)
    inherited = os.memfd_create("judge", 0)  # as a careless library leaves one
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("HF_TOKEN", "hf_a_token_of_the_judge")
            patch.setenv("LD_LIBRARY_PATH", "/a/folder/of/the/judge")
            with Sandbox(level).start(job) as running:
                first = ended_by_itself(running)
                told = (first, running.stop(), running.stop(), running.ended())
                log = running.log()
    finally:
        os.close(inherited)
    facts = outbox / "facts.json"
    assert facts.is_file(), f"it did not come to its end: {first}\n{log}"
    found = json.loads(facts.read_text())
    temporary = found["environment"]["TMPDIR"]
    status = outbox.stat()
    return Spied(
        facts=found,
        told=told,
        log=log,
        given=given,
        secret=secret,
        owner=status.st_uid,
        mode=stat.S_IMODE(status.st_mode),
        left=_left(name, (*TEMPORARY_FOLDERS, temporary)),
    )


def _left(name: str, places: tuple[str, ...]) -> list[Path]:
    paths = [Path(place) / each for place in places for each in (name, f"{name}-file")]
    return [path for path in paths if os.path.lexists(path)]


@dataclass(frozen=True)
class Pair:
    """Two sandboxes while their programs ran, and after a judge left them with an exception.

    Attributes:
        owners: of the two outboxes.
        users: user ids of their processes, as seen from outside.
        endings: None for each that had not ended.
        left: ids of processes after the judge had gone.
    """

    owners: tuple[int, ...]
    users: frozenset[int]
    endings: tuple[Ending | None, ...]
    left: list[int]


SLEEPER: Final = """
import sys, time
open(sys.argv[1] + "/asleep", "w").close()
time.sleep(600)
"""


def run_pair(level: Level, folder: Path) -> Pair:
    marker = uuid.uuid4().hex
    outboxes = []
    running: list[Running] = []
    with contextlib.suppress(KeyboardInterrupt), contextlib.ExitStack() as stack:
        for name in ("first", "second"):
            (folder / name).mkdir()
            (folder / name).chmod(0o711)
            outboxes.append(folder / name / "outbox")
            job = make_job(folder / name, SLEEPER, str(outboxes[-1]))
            job = replace(job, environment={"MARKER": marker})
            running.append(stack.enter_context(Sandbox(level).start(job)))
        for outbox in outboxes:
            wait_for(outbox / "asleep", 30)
        owners = tuple(outbox.stat().st_uid for outbox in outboxes)
        users = frozenset(_owners(processes_with(marker)))
        endings = tuple(each.ended() for each in running)
        raise KeyboardInterrupt  # a Ctrl-C in the judge
    # No waiting here: leaving the block has to mean that they are gone.
    return Pair(owners, users, endings, processes_with(marker))


def _owners(pids: list[int]) -> set[int]:
    found = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            found.add(Path(f"/proc/{pid}").stat().st_uid)
    return found
