"""What the leaderboard costs when it is large, busy or idle, as docs/performance.md shows it.

    python measurements/board.py pages [--evaluations N]
    python measurements/board.py uploads [--rate N] [--seconds S] [--clients N]
    python measurements/board.py idle-worker [--seconds S] [--evaluations N]

All of it happens in a SQLite store in a temporary folder (about 1 GB for a million evaluations).

`pages` fills a season with finished evaluations, ranks it from scratch, and asks a real `validator serve`
for pages over loopback: the first time, again and again, and right after an event, when all has to be
ranked anew. The season needs no pairs, so the record's history is replayed from the scores: of the two
ways the slower one. Source, result and history of a few hundred submissions are there, the others' are
not: no page reads those of more than one.

`uploads` hands in small files at a fixed rate to a server beside a worker, whose judge is a stand-in that
takes no time. What is due while all clients wait for the server is sent late or, when the time is over,
not at all. In the end every file that the server took is looked for in the store.

`idle-worker` is a worker that nothing waits for. With `--evaluations` its season has so many; it makes the
ranking anew every minute, so give it a few.

Times are wall time. Where CPU time stands beside it and is much less, the machine had other work.
"""

import argparse
import hashlib
import http.client
import itertools
import json
import multiprocessing
import os
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Final

import numpy as np
import psutil
from sqlalchemy import func, select

from harness.board import events as ev
from harness.board.leaderboard import rank_season
from harness.board.organise import SeasonPlan, add_author, open_season
from harness.board.rule import ScoringRule
from harness.board.store import Store, open_store
from harness.board.tables import (
    Author,
    Base,
    Document,
    Evaluation,
    EventRow,
    Source,
    Submission,
    Worker,
)
from harness.board.worker import Job, Stop, work
from harness.errors import Code, Verdict
from harness.machine import Machine
from harness.result import (
    Benchmark,
    EvaluationResult,
    Metric,
    Phase,
    RunResult,
    Score,
    SubmissionRecord,
)

ROOT: Final = Path(__file__).resolve().parent.parent
HPARAMS_SHA256: Final = hashlib.sha256(b"of no benchmark").hexdigest()
HARDWARE: Final = "2 x NVIDIA H100 80GB HBM3"
AUTHORS: Final = 2_000
#: Submissions with source, result document and history.
WHOLE: Final = 300
STRATEGIES: Final = ("dp 2", "dp 2, ep 2 (ep within dp)", "tp 2", "pp 2", "cp 2")
SEASON_SECONDS: Final = 90 * 86_400
BLOCK: Final = 50_000
WARM_REQUESTS: Final = 20
UPLOADERS: Final = 200
START_SECONDS: Final = 300.0

PAGE_GOAL, RANK_GOAL, MEMORY_GOAL = "50 ms", "5 s", "500 MB"

#: For a judge: writes down which file it has judged, and hands out the same result for all.
STANDIN: Final = """
import os, shutil, sys
document, marks, file, *options = sys.argv[1:]
with open(file) as source:
    line = source.readline()
with open(marks, "a") as judged:
    judged.write(line)
result = options[options.index("--json") + 1]
shutil.copyfile(document, result + ".part")
os.rename(result + ".part", result)
"""
TRAIN_FILE: Final = """# {number}
def get_strategy():
    return {{"dp_size": 2}}


def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):
    return {number}
"""


def row(*cells: object) -> None:
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


def head(*cells: str) -> None:
    row(*cells)
    print("|" + "---|" * len(cells), flush=True)


def cpu_seconds(pid: int) -> float:
    """Of all threads of a process since it started, as its CPU clock has it (clock_getcpuclockid)."""
    return time.clock_gettime((~pid << 3) | 2)


def peak_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(peak.split()[1]) * 1024 / 1e6


# --- a large store ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Large:
    """A store with many evaluations.

    Attributes:
        submission: one of those with all that a page can show.
        author: who handed it in.
    """

    url: str
    season: int
    submission: int
    author: str


def new_season(store: Store, rule: ScoringRule) -> int:
    plan = SeasonPlan("autumn", HPARAMS_SHA256, "qwen3-30b-a3b", 2, HARDWARE, rule)
    return open_season(store, plan)


