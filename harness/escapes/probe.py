"""`validator doctor --probe`: every attempt to escape, at every level of isolation that works here.

The program inside (`harness.escapes.inside`) tells what it was refused; the judge believes it only what
speaks against the level. Where something can be seen from outside (a secret that came back, a file that
lies there, a visitor at a listener, a process that is left), the judge looks for itself.
"""

import contextlib
import json
import os
import signal
import socket
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.errors import JudgeError, TrainjudgeError
from harness.escapes.decoys import WORLD, processes_with
from harness.escapes.inside import ENDING, TOUR
from harness.escapes.inside.changing import DEVICES
from harness.escapes.inside.stage import FINISHED, REPORT
from harness.escapes.report import TITLES, Cell, Outcome, ProbeReport, Row, escaped
from harness.escapes.stage import TEMPORARY_FOLDERS, Scene
from harness.phases import OnProgress, silent
from harness.protocol.messages import Bye, Hello, Stage
from harness.sandbox import Ending, EndReason, Level, Running, Sandbox, probe
from harness.sandbox.environment import OPEN_FILES
from harness.sandbox.removal import remove_tree
from harness.timed.session import Session

TOUR_SECONDS: Final = 60.0
ENDING_SECONDS: Final = 30.0
LIMIT_REASONS = (EndReason.MEMORY, EndReason.PROCESSES, EndReason.OUTBOX)
# Held means that the judge itself saw nothing get through, not only that the program says so.
SEEN: Final = frozenset(
    (
        "outside", "services", "rank_socket", "neighbour_socket", "reference", "challenge",
        "neighbour_files", "judge_memory", "environment", "processes", "write_outside",
        "change_inputs", "shared_folders", "mknod", "signals", "setuid", "raise_limits", "machine_folders",
        "shared_memory", "outlive",
    )
)  # fmt: skip

Found = dict[str, list[str]]


@dataclass(frozen=True)
class Said:
    """What the program inside says of one attempt (`harness.escapes.inside.stage.Tries`)."""

    through: tuple[str, ...]
    refused: tuple[str, ...]
    evidence: str
    broke: str


def probe_all(progress: OnProgress = silent) -> ProbeReport:
    """Try everything at every level that works here; some seconds a level.

    Args:
        progress: told what is being done, a line at a time.
    """
    cells: dict[Level, dict[str, Cell]] = {}
    missing: dict[Level, str] = {}
    seconds: dict[Level, float] = {}
    for availability in probe():
        level = availability.level
        if not availability.available:
            missing[level] = availability.reason
            continue
        progress(f"{level}: {len(TITLES)} attempts to escape")
        began = time.monotonic()
        cells[level] = probe_level(Sandbox(level))
        seconds[level] = round(time.monotonic() - began, 1)
    return ProbeReport(
        levels=tuple(cells),
        missing=missing,
        seconds=seconds,
        rows=tuple(
            Row(attempt=name, title=title, cells={level: cells[level][name] for level in cells})
            for name, title in TITLES.items()
        ),
    )


def probe_level(sandbox: Sandbox, level: Level | None = None) -> dict[str, Cell]:
    """Every attempt in `sandbox`.

    Args:
        level: whose known gaps are meant; None: the sandbox's own.

    Returns:
        A cell for each of TITLES.
    """
    level = level or sandbox.level
    with Scene(sandbox) as scene:
        scene.prepare()
        cells = _tour(scene, level)
        for name in ENDING:
            scene.prepare()
            cells[name] = _outlive(scene, level) if name == "outlive" else _take(scene, level, name)
        return cells


