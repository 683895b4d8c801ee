"""One evaluation, from a train file to a result: the order of things, and whose fault what is.

Data flows one way: submission → challenge → sandbox → verify → score. Each room has its module; this
one only walks through them.
"""

import os
import traceback
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from harness import container, machine
from harness.errors import Code, InputError, JudgeError, SubmissionError, TrainjudgeError, Verdict
from harness.hparams import Hparams, LoadedHparams
from harness.machine import Machine
from harness.phases import PhaseName, Phases
from harness.reference_job import check_rows, default_variant
from harness.result import (
    Benchmark,
    EvaluationResult,
    Phase,
    RunResult,
    Score,
    SubmissionRecord,
)
from harness.sandbox import Level, Sandbox
from harness.sandbox.watch import printable
from harness.score import score
from harness.snapshot import Snapshot
from harness.strategy import AXES, Strategy
from harness.submission import Submission, read
from harness.trial import TrialSetup, conduct
from harness.verification import verify
from harness.verify.checks import Finding, Severity
from harness.workspace import Workspace, check_room

TELLING = (
    Code.STATE_INVALID,
    Code.UPDATE_MISMATCH,
    Code.LOSS_MISMATCH,
    Code.TOKENS_MISMATCH,
)


@dataclass(frozen=True)
class Options:
    """What the caller chose. None means: as the benchmark says.

    Attributes:
        world_size: ranks.
        runs: timed runs.
        keep: folder that gets everything the evaluation made; it must not exist.
    """

    world_size: int | None = None
    runs: int | None = None
    keep: Path | None = None


@dataclass
class _Draft:
    """What is known so far; a result can be made of it at any moment."""

    loaded: LoadedHparams
    snapshot: Snapshot
    name: str
    sandbox: Sandbox
    world_size: int
    phases: Phases
    started_at: str
    warnings: list[str]
    submission: Submission | None = None
    machine: Machine | None = None
    runs: list[RunResult] = field(default_factory=list)
    score: Score | None = None
    log: list[str] = field(default_factory=list)

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
                sha256=submission.sha256 if submission else "",
                strategy=_axes(submission.strategy) if submission else {},
            ),
            isolation=self.sandbox.level.value,
            world_size=self.world_size,
            machine=self.machine,
            runs=tuple(self.runs),
            phases=tuple(
                Phase(name=name.value, seconds=round(seconds, 3))
                for name, seconds in self.phases.seconds.items()
            ),
            warnings=tuple(self.warnings),
            started_at=self.started_at,
            log="".join(self.log),
        )


def evaluate(
    file: Path,
    loaded: LoadedHparams,
    snapshot: Snapshot,
    sandbox: Sandbox,
    options: Options,
    phases: Phases,
) -> EvaluationResult:
    """Judge one train file.

    Returns:
        The result, whatever the submission does: `rejected` is its fault, `error` is ours.

    Raises:
        InputError: the caller asked for something that this benchmark or machine cannot do.
    """
    hparams = loaded.hparams
    draft = _Draft(
        loaded=loaded,
        snapshot=snapshot,
        name=printable(os.fsencode(file.name)),
        sandbox=sandbox,
        world_size=options.world_size or hparams.world.size,
        phases=phases,
        started_at=datetime.now(UTC).isoformat(timespec="seconds"),
        warnings=warnings(hparams, options, sandbox.level),
    )
    try:
        _judge(file, draft, sandbox, options)
    except SubmissionError as error:
        return _ended(draft, Verdict.REJECTED, error)
    except JudgeError as error:
        return _ended(draft, Verdict.ERROR, error)
    except InputError:
        raise
    except OSError as error:
        failed_machine = JudgeError(
            Code.INTERNAL,
            f"this machine failed ({error.strerror or error}); is its disk full?",
            traceback.format_exc(),
        )
        return _ended(draft, Verdict.ERROR, failed_machine)
    except Exception as error:
        defect = JudgeError(
            Code.INTERNAL,
            f"a defect of the judge ({type(error).__name__}); please report it",
            traceback.format_exc(),
        )
        return _ended(draft, Verdict.ERROR, defect)
    failed = _rejection(draft.runs)
    if failed is not None:
        run, finding = failed
        where = f"run {run.run + 1}: " if len(draft.runs) > 1 else ""
        return draft.result(Verdict.REJECTED, finding.code, where + finding.message)
    return draft.result(
        Verdict.ACCEPTED, Code.OK, "the loss and the update agree with the trusted reference"
    )