def fill(store: Store, url: str, evaluations: int) -> Large:
    """Write a season of so many evaluations: the tables, and the events of those that are whole."""
    season = new_season(store, ScoringRule(pairs=0))
    now = store.now()
    whole = np.linspace(1, evaluations, min(WHOLE, evaluations)).astype(int).tolist()
    connection = sqlite3.connect(url.removeprefix("sqlite:///"))
    for setting in ("synchronous=OFF", "cache_size=-200000"):
        connection.execute(f"PRAGMA {setting}")
    with connection, later_indexed(connection):
        numbers = range(1, AUTHORS + 1)
        names = [author_name(number) for number in numbers]
        insert(connection, Author, id=numbers, name=names, added_at=now, last_started_at=now)
        draw = np.random.default_rng(11)
        for first in range(1, evaluations + 1, BLOCK):
            numbers = range(first, min(first + BLOCK, evaluations + 1))
            fill_block(connection, draw, season, numbers, now - SEASON_SECONDS, evaluations)
        fill_whole(connection, season, whole, now)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    with store.read() as session:
        good = select(Submission).where(
            Submission.id.in_(whole), Submission.verdict == "accepted", Submission.state == "judged"
        )
        shown = session.scalars(good.order_by(Submission.id.desc()).limit(1)).one()
        return Large(url, season, shown.id, author_name(shown.author_id))


@contextmanager
def later_indexed(connection: sqlite3.Connection) -> Iterator[None]:
    """Indexes are made when all rows are there, which takes a fraction of the time."""
    indexes = connection.execute(
        "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
    ).fetchall()
    for name, _ in indexes:
        connection.execute(f"DROP INDEX {name}")
    yield
    for _, statement in indexes:
        connection.execute(statement)


def author_name(number: int) -> str:
    return f"author-{number:04}"


def fill_block(
    connection: sqlite3.Connection,
    draw: np.random.Generator,
    season: int,
    numbers: range,
    begins: float,
    of: int,
) -> None:
    """Submissions with one finished evaluation each; both have the same number."""
    count = len(numbers)
    share = np.arange(numbers.start, numbers.stop) / (of + 1)
    at = begins + share * SEASON_SECONDS
    author = draw.integers(1, AUTHORS + 1, count)
    verdict = draw.choice(["accepted", "rejected", "error"], count, p=[0.72, 0.25, 0.03])
    accepted, error = verdict == "accepted", verdict == "error"
    state = draw.choice(["judged", "held", "invalidated"], count, p=[0.98, 0.01, 0.01])
    state = np.where(error, "failed", np.where(accepted, state, "judged"))
    # One in twenty is a copy of some earlier program.
    original = np.arange(numbers.start, numbers.stop)
    copies = draw.random(count) < 0.05
    original[copies] = draw.integers(1, original[copies] + 1)
    # Everybody gets better during a season, and the best of them ever more rarely.
    level = 0.15 + 0.3 * np.sqrt(share) + 0.03 * draw.normal(size=count)
    mfus = np.clip(level[:, None] * (1 + 0.005 * draw.normal(size=(count, 3))), 0.01, 0.9)
    blobs = mfus.astype("<f8").tobytes()
    code = np.where(accepted, "ok", np.where(error, "worker_failed", "update_mismatch"))
    away = draw.random(count) < 0.02
    isolation = draw.choice(["docker", "bubblewrap", "user"], count, p=[0.68, 0.3, 0.02])
    words = {
        "accepted": "accepted: the update is that of the reference",
        "rejected": "update_error is 0.31, and at most 0.016 is allowed: is a step left out?",
        "error": "rank 1 failed before the file was loaded",
    }
    insert(
        connection,
        Submission,
        id=numbers,
        season_id=season,
        author_id=author.tolist(),
        file_name="train.py",
        note="",
        source_sha256=[digest("source", number) for number in numbers],
        program=[digest("program", number) for number in original.tolist()],
        strategy=draw.choice(STRATEGIES, count).tolist(),
        world_size=2,
        at=at.tolist(),
        state=state.tolist(),
        state_why="",
        verdict=verdict.tolist(),
    )
    insert(
        connection,
        Evaluation,
        id=numbers,
        submission_id=numbers,
        state=np.where(error, "abandoned", "finished").tolist(),
        why="submitted",
        queued_at=at.tolist(),
        starts=1,
        started_at=(at + 60).tolist(),
        finished_at=(at + 360).tolist(),
        worker="judge-1:4026531836:12345:678901",
        machine="5d1c2c0e-8f6b-4a3f-9f1e-2f6f0a7c9b11",
        verdict=verdict.tolist(),
        code=code.tolist(),
        message=[words[each] for each in verdict.tolist()],
        isolation=isolation.tolist(),
        hardware=np.where(away, "8 x NVIDIA A100-SXM4-80GB", HARDWARE).tolist(),
        run_mfus=[
            blobs[24 * place : 24 * place + 24] if good else b""
            for place, good in enumerate(accepted.tolist())
        ],
        failed_runs=(verdict == "rejected").astype(int).tolist(),
        tokens_per_second=[100_000.0 if good else None for good in accepted.tolist()],
        seconds=300.0,
        result_sha256=[digest("result", number) for number in numbers],
        progress="",
    )


