"""Make what an evaluation reads: model, tokenizer and packed corpus of a benchmark.

    python local_test/setup_benchmark.py [--hparams FILE_OR_NAME] [--snapshot FOLDER] [--token TOKEN]

Needs a network only for a benchmark of the hub (profiles/); afterwards everything is offline. It is
`validator preload`, followed by a look at what this machine offers.
"""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # so that it runs from a checkout that is not installed

from harness.installed import require_packages  # noqa: E402

require_packages()

from harness.benchmark.hparams import load_hparams  # noqa: E402
from harness.benchmark.preload import preload  # noqa: E402
from harness.benchmark.snapshot import Snapshot  # noqa: E402
from harness.errors import TrainjudgeError  # noqa: E402


def main() -> int:
    """Exit status 0; 2: something that you can set right; 3: hub, network or disk."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--hparams", type=Path, help="a file, or a name of `validator benchmarks`")
    parser.add_argument("--snapshot", type=Path, help="the snapshot's folder")
    parser.add_argument("--token", help="for gated repositories; better: HF_TOKEN")
    arguments = parser.parse_args()
    try:
        loaded = load_hparams(arguments.hparams)
        snapshot = preload(loaded, arguments.snapshot, arguments.token, progress=print)
    except TrainjudgeError as error:
        print(f"{error.code}: {error.message}\n{error.detail}".rstrip(), file=sys.stderr)
        return error.exit_status
    describe(snapshot)
    describe_machine()
    return 0


def describe(snapshot: Snapshot) -> None:
    manifest = snapshot.manifest
    print(f"benchmark   {manifest.name}")
    print(f"model       {manifest.model_source}  (sha256 {manifest.model_sha256[:12]})")
    print(f"corpus      {manifest.data_source}: {manifest.token_count:,} tokens")
    print(f"snapshot    {snapshot.directory}")


def describe_machine() -> None:
    """What a run here would have, as `validator doctor` says it."""
    from rich.console import Console

    from harness.host.doctor import examine, render

    Console().print(render(examine()))
    print("next        python local_test/simulate_validator.py submissions/train_ddp.py")


if __name__ == "__main__":
    sys.exit(main())
