"""Many files at once, beside a worker; in the end every file that was taken is looked for."""

import http.client
import itertools
import json
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import psutil
from sqlalchemy import select

from harness.board.organise import add_author
from harness.board.rule import ScoringRule
from harness.board.store import Store, open_store
from harness.board.tables import (
    EventRow,
    Source,
    Submission,
)
from measurements.board.example import example
from measurements.board.large import author_name, new_season
from measurements.board.serving import START_SECONDS, serving, working
from measurements.board.tables import MEMORY_GOAL, head, peak_mb, row

UPLOADERS: Final = 200

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
