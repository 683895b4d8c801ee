"""What a kept evaluation needs besides its files, so that it can be judged again without training.

A kept folder (`validator run --keep`) is the work folder as it was: the train file and the challenges in
`inbox`, the opened states in `outbox`, what the reference made in `reference`; and here, in `private`,
what the judge itself saw: its clock readings, the ranks' claims and commitments, the keys. The result
document lies at its root.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, TypeVar

import msgspec
from pydantic import ValidationError

from harness.benchmark import challenge as challenges
from harness.benchmark.hparams import Hparams
from harness.benchmark.snapshot import Snapshot
from harness.errors import Code, InputError
from harness.opening.plan import OpeningPlan, Source
from harness.protocol.messages import Commitment, Done, Message
from harness.records import Record
from harness.reference.outcome import RunFolders
from harness.result import EvaluationResult
from harness.score.peaks import Peak
from harness.score.peaks import Source as PeakSource
from harness.timed.delay import NodeDelay
from harness.timed.run import TRAIN_FILE, TimedRun

M = TypeVar("M", bound=Message)
RUNS: Final = "runs.json"
RESULT: Final = "result.json"
BANKED: Final = "banked"


def banked_place(root: Path, run: int) -> Path:
    """Where a kept evaluation has what a run took from the bank."""
    return root / BANKED / str(run)


class KeptRun(Record):
    """A `TimedRun`; its challenge follows from the seed, a version names (rank, index) of pieces."""

    seed: str
    seconds: float
    commitment_seconds: float
    claims: tuple[str, ...]  # the messages as they were sent, as are commitments
    commitments: tuple[str, ...]
    key: str
    orders: tuple[tuple[int, ...], ...]
    versions: tuple[dict[str, tuple[tuple[int, int], ...]], ...]
    peak_memory: tuple[int, ...]
    delays: tuple[NodeDelay, ...] = ()


class KeptRuns(Record):
    """All runs of an evaluation, and the peak that its MFU is a share of."""

    runs: tuple[KeptRun, ...]
    peak_tflops: float
    peak_source: PeakSource
    peak_device: str


class KeptFolder:
    """A folder that `--keep` made. Raises InputError(BAD_ARGUMENT) for any other."""

    def __init__(self, root: Path) -> None:
        self.outbox = root / "outbox"
        self._root, self._reference = root, root / "reference"
        self.train_file = root / "inbox" / TRAIN_FILE
        try:
            self._runs = KeptRuns.model_validate_json((root / "private" / RUNS).read_bytes())
            self.result = EvaluationResult.model_validate_json((root / RESULT).read_bytes())
        except OSError as error:
            raise InputError(
                Code.BAD_ARGUMENT,
                f"{root} holds no evaluation that was kept to its end: {error.strerror} "
                f"({error.filename})",
            ) from None
        except ValidationError as error:
            raise InputError(
                Code.BAD_ARGUMENT, f"{root} was kept by another version: {error.errors()[0]['msg']}"
            ) from None

    @property
    def peak(self) -> Peak:
        """Of one device, as the evaluation was scored with."""
        kept = self._runs
        return Peak(kept.peak_tflops, kept.peak_source, kept.peak_device)

    def reference_of(self, run: int) -> RunFolders:
        """Where a run's reference lies: it was trained for the evaluation, or came from the bank."""
        launched = RunFolders.of_launch(self._reference, run)
        banked = banked_place(self._root, run)
        if not banked.is_dir():
            return launched
        return replace(RunFolders.of_entry(banked), submitted=launched.submitted)

    def timed_runs(self, snapshot: Snapshot, hparams: Hparams) -> list[TimedRun]:
        """The runs as they were timed, with their challenges drawn again."""
        corpus = snapshot.tokens()
        return [
            TimedRun(
                challenge=challenges.draw(corpus, hparams, run.seed),
                seconds=run.seconds,
                commitment_seconds=run.commitment_seconds,
                claims=tuple(_read(Done, each) for each in run.claims),
                commitments=tuple(_read(Commitment, each) for each in run.commitments),
                key=bytes.fromhex(run.key),
                plan=OpeningPlan(
                    orders=run.orders,
                    versions=tuple(
                        {
                            name: tuple(Source(*each) for each in found)
                            for name, found in each.items()
                        }
                        for each in run.versions
                    ),
                ),
                peak_memory=run.peak_memory,
                delays=run.delays,
            )
            for run in self._runs.runs
        ]


def _write(message: Message) -> str:
    return msgspec.json.encode(message).decode()


def _read(kind: type[M], message: str) -> M:
    return msgspec.json.decode(message, type=kind)


def write_kept(private: Path, timed_runs: Sequence[TimedRun], peak: Peak) -> None:
    """Into the judge's own folder of an evaluation that will be kept."""
    kept = KeptRuns(
        runs=tuple(
            KeptRun(
                seed=run.challenge.seed,
                seconds=run.seconds,
                commitment_seconds=run.commitment_seconds,
                claims=tuple(_write(each) for each in run.claims),
                commitments=tuple(_write(each) for each in run.commitments),
                key=run.key.hex(),
                orders=run.plan.orders,
                versions=tuple(
                    {
                        name: tuple((source.rank, source.index) for source in sources)
                        for name, sources in version.items()
                    }
                    for version in run.plan.versions
                ),
                peak_memory=run.peak_memory,
                delays=run.delays,
            )
            for run in timed_runs
        ),
        peak_tflops=peak.tflops,
        peak_source=peak.source,
        peak_device=peak.device,
    )
    (private / RUNS).write_text(kept.model_dump_json(), encoding="utf-8")


def write_result(folder: Path, result: EvaluationResult) -> None:
    """The result, at the root of a kept folder."""
    (folder / RESULT).write_text(result.model_dump_json(indent=2) + "\n", encoding="utf-8")
