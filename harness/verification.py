"""Verifying runs, once the sandbox is gone: open what was committed, train the reference, compare.

This joins the rooms: `opening/` reads what a submission wrote, `reference/` trains, and
`verify/` knows numbers only.
"""

import secrets
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from harness.benchmark.challenge import Challenge
from harness.benchmark.hparams import Hparams
from harness.benchmark.mistakes import in_words, numerics_in_words
from harness.benchmark.snapshot import Snapshot
from harness.comparison import Truth, compare, compare_tokens
from harness.errors import Code, JudgeError, SubmissionError
from harness.likely_cause import likely_cause, rejects_update
from harness.opening.files import files_allowed
from harness.opening.plan import assemble
from harness.opening.read import read_opened
from harness.phases import PhaseName, Phases
from harness.protocol.text import quoted
from harness.reference.launch import Asked, run_reference
from harness.reference.outcome import Ahead, ReferenceRun, RunFolders, asked_rows
from harness.reference.task import default_variant
from harness.result import Metric, RunResult
from harness.submission.strategy import Strategy
from harness.tensors.boxes import State, TensorSpec
from harness.tensors.stored import trusted_state
from harness.timed.run import TimedRun, TimedSetup, opened_folder
from harness.timed.workspace import Workspace
from harness.verify.attribution import Coordinates, Indices, draw_coordinates
from harness.verify.checks import RunEvidence, judge_run, measure_run
from harness.verify.findings import Finding, note
from harness.verify.metrics import judged_metrics
from harness.verify.together import judge_together
from harness.verify.worst import worst_of

SEED_BITS = 64
#: Of a run's tokens, about, whose losses are compared at most: each costs a forward pass under every state,
#: and as many see what power was measured with.
MOST_TOKENS = 1 << 15