def _tour(scene: Scene, level: Level) -> dict[str, Cell]:
    """The attempts that do not end the sandbox, in one launch; the judge looks round before its end."""
    found: Found = {name: [] for name in TOUR}
    with (
        Session(scene.workspace.sockets, WORLD, lambda stage: None) as session,
        scene.sandbox.start(scene.job(*TOUR)) as running,
    ):
        session.watch(running)
        with contextlib.suppress(TrainjudgeError):  # then the program has nobody to speak to
            session.gather(Hello, Stage.LOADING, TOUR_SECONDS)
            session.broadcast(Bye())
        _wait(running, TOUR_SECONDS, lambda: _neighbour_waits(scene, running))
        _look_round(scene, running, found)
        running.stop()
        log = running.log()
    for folder in scene.made(*TEMPORARY_FOLDERS):
        found["shared_folders"].append(f"left in {folder.parent}")
    if scene.made(scene.everybodys):
        found["shared_folders"].append("left in a folder of everybody's")
    said = read_report(log)
    for name, secret in scene.secrets.items():
        if name in said and secret in said[name].evidence:
            # Of several ways the program says which; of a mere look it does not know.
            found[name] += said[name].through or ["a secret was read"]
    return {name: _cell(level, name, said.get(name), found[name], log) for name in TOUR}


def _wait(running: Running, seconds: float, meanwhile: Callable[[], None]) -> None:
    """Until the program has finished or ended, or the time is up."""
    until = time.monotonic() + seconds
    while running.ended() is None and FINISHED not in running.log() and time.monotonic() < until:
        meanwhile()
        time.sleep(0.02)


def _neighbour_waits(scene: Scene, running: Running) -> None:
    """The other evaluation's judge listens, until the program has tried to speak to it."""
    if "neighbour_socket" not in running.log() and not scene.neighbour.deceived:
        scene.neighbour.wait_for_rank(0.1)


def _look_round(scene: Scene, running: Running, found: Found) -> None:
    """What can be seen out here while the program still runs."""
    for name in scene.listeners.heard:
        found[name].append("somebody outside heard it")
    for path in sorted(scene.workspace.sockets.iterdir()):
        with socket.socket(socket.AF_UNIX) as door, contextlib.suppress(OSError):
            door.connect(str(path))
            found["rank_socket"].append(f"{path.name} is open")
    if scene.neighbour.deceived:
        found["neighbour_socket"].append("the judge took it for the rank")
    if scene.judge.process.poll() is not None:
        found["signals"].append("the judge's process was killed")
    if scene.neighbour.running.ended() is not None:
        found["signals"].append("the neighbour was killed")
    for path in scene.made(*scene.places()):
        found["write_outside"].append(f"visible in {path.parent}")
    for path in scene.changed():
        found["change_inputs"].append(f"{path.name} was changed")
    for path in scene.made(*TEMPORARY_FOLDERS, scene.everybodys):
        found["shared_folders"].append(f"visible in {path.parent}")
    for path in scene.made(scene.workspace.outbox):
        status = path.lstat()
        if stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
            found["mknod"].append(path.name)
        if status.st_uid == 0 and running.user != 0:
            found["setuid"].append(f"{path.name} is root's")
    for pid in _programs(scene):
        with contextlib.suppress(OSError):
            if _open_files(pid) > OPEN_FILES:
                found["raise_limits"].append("more open files than allowed")
            if Path(f"/proc/{pid}").stat().st_uid == 0 and running.user != 0:
                found["setuid"].append("it runs as root")


def _programs(scene: Scene) -> list[int]:
    """Ids, out here, of the program that makes the attempts."""
    found = []
    for pid in processes_with(scene.workspace.root.name):
        with contextlib.suppress(OSError):
            if b"escapes" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                found.append(pid)
    return found


def _open_files(pid: int) -> int:
    """The hard limit of a process. Raises OSError when it has gone."""
    for line in Path(f"/proc/{pid}/limits").read_text().splitlines():
        if line.startswith("Max open files"):
            return int(line.split()[-2])
    return 0


