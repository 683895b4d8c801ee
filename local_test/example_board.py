"""A whole leaderboard on this machine, with a few files that were really judged: `make board`.

The first start opens a season, adds two authors, hands in four files (one of them wrong) and judges
them, which takes a few minutes; later starts go on from there. Then it serves the pages, with a worker
beside them.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
EXAMPLES = (
    ("ada", "submissions/train_ddp.py", "plain data parallelism"),
    ("ada", "submissions/train_fsdp.py", "FSDP2"),
    ("grace", "submissions/train_ep.py", "expert parallelism"),
    ("grace", "tests/submissions/wrong/ddp_sum.py", "adds gradients up where it should average"),
)


def validator(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "harness.cli", *arguments], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=PROJECT / "results" / "board")
    parser.add_argument("--port", type=int, default=8000)
    options = parser.parse_args()
    os.environ["TRAINJUDGE_DATA"] = str(options.data)
    os.chdir(PROJECT)
    if not options.data.exists():
        validator("season", "new", "example")
        for author in ("ada", "grace"):
            validator("author", "add", author)
        for author, file, note in EXAMPLES:
            validator("submit", file, "--author", author, "--note", note)
        validator("worker", "--once")
    validator("serve", "--worker", "--port", str(options.port))


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as failed:
        sys.exit(failed.returncode)  # the command has said why
    except KeyboardInterrupt:
        sys.exit(130)