def _rejection(runs: list[RunResult]) -> tuple[RunResult, Finding] | None:
    """The finding that says most: wrong weights explain a wrong loss, and not the other way round."""
    rejecting = [
        (run, finding)
        for run in runs
        for finding in run.findings
        if finding.severity is Severity.REJECTS
    ]
    return min(rejecting, key=lambda pair: TELLING.index(pair[1].code), default=None)


def _axes(strategy: Strategy) -> dict[str, int | bool]:
    sizes: dict[str, int | bool] = {axis: getattr(strategy, axis) for axis in AXES}
    return {**sizes, "ep_borrows_dp": strategy.ep_borrows_dp}


def _ended(draft: _Draft, verdict: Verdict, error: TrainjudgeError) -> EvaluationResult:
    return draft.result(verdict, error.code, error.message, error.detail)


def warnings(hparams: Hparams, options: Options, level: Level) -> list[str]:
    """What a reader of the result must know before comparing it with another."""
    found = []
    if hparams.verify.calibration is None:
        found.append("this benchmark is not calibrated: its tolerances were not measured")
    elif not hparams.calibrated:
        found.append(
            "the benchmark changed since it was calibrated: run `validator calibrate` again"
        )
    if level is Level.NONE:
        found.append("no isolation: the train file ran as the judge's user; not for a leaderboard")
    if level in (Level.USER, Level.NONE):
        found += container.exposure()
    if options.world_size not in (None, hparams.world.size):
        found.append(f"--world {options.world_size} is not the benchmark's {hparams.world.size}")
    if options.runs is not None and options.runs < hparams.evaluation_runs:
        found.append(f"--runs {options.runs} is fewer than the benchmark's")
    if not hparams.binding_hash:
        found.append(
            "no binding hash: whoever knows the key can finish the weights after the clock has stopped "
            "(docs/protocol.md)"
        )
    if hparams.numerics.param_dtype == "bfloat16":
        found.append(
            "bfloat16 masters: much of an update is below one unit in the last place, so the "
            "tolerances are several times looser and real bugs can pass"
        )
    return found


def _judge(file: Path, draft: _Draft, sandbox: Sandbox, options: Options) -> None:
    """All rooms in order; fills the draft."""
    from harness.flops import count_parameters, load_config
    from harness.peaks import find_peak

    hparams, phases, world_size = draft.loaded.hparams, draft.phases, draft.world_size
    phases.enter(PhaseName.PREPARE)
    draft.submission = submission = read(file, world_size)
    submission.strategy.check_batch(hparams.global_batch)
    check_rows(hparams, default_variant(hparams, world_size))
    device = machine.pick_device(hparams.world.device, world_size)
    draft.machine = machine.describe(device, world_size)
    # A CPU's peak is measured, so before anything else keeps the machine busy.
    peak = find_peak(
        draft.machine.devices[0] if device == "cuda" else "cpu",
        hparams.mfu.peak_tflops,
        machine.threads_per_rank(world_size),
    )
    if peak.source == "measured":
        draft.warnings.append(
            "MFU is against a peak measured on this CPU: compare it on this machine only"
        )
    setup = TrialSetup(
        submission=submission,
        hparams=hparams,
        snapshot=draft.snapshot,
        sandbox=sandbox,
        world_size=world_size,
        device=device,
        runs=options.runs or hparams.evaluation_runs,
    )
    check_room(hparams.limits.outbox_bytes + setup.runs * draft.snapshot.state_bytes)
    with Workspace(options.keep) as workspace:
        trials = conduct(setup, workspace, phases, draft.log)
        draft.runs = verify(setup, trials, workspace, phases)
    if _rejection(draft.runs) is None:
        phases.enter(PhaseName.SCORE)
        parameters = count_parameters(load_config(str(draft.snapshot.model_dir)))
        draft.score, draft.runs = score(draft.runs, hparams, parameters, peak, world_size)