def _take(scene: Scene, level: Level, name: str) -> Cell:
    """An attempt to take more than is allowed, in a launch of its own."""
    found: list[str] = []
    try:
        with scene.sandbox.start(scene.job(name)) as running:
            _wait(running, ENDING_SECONDS, lambda: None)
            if running.ended() is None:
                visible = scene.made(*TEMPORARY_FOLDERS)
                found += sorted({f"{path.parent} is filled" for path in visible})
            ending = running.stop()
            log = running.log()
    except TrainjudgeError as error:
        return Cell(outcome=Outcome.NOT_TRIED, detail=error.message, seen=True)
    if ending.reason in LIMIT_REASONS:
        return Cell(outcome=Outcome.HELD, detail=f"ended: {ending.detail}", seen=True)
    return _cell(level, name, read_report(log).get(name), found, log, ending)


def _outlive(scene: Scene, level: Level) -> Cell:
    """What is left when the judge has said stop. Leaves nothing itself."""
    name, mark = "outlive", scene.workspace.root.name
    log = ""
    try:
        with scene.sandbox.start(scene.job(name)) as running:
            _wait(running, ENDING_SECONDS, lambda: None)
            log = running.log()
            running.stop()
    except JudgeError:
        pass  # the supervisor was killed: see what that has brought
    left = processes_with(mark)
    said = read_report(log).get(name)
    for pid in left:
        _end(pid)
    return _cell(level, name, said, [f"{len(left)} processes are left"] if left else [], log)


def _end(pid: int) -> None:
    """Kill what escaped, and remove the temporary folder that its supervisor could not."""
    with contextlib.suppress(OSError):
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        os.kill(pid, signal.SIGKILL)
        for variable in variables:
            if variable.startswith(b"TMPDIR=") and b"/trainjudge-tmp-" in variable:
                remove_tree(Path(os.fsdecode(variable.removeprefix(b"TMPDIR="))))


def read_report(log: str) -> dict[str, Said]:
    """The lines of the report. What is none is passed over: a sandbox's output is not to be trusted."""
    report = {}
    for line in log.splitlines():
        if not line.startswith(REPORT):
            continue
        with contextlib.suppress(ValueError, KeyError, TypeError):
            fields = json.loads(line.removeprefix(REPORT))
            report[str(fields["attempt"])] = Said(
                through=tuple(map(str, fields["through"])),
                refused=tuple(map(str, fields["refused"])),
                evidence="\n".join(map(str, fields["evidence"])),
                broke=str(fields["broke"]),
            )
    return report


def _cell(
    level: Level,
    name: str,
    said: Said | None,
    found: list[str],
    log: str,
    ending: Ending | None = None,
) -> Cell:
    """The verdict on an attempt, of what was found out here and what the program says against us."""
    if found:
        # What the program says adds the ways; that it got through is proven.
        ways = dict.fromkeys((*found, *(said.through if said else ())))
        return escaped(level, name, tuple(ways), seen=True)
    if name == "module" and not Path("/proc/modules").exists():
        return _not_tried("this machine's kernel loads no modules")
    if said is None:
        why = (log.strip().splitlines() or ["it said nothing"])[-1]
        ended = f"{ending.detail}: " if ending else ""
        return _not_tried(f"the program did not come to it: {ended}{why[:200]}")
    if said.through:
        return escaped(level, name, said.through, seen=False)
    if said.broke:
        return _not_tried(f"the attempt broke down: {said.broke}")
    if not said.refused:
        return _without_refusal(name)
    return Cell(outcome=Outcome.HELD, detail="; ".join(said.refused), seen=name in SEEN)


def _without_refusal(name: str) -> Cell:
    """Nothing was there to be tried: good if it is there outside, else no proof of anything."""
    present = [str(path) for pattern in DEVICES for path in Path("/").glob(pattern[1:])]
    if name == "devices" and present:
        detail = f"none is there; outside are {', '.join(present)}"
        return Cell(outcome=Outcome.HELD, detail=detail, seen=True)
    return _not_tried("nothing to try it on is here")


def _not_tried(reason: str) -> Cell:
    return Cell(outcome=Outcome.NOT_TRIED, detail=reason, seen=True)
