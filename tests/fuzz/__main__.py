"""Fuzz the targets, two at a time, and show what came of it: `make fuzz`, or

python -m tests.fuzz --seconds 600 messages shards
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from tests.fuzz.targets import FINDS, TARGETS
from tests.project import ROOT

#: The judge's own promise, whatever it is fed; with the interpreter and all that it has imported.
MOST_MIB: Final = 1024
#: Of one input, seconds.
LONGEST: Final = 10
AT_ONCE: Final = 2
MEMORY: Final = "/dev/shm"


@dataclass(frozen=True)
class Outcome:
    """Attributes:
    executions: inputs that were fed.
    peak_mib: the process at its largest.
    find: the input that a defect was found with, or None.
    said: the end of what the process said.
    """

    target: str
    executions: int
    peak_mib: int
    find: Path | None
    said: str

    @property
    def failed(self) -> bool:
        return self.find is not None or not self.executions


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("targets", nargs="*", choices=[*TARGETS, []], metavar="TARGET")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    given = parser.parse_args()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        outcomes = list(
            pool.map(lambda name: fuzz(name, given.seconds), given.targets or list(TARGETS))
        )
    show(outcomes, Console())
    return 1 if any(outcome.failed for outcome in outcomes) else 0


def fuzz(name: str, seconds: int) -> Outcome:
    """Feed one target for some time, in a process of its own."""
    target = TARGETS[name]
    with tempfile.TemporaryDirectory(prefix="trainjudge-fuzz-", dir=MEMORY) as folder:
        corpus, found = Path(folder, "corpus"), Path(folder, "found")
        corpus.mkdir()
        found.mkdir()
        known = sorted((FINDS / name).glob("*"))
        for number, seed in enumerate([*target.seeds(), *(path.read_bytes() for path in known)]):
            (corpus / f"{number:03}").write_bytes(seed)
        words = Path(folder, "words")
        words.write_text("".join(f'"{_escaped(word)}"\n' for word in target.words or (name,)))
        argv = [sys.executable, "-m", "tests.fuzz.feed", name, str(corpus)]
        argv += [f"-dict={words}", f"-artifact_prefix={found}/", f"-max_total_time={seconds}"]
        argv += [f"-rss_limit_mb={MOST_MIB}", f"-timeout={LONGEST}", "-max_len=32768"]
        argv += ["-print_final_stats=1"]
        # libFuzzer ends the process without Python's own clearing up, so that is done here.
        environment = os.environ | {"TMPDIR": folder}
        done = subprocess.run(
            argv, cwd=ROOT, env=environment, capture_output=True, text=True, errors="replace"
        )
        said = done.stdout + done.stderr
        finds = sorted(found.iterdir())
        return Outcome(
            target=name,
            executions=_figure(said, "number_of_executed_units"),
            peak_mib=_figure(said, "peak_rss_mb"),
            find=_kept(name, finds[0]) if finds else None,
            said=_telling(said),
        )


def _kept(name: str, find: Path) -> Path:
    """Where the find lies from now on; the test of finds fails until it is mended."""
    kept = FINDS / name / find.name[:24]
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_bytes(find.read_bytes())
    return kept


def _telling(said: str) -> str:
    """Without the log of what was tried."""
    lines = [line for line in said.splitlines() if not re.match(r"#\d|INFO|WARNING|stat::", line)]
    return "\n".join(lines[-60:])


def _figure(said: str, what: str) -> int:
    found = re.search(rf"stat::{what}:\s+(\d+)", said)
    return int(found[1]) if found else 0


def _escaped(word: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word.encode())


def show(outcomes: list[Outcome], console: Console) -> None:
    """A row for each target, and what was said where something was found."""
    table = Table(title="what was fed to the judge", title_justify="left")
    for column in ("target", "inputs", "peak MiB", "found"):
        table.add_column(column, justify="left" if column in ("target", "found") else "right")
    for outcome in outcomes:
        find = "nothing" if outcome.find is None else str(outcome.find.relative_to(ROOT))
        found = find if outcome.executions or outcome.find else "it did not run"
        table.add_row(outcome.target, f"{outcome.executions:,}", f"{outcome.peak_mib:,}", found)
    console.print(table)
    for outcome in outcomes:
        if outcome.failed:
            console.print(f"{outcome.target}:\n{outcome.said}", markup=False, highlight=False)


if __name__ == "__main__":
    sys.exit(main())