def fill_whole(connection: sqlite3.Connection, season: int, numbers: list[int], now: float) -> None:
    """Sources, result documents and histories."""
    text = (ROOT / "submissions" / "train_ddp.py").read_text(encoding="utf-8")
    insert(
        connection,
        Source,
        sha256=[digest("source", number) for number in numbers],
        content=[f"{text}\n# {number}\n".encode() for number in numbers],
        shingles=[os.urandom(2_048) for _ in numbers],
    )
    insert(
        connection,
        Document,
        sha256=[digest("result", number) for number in numbers],
        compressed=[
            zlib.compress(example(number).model_dump_json().encode()) for number in numbers
        ],
    )
    told = [(number, each) for number in numbers for each in history(number, season)]
    insert(
        connection,
        EventRow,
        id=range(2, len(told) + 2),
        at=now,
        kind=[event.kind for _, event in told],
        submission=[number for number, _ in told],
        evaluation=[getattr(event, "evaluation", None) for _, event in told],
        body=[event.model_dump_json() for _, event in told],
    )


def history(number: int, season: int) -> Iterator[ev.EventBody]:
    yield ev.Submitted(
        submission=number,
        season=season,
        author=1,
        file_name="train.py",
        note="",
        source_sha256=digest("source", number),
        program=digest("program", number),
        strategy="dp 2",
        world_size=2,
    )
    yield ev.EvaluationQueued(evaluation=number, submission=number, why="submitted")
    yield ev.EvaluationStarted(evaluation=number, worker="judge-1", machine="machine-1")
    yield ev.EvaluationFinished(
        evaluation=number,
        worker="judge-1",
        verdict=Verdict.ACCEPTED,
        code=Code.OK,
        message="accepted",
        result_sha256=digest("result", number),
        isolation="docker",
        hardware=HARDWARE,
        run_mfus=(0.4, 0.41, 0.42),
        failed_runs=0,
        tokens_per_second=100_000.0,
        seconds=300.0,
    )


def digest(what: str, number: int) -> str:
    return hashlib.sha256(f"{what} {number}".encode()).hexdigest()


def insert(connection: sqlite3.Connection, table: type[Base], **columns: Any) -> None:
    """Rows from columns; what is no list is the same for all of them."""
    lists = [isinstance(each, list | range) for each in columns.values()]
    values = (
        each if many else itertools.repeat(each)
        for each, many in zip(columns.values(), lists, strict=True)
    )
    names, marks = ", ".join(columns), ", ".join("?" * len(columns))
    statement = f"INSERT INTO {table.__tablename__} ({names}) VALUES ({marks})"
    connection.executemany(statement, zip(*values, strict=False))


