"""What a worker costs that nothing waits for."""

import tempfile
import time
from pathlib import Path

from harness.board.rule import ScoringRule
from harness.board.store import open_store
from measurements.board.large import fill, new_season
from measurements.board.serving import working
from measurements.board.tables import cpu_seconds, head, peak_mb, row


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
