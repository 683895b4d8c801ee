"""A machine becomes a node: what it has is looked at, Ray is started with it, and ended in good order."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Final
from uuid import uuid4

from harness.api import ready_snapshot
from harness.benchmark.hparams import LoadedHparams
from harness.board.child import end_child, end_with_parent
from harness.board.queue import this_worker
from harness.board.stopping import Stop, rest
from harness.errors import Code, InputError, JudgeError
from harness.fleet.cluster import Directory
from harness.fleet.node import SEAT, HeldBenchmark, Seat
from harness.fleet.offer import Node, Offer
from harness.fleet.snapshots import fetch
from harness.host.leftovers import clean_up
from harness.machine import cores, cpu_name, gpu_names
from harness.phases import OnProgress
from harness.protocol.text import one_line, printable
from harness.report import ProgressDisplay
from harness.sandbox import choose
from harness.sandbox.judge_process import this_process
from harness.timed.workspace import JUDGE

#: What travels is small; the rest of the memory is the judge's.
OBJECT_STORE_BYTES: Final = 100_000_000
START_SECONDS: Final = 60.0
LOOK_SECONDS: Final = 2.0
#: A head that is away for longer ends Ray's processes here as well.
HEAD_SECONDS: Final = 90.0
END_SECONDS: Final = 30.0
#: Ray must neither call home nor kill a judge that needs memory: its sandbox limits it.
ENVIRONMENT: Final = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_memory_monitor_refresh_ms": "0"}


def look_around(
    benchmarks: Sequence[LoadedHparams],
    sandbox: str,
    image: str | None,
    addresses: Sequence[str],
    progress: ProgressDisplay,
) -> Seat:
    """What this machine offers, and how it judges; every byte of a snapshot is checked.

    Args:
        benchmarks: what it is to judge.
        sandbox, image: as for `validator run`.
        addresses: of snapshots that it may have to get.
        progress: told how it goes.

    Raises:
        InputError: it cannot judge one of these benchmarks, its GPUs differ, or its levels would.
        JudgeError: a snapshot cannot be fetched.
    """
    held, levels = {}, set()
    for loaded in benchmarks:
        levels.add(choose(sandbox, image=image, hparams_sha256=loaded.sha256).level)
        snapshot = fetch(loaded, addresses, progress.line) or ready_snapshot(loaded, None, progress)
        held[loaded.sha256] = HeldBenchmark(
            hparams=loaded.path.absolute(), snapshot=snapshot.directory
        )
    if len(levels) != 1:
        raise InputError(
            Code.BAD_ARGUMENT,
            f"these benchmarks would be judged at different levels ({', '.join(sorted(levels))}): name one",
        )
    options = ("--sandbox", levels.pop(), *(("--image", image) if image else ()))
    return Seat(
        offer=_offer(options[1], tuple(sorted(held))), benchmarks=held, options=options, image=image
    )


def _offer(level: str, benchmarks: tuple[str, ...]) -> Offer:
    gpus = gpu_names()
    if len(set(gpus)) > 1:
        raise InputError(
            Code.BAD_ARGUMENT,
            f"the GPUs of this machine differ ({', '.join(sorted(set(gpus)))}): it is of no class; let "
            "CUDA_VISIBLE_DEVICES name equal ones",
        )
    host = os.uname().nodename
    return Offer(
        node=f"{host}-{uuid4().hex[:6]}",
        host=host,
        kernel=this_worker().machine,
        version=version("trainjudge"),
        cores=cores(),
        cpu=cpu_name(),
        gpus=len(gpus),
        gpu="".join(gpus[:1]),
        level=level,
        benchmarks=benchmarks,
    )


def join(seat: Seat, address: str, stop: Stop, say: OnProgress) -> None:
    """Be a node until `stop` says so, or until it was drained from elsewhere.

    The first request drains it: what it judges may finish. What is due ends it at once.

    Raises:
        InputError: there is no fleet at that address.
        JudgeError: it is part of the fleet no more, though nobody wanted that.
    """
    directory = Directory(address)
    for name in clean_up().removed:
        say(f"left behind by a judge that was killed, removed: {name}")
    with tempfile.TemporaryDirectory(prefix="trainjudge-node-") as folder:
        file, log = Path(folder, "seat.json"), Path(folder, "log")
        mark = Path(
            folder, "private", JUDGE
        )  # if Ray ends this process, the next one clears it away
        mark.parent.mkdir()
        mark.write_text(this_process())
        file.write_text(seat.model_dump_json(), encoding="utf-8")
        with log.open("wb") as written:
            child = subprocess.Popen(
                _ray_start(seat.offer, address),
                stdin=subprocess.DEVNULL,
                stdout=written,
                stderr=written,
                env={**os.environ, **ENVIRONMENT, SEAT: str(file)},
                start_new_session=True,  # a signal from the terminal is for us, who drain first
                preexec_fn=end_with_parent(os.getpid()),
            )
        try:
            _Membership(child, directory, seat.offer, stop, say).last(log)
        finally:
            end_child(child, END_SECONDS)


def _ray_start(offer: Offer, address: str) -> list[str]:
    return [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats"),
        *("--address", address, "--resources", json.dumps(offer.resources())),
        *("--num-gpus", str(offer.gpus), "--object-store-memory", str(OBJECT_STORE_BYTES)),
    ]


class _Membership:
    """A node's time in the fleet."""

    def __init__(
        self,
        child: "subprocess.Popen[bytes]",
        directory: Directory,
        offer: Offer,
        stop: Stop,
        say: OnProgress,
    ) -> None:
        self._child, self._directory, self._offer = child, directory, offer
        self._stop, self._say = stop, say
        self._node: Node | None = None
        self._told = False

    def last(self, log: Path) -> None:
        """From being heard of to being gone."""
        self._node = self._appear(log)
        reached = time.monotonic()
        while self._child.poll() is None and not self._stop.due:
            try:
                if self._has_left():
                    return
                reached = time.monotonic()
            except JudgeError as error:
                if error.code is not Code.INTERNAL or time.monotonic() - reached > HEAD_SECONDS:
                    raise
            rest(LOOK_SECONDS, lambda: self._stop.due)
        if not self._stop.requested:
            raise JudgeError(Code.INTERNAL, "Ray ended on this machine", _end_of(log))

    def _has_left(self) -> bool:
        """Look whether the fleet has us, and ask to be drained where we have to end.

        Raises JudgeError: the head cannot be reached, or takes us for dead.
        """
        assert self._node is not None
        node = self._find()
        if node is None and self._directory.was_drained(self._node):
            self._say("has left the fleet")
            return True
        if node is None:
            raise JudgeError(
                Code.WORKER_FAILED,
                f"the fleet takes node {self._node.name} for dead: join it again",
            )
        if self._stop.requested and not node.draining:
            self._directory.drain(node)
        if (self._stop.requested or node.draining) and not self._told:
            self._told = True
            self._say("is drained: what it judges may finish")
        return False

    def _appear(self, log: Path) -> Node:
        until = time.monotonic() + START_SECONDS
        while (node := self._find_or_none()) is None:
            if self._child.poll() is not None or time.monotonic() > until or self._stop.requested:
                raise InputError(
                    Code.BAD_ARGUMENT,
                    "this machine could not join the fleet: is there a head at that address, is it of the "
                    "same version of Ray?",
                    _end_of(log),
                )
            rest(0.5, lambda: self._stop.requested)
        self._say(f"is node {node.name} of the fleet")
        return node

    def _find(self) -> Node | None:
        name = self._offer.node
        return next((node for node in self._directory.nodes() if node.name == name), None)

    def _find_or_none(self) -> Node | None:
        try:
            return self._find()
        except JudgeError:
            return None


def _end_of(log: Path) -> str:
    lines = printable(log.read_bytes()[-4096:]).strip().splitlines()
    return "\n".join(one_line(line) for line in lines[-12:])