def example(number: int) -> EvaluationResult:
    """A result document of three runs, with a log of some length."""
    runs = tuple(
        RunResult(
            run=run,
            challenge_seed=f"{run:064x}",
            steps=6,
            tokens=6 * 524_288,
            seconds=62.9 + run,
            tokens_per_second=6 * 524_288 / (62.9 + run),
            mfu_active_params=0.4,
            mfu_matmul_flops=0.44,
            reported_losses=(7.4101, 7.4102),
            reported_memory_bytes=(61_203_283_968, 60_129_542_144),
            reference_loss=7.4099,
            step_weights=(1.001, 0.999, 1.004, 0.998, 1.0, 1.002),
            metrics=tuple(
                Metric(name=name, measured=0.3 * allowed, allowed=allowed)
                for name, allowed in (
                    ("loss", 0.0023), ("update_error", 0.016), ("tensor_update_error", 0.11),
                    ("slice_update_error", 0.082), ("norm_ratio", 0.001),
                    ("tensor_norm_ratio", 0.056), ("step_weight", 0.02),
                )
            ),
            findings=(),
        )
        for run in range(3)
    )  # fmt: skip
    return EvaluationResult(
        verdict=Verdict.ACCEPTED,
        code=Code.OK,
        message="accepted: the update is that of the reference",
        score=Score(
            mfu=0.4,
            basis="active_params",
            mfu_active_params=0.4,
            mfu_matmul_flops=0.44,
            tokens_per_second=50_000.0,
            total_params=30_500_000_000,
            active_params=3_300_000_000,
            flops_per_token=19_800_000_000.0,
            formula_version="1",
            peak_tflops=989.4,
            peak_source="table",
        ),
        benchmark=Benchmark(
            name="qwen3-30b-a3b",
            hparams_sha256=HPARAMS_SHA256,
            model_sha256="a" * 64,
            data_sha256="b" * 64,
            calibrated=True,
        ),
        submission=SubmissionRecord(name="train.py", sha256="c" * 64, strategy={"dp_size": 2}),
        isolation="docker",
        world_size=2,
        machine=Machine(
            platform="Linux 6.1.0",
            cores=16,
            device="cuda",
            devices=("NVIDIA H100 80GB HBM3",) * 2,
            driver="560.35.03",
            trainjudge="0.1.0",
            python="3.11.2",
            torch="2.13.0",
            transformers="5.23.0",
        ),
        runs=runs,
        phases=tuple(
            Phase(name=name, seconds=seconds)
            for name, seconds in (
                ("prepare", 2.1), ("load", 31.4), ("timed", 188.7), ("reference", 201.2),
                ("verify", 12.9),
            )
        ),
        warnings=(),
        started_at="2026-11-24T12:00:00+00:00",
        log="".join(f"step {step} of {number}: loss 7.{step:03}\n" for step in range(200)),
    )  # fmt: skip


