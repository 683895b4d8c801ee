"""Judge a kept evaluation again: the same states and the same reference, by today's checks and tolerances.

Nothing is trained and nothing of a submission runs. What was timed stays as it was timed.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from harness.benchmark.hparams import LoadedHparams
from harness.benchmark.snapshot import Snapshot
from harness.conclusion import conclude
from harness.errors import Code, InputError, SubmissionError, Verdict
from harness.kept import KeptFolder
from harness.likely_cause import CHECK, rejects_update
from harness.phases import OnProgress
from harness.protocol.text import one_line
from harness.reference.outcome import ReferenceRun, RunFolders, read_run
from harness.result import EvaluationResult, RunResult
from harness.submission.read import read
from harness.verification import judge_runs, open_committed, together, truths_of, with_finding

OF_THE_FILES: Final = (Code.OUTBOX_INVALID, Code.COMMITMENT_BROKEN)


def rejudge(
    folder: Path, loaded: LoadedHparams, snapshot: Snapshot, progress: OnProgress
) -> EvaluationResult:
    """The result that the kept evaluation has today.

    Args:
        folder: made by `validator run --keep`, of an evaluation that came to its verification.
        loaded: the same benchmark; its tolerances may be others by now.
        snapshot: of that benchmark.
        progress: told what is going on.

    Raises InputError(BAD_ARGUMENT): no such folder, one of another model or data, or changed files.
    """
    kept = KeptFolder(folder)
    benchmark, manifest = kept.result.benchmark, snapshot.manifest
    if (benchmark.model_sha256, benchmark.data_sha256) != (
        manifest.model_sha256,
        manifest.data_sha256,
    ):
        raise InputError(
            Code.BAD_ARGUMENT, f"{folder} was judged with another model or other data than these"
        )
    try:
        runs = _judge(kept, loaded, snapshot, progress)
    except SubmissionError as error:
        if error.code in OF_THE_FILES and error.code is not kept.result.code:
            # They were what was committed to when they were judged: nobody but us has had them since.
            raise InputError(
                Code.BAD_ARGUMENT, f"the files in {folder} have changed since: {error.message}"
            ) from None
        return kept.result.model_copy(
            update={
                "verdict": Verdict.REJECTED,
                "code": error.code,
                "message": error.message,
                "detail": error.detail,
                "score": None,
                "runs": (),
            }
        )
    return _result(kept, loaded, snapshot, runs)


def _judge(
    kept: KeptFolder, loaded: LoadedHparams, snapshot: Snapshot, progress: OnProgress
) -> list[RunResult]:
    hparams = loaded.hparams
    strategy = read(kept.train_file, kept.result.world_size).strategy
    timed_runs = kept.timed_runs(snapshot, hparams)
    progress("the opened states against their commitments")
    opened = open_committed(timed_runs, kept.outbox, hparams)
    references = [_reference(snapshot, kept.reference_of(run)) for run in range(len(timed_runs))]
    truths = truths_of(timed_runs, references, snapshot, hparams)
    judged = judge_runs(timed_runs, opened, truths, hparams, strategy)
    runs: list[RunResult] = []
    while len(runs) < len(timed_runs):
        progress(f"updates, steps and losses of run {len(runs) + 1} of {len(timed_runs)}")
        runs.append(next(judged))
    return [_with_cause(run, kept.result.runs) for run in together(runs, hparams)]


def _reference(snapshot: Snapshot, folders: RunFolders) -> ReferenceRun:
    """Raises InputError(BAD_ARGUMENT): it lies elsewhere, as another version has kept it, or not at all."""
    try:
        return read_run(snapshot, folders)
    except FileNotFoundError as error:
        raise InputError(
            Code.BAD_ARGUMENT,
            f"the reference is not where this version keeps it: {one_line(str(error))}",
        ) from None


def _with_cause(run: RunResult, before: Sequence[RunResult]) -> RunResult:
    """What was found then about the cause of a rejection: it took training, and is still true."""
    if rejects_update(run.findings):
        for finding in before[run.run].findings if run.run < len(before) else ():
            if finding.check == CHECK:
                return with_finding(run, finding)
    return run


def _result(
    kept: KeptFolder, loaded: LoadedHparams, snapshot: Snapshot, runs: list[RunResult]
) -> EvaluationResult:
    from harness.host.known_parameters import parameters_of
    from harness.score.medians import score

    verdict, code, message = conclude(runs)
    scored = None
    if verdict is Verdict.ACCEPTED:
        parameters = parameters_of(snapshot.model_dir)
        scored, runs = score(runs, loaded.hparams, parameters, kept.peak, kept.result.world_size)
    benchmark = kept.result.benchmark.model_copy(
        update={"hparams_sha256": loaded.sha256, "calibrated": loaded.hparams.calibrated}
    )
    return kept.result.model_copy(
        update={
            "verdict": verdict,
            "code": code,
            "message": message,
            "detail": "",
            "score": scored,
            "runs": tuple(runs),
            "benchmark": benchmark,
        }
    )