def secret_rows(runs: Sequence[Challenge], hparams: Hparams) -> list[Indices]:
    """Of each run the rows whose tokens' losses are compared, int64, which no submission can know."""
    share = hparams.verify.token_loss_share
    if not share:
        return []
    generator = np.random.default_rng(secrets.randbits(SEED_BITS))
    most = max(1, MOST_TOKENS // hparams.sequence_length)
    served = [run.steps * hparams.global_batch for run in runs]
    return [
        np.sort(generator.choice(rows, min(most, max(1, round(share * rows))), replace=False))
        for rows in served
    ]


def secret_steps(runs: Sequence[Challenge], hparams: Hparams) -> list[list[int]]:
    """Of each run the steps at which directions are computed, which no submission can know."""
    wanted = hparams.filter_steps
    if not wanted:
        return []
    draw = secrets.SystemRandom().sample
    return [sorted(draw(range(run.steps), min(run.steps, wanted))) for run in runs]


def judged_steps(runs: Sequence[Challenge], hparams: Hparams) -> list[list[int]]:
    """The same, where the benchmark was calibrated for it: they cost a part of the training."""
    judged = hparams.verify.tolerances.matched_filter is not None
    return secret_steps(runs, hparams) if judged else []


def secret_coordinates(layout: Mapping[str, TensorSpec], hparams: Hparams) -> Coordinates:
    """The sample for step attribution, which no submission can know."""
    samples = hparams.verify.attribution_samples
    return draw_coordinates(layout, samples, secrets.randbits(SEED_BITS))


def verify(
    setup: TimedSetup,
    timed_runs: Sequence[TimedRun],
    workspace: Workspace,
    phases: Phases,
    ahead: Ahead | None = None,
) -> list[RunResult]:
    """Judge every run, in one launch of the reference; a second one looks for the cause of a rejection.

    Args:
        ahead: of which runs the reference was trained before.

    Raises:
        SubmissionError: the outbox is not what was committed to.
        JudgeError: the reference failed.
    """
    hparams, layout = setup.hparams, setup.snapshot.layout
    phases.enter(PhaseName.VERIFY, "the opened states against their commitments")
    opened = open_committed(timed_runs, workspace.outbox, hparams)

    ahead = ahead or Ahead({})
    phases.enter(
        PhaseName.REFERENCE,
        "" if len(ahead.folders) < len(timed_runs) else "losses of tokens alone",
    )
    challenges = [timed.challenge for timed in timed_runs]
    references = run_reference(
        hparams,
        setup.snapshot,
        challenges,
        secret_coordinates(layout, hparams),
        default_variant(hparams, setup.world_size),
        setup.sandbox,
        setup.device,
        workspace.reference,
        Asked(_rows(challenges, hparams, ahead.folders), opened, judged_steps(challenges, hparams)),
        ahead=ahead,
    )
    phases.enter(PhaseName.VERIFY, "updates, steps and losses")
    truths = truths_of(timed_runs, references, setup.snapshot, hparams)
    judged = judge_runs(timed_runs, opened, truths, hparams, setup.submission.strategy)
    runs = together(list(judged), hparams)
    number = first_off(runs)
    if number is not None and hparams.verify.explain_seconds:
        phases.enter(PhaseName.REFERENCE, "with the likely mistakes")
        seconds = max(ahead.seconds, phases.seconds[PhaseName.REFERENCE] / len(runs))
        away = update_error(runs[number])
        cause = likely_cause(setup, truths[number], opened[number], away, seconds, workspace)
        if cause is not None:
            runs[number] = with_finding(runs[number], cause)
    return runs


def _rows(
    challenges: Sequence[Challenge], hparams: Hparams, ahead: Mapping[int, RunFolders]
) -> list[Indices]:
    """Of each run the rows whose tokens' losses are compared: those of its reference, where it has one."""
    rows = secret_rows(challenges, hparams)
    return [asked_rows(ahead[run]) if run in ahead else drawn for run, drawn in enumerate(rows)]


def first_off(runs: Sequence[RunResult]) -> int | None:
    """The first run whose update is rejected: a file makes its mistake in every one."""
    return next((n for n, run in enumerate(runs) if rejects_update(run.findings)), None)


def update_error(run: RunResult) -> float:
    error = run.measured("update_error")
    assert error is not None
    return error


def with_finding(run: RunResult, finding: Finding) -> RunResult:
    return run.model_copy(update={"findings": (*run.findings, finding)})


def together(runs: list[RunResult], hparams: Hparams) -> list[RunResult]:
    """The runs with what is said once: by all together, of the one that shows it best; and what the
    benchmark asks for, of the first that is off.
    """
    told = list(runs)
    for run, finding in judge_together(runs, hparams.together):
        told[run] = with_finding(told[run], finding)
    number = first_off(told)
    if number is not None:
        asked = f"{in_words(hparams.optimizer)}; {numerics_in_words(hparams.numerics)}"
        told[number] = with_finding(told[number], note("asked", f"the benchmark asks for {asked}"))
    return told


def truths_of(
    timed_runs: Sequence[TimedRun],
    references: Sequence[ReferenceRun],
    snapshot: Snapshot,
    hparams: Hparams,
) -> list[Truth]:
    """What each run is compared with, which is its own reference."""
    layout = snapshot.layout
    initial = trusted_state(snapshot.state_dir, layout)
    return [
        Truth(initial, reference, layout, timed.challenge, hparams.optimizer)
        for timed, reference in zip(timed_runs, references, strict=True)
    ]


def judge_runs(
    timed_runs: Sequence[TimedRun],
    opened: Sequence[Sequence[State]],
    truths: Sequence[Truth],
    hparams: Hparams,
    strategy: Strategy,
) -> Iterator[RunResult]:
    """Compare every run with its reference, one when it is asked for.

    Args:
        timed_runs: as they were timed.
        opened: for each run the versions of its final state.
        truths: for each run, as `truths_of` gives them.
        hparams: its tolerances decide.
        strategy: of the submission.

    Raises JudgeError: as `judge`.
    """
    for run, timed in enumerate(timed_runs):
        yield judge(run, timed, opened[run], truths[run], hparams, strategy)


def open_committed(
    timed_runs: Sequence[TimedRun], outbox: Path, hparams: Hparams
) -> list[tuple[State, ...]]:
    """For every run the versions of its final state, every byte of them committed to.

    Raises SubmissionError: the outbox is not what was committed to.
    """
    check_names(timed_runs, outbox)
    # All runs' files stay mapped: they are looked at again beside the reference.
    ranks = max((len(timed.plan.orders) for timed in timed_runs), default=1)
    max_files = files_allowed(ranks, len(timed_runs))
    return [_open(timed, outbox, run, hparams, max_files) for run, timed in enumerate(timed_runs)]


def check_names(timed_runs: Sequence[TimedRun], outbox: Path) -> None:
    """Nothing but the ranks' folders may lie in the outbox: other files could fill the reference's disk."""
    expected = {
        opened_folder(outbox, run, rank).name
        for run, timed in enumerate(timed_runs)
        for rank in range(len(timed.plan.orders))
    }
    try:
        names = [path.name for path in outbox.iterdir()]
    except OSError as error:
        raise SubmissionError(
            Code.OUTBOX_INVALID, f"the outbox cannot be listed: {error.strerror}"
        ) from None
    for name in names:
        if name not in expected:
            raise SubmissionError(
                Code.OUTBOX_INVALID,
                f"{quoted(name)} lies in the outbox, which is written by the environment; "
                "leave it alone",
            )


def _open(
    timed: TimedRun, outbox: Path, run: int, hparams: Hparams, max_files: int
) -> tuple[State, ...]:
    pieces = [
        read_opened(
            opened_folder(outbox, run, rank),
            timed.commitments[rank],
            order,
            timed.key,
            hparams.limits.outbox_bytes,
            max_files,
        )
        for rank, order in enumerate(timed.plan.orders)
    ]
    return assemble(timed.plan, pieces)


def judge(
    run: int,
    timed: TimedRun,
    states: Sequence[State],
    truth: Truth,
    hparams: Hparams,
    strategy: Strategy,
) -> RunResult:
    """What one run measured, and what the tolerances say to it.

    Raises JudgeError: the reference's weights are not finite, or the clock stood still.
    """
    seen = compare(truth, states)
    sampled = truth.reference.token_losses
    if sampled is not None and len(sampled.submitted) != len(states):
        raise JudgeError(Code.REFERENCE_FAILED, "the losses of some version's tokens are missing")
    shifts = [] if sampled is None else compare_tokens(timed.challenge, sampled, sampled.submitted)
    evidence = RunEvidence(
        claims=timed.claims,
        strategy=strategy,
        row_losses=truth.reference.losses[-1],
        sequence_length=hparams.sequence_length,
        steps=timed.challenge.steps,
        comparisons=seen.comparisons,
        attributions=seen.attributions,
        shifts=shifts,
        alongs=seen.alongs,
    )
    tolerances = hparams.verify.tolerances
    measured, worst = measure_run(evidence).model_dump(), worst_of(evidence)
    if timed.seconds <= 0:
        raise JudgeError(Code.INTERNAL, "the judge's clock stood still")
    tokens = timed.challenge.token_count
    return RunResult(
        run=run,
        challenge_seed=timed.challenge.seed,
        steps=timed.challenge.steps,
        tokens=tokens,
        seconds=timed.seconds,
        banked=truth.reference.ahead,
        commitment_seconds=timed.commitment_seconds,
        delays=timed.delays,
        tokens_per_second=tokens / timed.seconds,
        reported_losses=tuple(claim.loss for claim in timed.claims),
        reported_memory_bytes=timed.peak_memory,
        reference_loss=float(truth.reference.losses[-1].mean()),
        step_weights=seen.attributions[0].weights,
        metrics=tuple(
            Metric(
                name=name,
                measured=measured[name],
                allowed=allowed,
                where=worst.get(name, ""),
            )
            for name, allowed in judged_metrics(tolerances).items()
            if measured[name] is not None
        ),
        findings=tuple(judge_run(evidence, tolerances, hparams.turned_rows)),
    )
