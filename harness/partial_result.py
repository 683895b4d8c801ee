"""What an evaluation knows so far: a result document can be made of it at any moment."""

from dataclasses import dataclass, field

from harness.benchmark.hparams import LoadedHparams
from harness.benchmark.snapshot import Snapshot
from harness.errors import Code, TrainjudgeError, Verdict
from harness.last_words import last_words
from harness.machine import Machine
from harness.phases import Phases
from harness.result import (
    Benchmark,
    EvaluationResult,
    Phase,
    RunResult,
    Score,
    SubmissionRecord,
)
from harness.sandbox import Level, Sandbox
from harness.submission.read import Submission
from harness.submission.strategy import AXES, Strategy
from harness.timed.observed import Observed


@dataclass
class PartialResult:
    """Filled in room by room; `result` and `failed` end it."""

    loaded: LoadedHparams
    snapshot: Snapshot
    name: str
    sandbox: Sandbox
    isolation: Level
    world_size: int
    phases: Phases
    started_at: str
    warnings: list[str]
    sha256: str = ""
    submission: Submission | None = None
    machine: Machine | None = None
    runs: list[RunResult] = field(default_factory=list)
    score: Score | None = None
    observed: Observed = field(default_factory=Observed)

    def result(
        self, verdict: Verdict, code: Code, message: str, detail: str = ""
    ) -> EvaluationResult:
        self.phases.finish()
        hparams, submission = self.loaded.hparams, self.submission
        return EvaluationResult(
            verdict=verdict,
            code=code,
            message=message,
            detail=detail,
            score=self.score if verdict is Verdict.ACCEPTED else None,
            benchmark=Benchmark(
                name=hparams.name,
                hparams_sha256=self.loaded.sha256,
                model_sha256=self.snapshot.manifest.model_sha256,
                data_sha256=self.snapshot.manifest.data_sha256,
                image=self.sandbox.image.digest if self.sandbox.image else None,
                calibrated=hparams.calibrated,
            ),
            submission=SubmissionRecord(
                name=self.name,
                sha256=self.sha256,
                strategy=_axes(submission.strategy) if submission else {},
            ),
            isolation=self.isolation.value,
            world_size=self.world_size,
            machine=self.machine,
            runs=tuple(self.runs),
            phases=tuple(
                Phase(name=name.value, seconds=round(seconds, 3))
                for name, seconds in self.phases.seconds.items()
            ),
            warnings=tuple(self.warnings),
            started_at=self.started_at,
            not_ended=self.observed.not_ended,
            log="".join(self.observed.log),
        )

    def failed(self, verdict: Verdict, error: TrainjudgeError) -> EvaluationResult:
        """The result of an evaluation that an exception ended.

        A rank that died has said nothing of it to the judge, but perhaps to its log.
        """
        message, detail = error.message, error.detail
        if error.code is Code.RANK_EXITED and not detail:
            words = last_words("".join(self.observed.log))
            detail = words.quotation
            message += f"; its log says: {words.sentence}" if words.sentence else ""
        return self.result(verdict, error.code, message, detail)


def _axes(strategy: Strategy) -> dict[str, int | bool]:
    sizes: dict[str, int | bool] = {axis: getattr(strategy, axis) for axis in AXES}
    return {**sizes, "ep_borrows_dp": strategy.ep_borrows_dp}
