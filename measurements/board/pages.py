"""What pages, ranking and memory cost in a season with very many evaluations."""

import itertools
import statistics
import tempfile
import time
from pathlib import Path
from typing import Final

from harness.board import events as ev
from harness.board.leaderboard import rank_season
from harness.board.store import Store, open_store
from measurements.board.large import AUTHORS, Large, fill
from measurements.board.serving import Server, serving
from measurements.board.tables import (
    MEMORY_GOAL,
    PAGE_GOAL,
    RANK_GOAL,
    head,
    peak_mb,
    resident_mb,
    row,
)

WARM_REQUESTS: Final = 20


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
    used = f"{peak_mb(server.pid):.0f}, {resident_mb(server.pid):.0f} MB"
    row("memory of the server in the end: peak, what it keeps", used, MEMORY_GOAL)


def something_happens(store: Store, large: Large) -> None:
    with store.write() as writer:
        writer.append(ev.AlarmRaised(submission=large.submission, text="something happened"))