# --- pages ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Server:
    """A `validator serve`."""

    pid: int
    port: int

    def get(self, path: str) -> "Took":
        """The time of one request, on a connection that is there already."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=START_SECONDS)
        connection.connect()
        wall, cpu = time.perf_counter(), cpu_seconds(self.pid)
        connection.request("GET", path)
        answer = connection.getresponse()
        size = len(answer.read())
        took = Took(time.perf_counter() - wall, cpu_seconds(self.pid) - cpu, size)
        connection.close()
        if answer.status != 200:
            raise SystemExit(f"GET {path}: status {answer.status}")
        return took


@dataclass(frozen=True)
class Took:
    """Wall and CPU seconds of one request, and the bytes of the answer."""

    wall: float
    cpu: float
    size: int

    def __str__(self) -> str:
        return f"{1000 * self.wall:.1f} ms ({1000 * self.cpu:.1f} CPU)"


@contextmanager
def serving(url: str, folder: Path) -> Iterator[Server]:
    log = folder / "server.log"
    command = [sys.executable, "-m", "harness.cli", "serve", "--store", url, "--data", str(folder)]
    with log.open("wb") as errors:
        child = subprocess.Popen([*command, "--port", "0"], stderr=errors, cwd=ROOT)
    try:
        end = time.monotonic() + START_SECONDS
        while "serving at" not in (said := log.read_text(encoding="utf-8")):
            if child.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"the server did not start: {said}")
            time.sleep(0.05)
        server = Server(child.pid, int(said.split("serving at ")[1].split()[0].rpartition(":")[2]))
        server.get("/healthz")
        yield server
    finally:
        child.terminate()
        child.wait()
        if "Traceback" in (said := log.read_text(encoding="utf-8")):
            print(f"the server said:\n{said[-2_000:]}", file=sys.stderr)


def pages(evaluations: int) -> None:
    with tempfile.TemporaryDirectory(prefix="trainjudge-measure-") as name:
        folder = Path(name)
        url = f"sqlite:///{folder / 'board.sqlite'}"
        store = open_store(url)
        began = time.perf_counter()
        large = fill(store, url, evaluations)
        seconds = time.perf_counter() - began
        size = sum(file.stat().st_size for file in folder.glob("board.sqlite*")) / 1e6
        print(f"{evaluations:,} evaluations of {AUTHORS:,} authors, {size:,.0f} MB, ", end="")
        print(f"made in {seconds:.1f} s\n", flush=True)
        head("what", "measured", "goal")
        rank_from_scratch(store, large.season)
        with serving(url, folder) as server:
            ask_for_pages(store, server, large)
        store.close()


def rank_from_scratch(store: Store, season: int) -> None:
    walls, cpus = [], []
    for _ in range(3):
        wall, cpu = time.perf_counter(), time.process_time()
        rank_season(store, season)
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    took = f"{statistics.median(walls):.2f} s ({statistics.median(cpus):.2f} CPU)"
    row("ranking from scratch, median of 3", took, RANK_GOAL)


def ask_for_pages(store: Store, server: Server, large: Large) -> None:
    wanted = {
        "the board": "/",
        "the board as JSON": "/api/v1/board",
        "an author": f"/authors/{large.author}",
        "a submission": f"/submissions/{large.submission}",
    }
    row("memory of the server before any ranking", f"{peak_mb(server.pid):.0f} MB", "")
    ranked = server.get("/api/v1/records")
    row("the server's first ranking", ranked, RANK_GOAL)
    row("peak memory of the server, ranked once", f"{peak_mb(server.pid):.0f} MB", MEMORY_GOAL)
    for name, path in wanted.items():
        first = server.get(path)
        row(f"{name}, first request, {first.size / 1000:.0f} kB", first, PAGE_GOAL)
        warm = [server.get(path) for _ in range(WARM_REQUESTS)]
        middle = sorted(warm, key=lambda took: took.wall)[len(warm) // 2]
        row(f"{name}, median of {WARM_REQUESTS}", middle, PAGE_GOAL)
    for name, path in wanted.items():
        something_happens(store, large)
        row(f"{name}, right after an event", server.get(path), PAGE_GOAL)
    # A server that ranks behind its pages does not begin at once again.
    time.sleep(3 * ranked.wall)
    something_happens(store, large)
    end = time.monotonic() + ranked.wall
    meanwhile = []
    for path in itertools.cycle(wanted.values()):
        meanwhile.append(server.get(path).wall)
        if time.monotonic() > end:
            break
    median, slowest = 1000 * statistics.median(meanwhile), 1000 * max(meanwhile)
    what = f"{len(meanwhile)} requests while it ranks anew, median and slowest"
    row(what, f"{median:.1f} ms, {slowest:.1f} ms", PAGE_GOAL)
    time.sleep(ranked.wall)
    row("peak memory of the server in the end", f"{peak_mb(server.pid):.0f} MB", MEMORY_GOAL)


def something_happens(store: Store, large: Large) -> None:
    with store.write() as writer:
        writer.append(ev.AlarmRaised(submission=large.submission, text="something happened"))


# --- workers ----------------------------------------------------------------------------------


def be_worker(url: str, judge: tuple[str, ...], lock: str) -> None:
    """Work as `validator worker` does, until SIGTERM."""
    stop = Stop(grace_seconds=60)
    signal.signal(signal.SIGTERM, lambda number, frame: stop.request())
    job = Job(ROOT / "hparams.json", HPARAMS_SHA256, judge=judge, lock=lock)
    work(open_store(url), job, stop, lambda line: None)


@contextmanager
def working(store: Store, url: str, judge: tuple[str, ...]) -> Iterator[BaseProcess]:
    """A worker in a process of its own, from its first word on."""
    # The tests may be timing on this machine; nothing here is timed against them.
    lock = f"\0trainjudge-measure-{os.getpid()}"
    process = multiprocessing.get_context("spawn").Process(
        target=be_worker, args=(url, judge, lock)
    )
    process.start()
    try:
        end = time.monotonic() + START_SECONDS
        while not count(store, Worker):
            if not process.is_alive() or time.monotonic() > end:
                raise SystemExit("the worker did not start")
            time.sleep(0.05)
        yield process
    finally:
        process.terminate()
        process.join()


def count(store: Store, table: type[Base]) -> int:
    with store.read() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


def idle_worker(seconds: float, evaluations: int) -> None:
    with tempfile.TemporaryDirectory(prefix="trainjudge-measure-") as name:
        url = f"sqlite:///{Path(name) / 'board.sqlite'}"
        store = open_store(url)
        if evaluations:
            fill(store, url, evaluations)
        else:
            new_season(store, ScoringRule())
        with working(store, url, ("false",)) as worker:
            pid = worker.pid
            assert pid is not None
            time.sleep(3)  # what it imports and reads once
            wall, cpu = time.perf_counter(), cpu_seconds(pid)
            time.sleep(seconds)
            share = (cpu_seconds(pid) - cpu) / (time.perf_counter() - wall)
            head("what", "measured", "goal")
            row(
                f"idle worker, {evaluations:,} evaluations, {seconds:.0f} s",
                f"{share:.2%} of a core",
                "1 %",
            )
            row("its peak memory", f"{peak_mb(pid):.0f} MB", "")
        store.close()


# --- uploads ----------------------------------------------------------------------------------


@dataclass
class Sent:
    """What came of the uploads.

    Attributes:
        taken: numbers of submissions that the server gave, by the number of the file.
        refused: other answers, and how often.
        seconds: from sending to the answer, of those that were taken.
    """

    taken: dict[int, int] = field(default_factory=dict)
    refused: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)


def train_file(number: int) -> bytes:
    return TRAIN_FILE.format(number=number).encode()


def uploads(rate: float, seconds: float, clients: int) -> None:
    with tempfile.TemporaryDirectory(prefix="trainjudge-measure-") as name:
        folder = Path(name)
        url = f"sqlite:///{folder / 'board.sqlite'}"
        store = open_store(url)
        new_season(store, ScoringRule(submissions_per_day=100_000))
        keys = [add_author(store, author_name(number)) for number in range(UPLOADERS)]
        document, marks = folder / "result.json", folder / "judged"
        document.write_text(example(0).model_dump_json(), encoding="utf-8")
        marks.touch()
        judge = (sys.executable, "-I", "-S", "-c", STANDIN, str(document), str(marks))
        with working(store, url, judge), serving(url, folder) as server:
            before = psutil.Process(server.pid).cpu_times()
            began = time.monotonic()
            sent = send(server.port, keys, rate, seconds, clients)
            took = time.monotonic() - began
            cpu = psutil.Process(server.pid).cpu_times()
            peak = peak_mb(server.pid)
        offered = round(rate * seconds)
        tries = len(sent.taken) + sum(sent.refused.values())
        own = (cpu.user + cpu.system) - (before.user + before.system)
        children = (cpu.children_user + cpu.children_system) - (
            before.children_user + before.children_system
        )
        head("what", "measured", "goal")
        row("files sent, of those that were due", f"{tries:,} of {offered:,}", f"{offered:,}")
        row("taken by the server", f"{len(sent.taken):,}, {len(sent.taken) / took:.1f} a second",
            f"{rate:g} a second")  # fmt: skip
        row("answered otherwise", dict(sent.refused) or 0, 0)
        tell_kept(store, sent, Counter(marks.read_text(encoding="utf-8").splitlines()))
        if sent.seconds:
            low, high = np.quantile(sent.seconds, (0.5, 0.99))
            row("time to the answer, median and p99", f"{low:.3f} s, {high:.3f} s", "")
        each = 1000 / max(1, len(sent.taken))
        row("CPU of one upload: server, its children",
            f"{own * each:.1f} ms, {children * each:.1f} ms", "")  # fmt: skip
        row("peak memory of the server", f"{peak:.0f} MB", MEMORY_GOAL)
        store.close()


def tell_kept(store: Store, sent: Sent, judged: Mapping[str, int]) -> None:
    """Is everything there that was taken, as it was sent, and once?"""
    with store.read() as session:
        rows = session.execute(
            select(Submission.id, Source.content).join(
                Source, Source.sha256 == Submission.source_sha256
            )
        ).all()
        kept = {number: bytes(content) for number, content in rows}
        finished = session.scalars(
            select(EventRow.evaluation).where(EventRow.kind == "evaluation_finished")
        ).all()
    lost = sum(kept.get(number) != train_file(file) for file, number in sent.taken.items())
    unasked = len(kept.keys() - set(sent.taken.values()))
    same = len(sent.taken) - len(set(sent.taken.values()))
    row("in the store", f"{len(kept):,}", f"{len(sent.taken):,}")
    row("taken, and not in the store as they were sent", lost, 0)
    row("in the store, and the sender does not know", unasked, 0)
    row("two files with one number", same, 0)
    row("judged meanwhile: judge, events", f"{len(judged)}, {len(finished)}", "")
    row("judged twice: judge, events", f"{twice(judged)}, {twice(Counter(finished))}", "0, 0")


def twice(counts: Mapping[Any, int]) -> int:
    return sum(number > 1 for number in counts.values())


def send(port: int, keys: list[str], rate: float, seconds: float, clients: int) -> Sent:
    """Upload at a rate, from several threads, each with a connection of its own."""
    sent, lock, turn = Sent(), threading.Lock(), itertools.count()
    began = time.monotonic()

    def client() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=START_SECONDS)
        while True:
            with lock:
                number = next(turn)
            due = began + number / rate
            if number >= rate * seconds or time.monotonic() > began + seconds:
                break
            time.sleep(max(0.0, due - time.monotonic()))
            key, started = keys[number % len(keys)], time.monotonic()
            try:
                connection.request(
                    "POST",
                    "/api/v1/submissions?name=train.py",
                    train_file(number),
                    {"Authorization": f"Bearer {key}", "Content-Type": "text/x-python"},
                )
                answer = connection.getresponse()
                said = json.loads(answer.read())
            except (OSError, http.client.HTTPException, ValueError) as error:
                connection.close()
                with lock:
                    sent.refused[type(error).__name__] += 1
                continue
            with lock:
                if answer.status == 201:
                    sent.taken[number] = said["id"]
                    sent.seconds.append(time.monotonic() - started)
                else:
                    sent.refused[f"{answer.status} {said['code']}"] += 1
        connection.close()

    run_all(threading.Thread(target=client) for _ in range(clients))
    return sent


def run_all(threads: Iterable[threading.Thread]) -> None:
    started = list(threads)
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("pages", help="ranking, pages and memory of a large board")
    one.add_argument("--evaluations", type=int, default=1_000_000)
    one = commands.add_parser("uploads", help="many files at once, beside a worker")
    one.add_argument("--rate", type=float, default=200.0, help="files a second; default: 200")
    one.add_argument("--seconds", type=float, default=60.0, help="default: 60")
    one.add_argument("--clients", type=int, default=64, help="connections; default: 64")
    one = commands.add_parser("idle-worker", help="a worker that nothing waits for")
    one.add_argument("--seconds", type=float, default=30.0, help="default: 30")
    one.add_argument("--evaluations", type=int, default=0, help="of its season; default: none")
    options = parser.parse_args()
    if options.command == "pages":
        pages(options.evaluations)
    elif options.command == "uploads":
        uploads(options.rate, options.seconds, options.clients)
    else:
        idle_worker(options.seconds, options.evaluations)


if __name__ == "__main__":
    main()
