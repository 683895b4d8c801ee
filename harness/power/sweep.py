"""Graded cheats, trained by the trusted loop and judged like a submission.

For each of them: how much of the timed work it saves, in how many runs it was
found, and by which check. `docs/power.md` holds what came of it for the embedded benchmarks.
"""

from collections.abc import Callable, Sequence

from harness.benchmark.hparams import Hparams, LoadedHparams
from harness.benchmark.rules import Tolerances
from harness.benchmark.snapshot import Snapshot
from harness.host.known_parameters import parameters_of
from harness.lab import Lab, Measured
from harness.phases import OnProgress
from harness.power.detection import Rules, judge
from harness.power.families import Cheats, possible
from harness.power.measured import Case, Power, pooled
from harness.power.saved import saved_bytes, saved_flops
from harness.reference.cheats.families import LESS_EXACT
from harness.reference.task import Variant, default_variant
from harness.sandbox import Sandbox
from harness.score.flops import ParameterCount
from harness.verify.findings import Severity
from harness.verify.update_checks import judge_update


def measure(
    loaded: LoadedHparams,
    snapshot: Snapshot,
    sandbox: Sandbox,
    asked: Sequence[Cheats],
    runs: int,
    progress: OnProgress,
    keep: Callable[[Power], None],
    before: Power,
) -> Power:
    """Train every one of these cheats on `runs` fresh challenges, and look at it as at a submission.

    Args:
        keep: is given all that is known, after every case: this takes hours, and may be ended.
        before: what was measured earlier, to be added to.

    Raises JudgeError: a run failed.
    """
    hparams, known = loaded.hparams, before
    base = default_variant(hparams, hparams.world.size)
    count = parameters_of(snapshot.model_dir)
    with Lab.opened(hparams, snapshot, sandbox, runs) as lab:
        progress(f"reference: {runs} runs of {hparams.steps.max} steps")
        reference = lab.reference(base)
        for cheats in possible(asked, hparams, count):
            trained = lab.run("cheat", cheated(base, cheats))
            measured = lab.measure(reference, trained)
            lab.discard("cheat")
            case = _case(cheats, count, measured, hparams)
            known = pooled(known, case)
            progress(_line(case, hparams))
            keep(known)
    return known


def cheated(base: Variant, cheats: Cheats) -> Variant:
    """The trusted loop with cheats in it."""
    changes: dict[str, object] = {"cheats": cheats}
    for cheat in cheats:
        changes |= LESS_EXACT.get(cheat.family, {})
    return base.model_copy(update=changes)


def _case(
    cheats: Cheats, count: ParameterCount, measured: Sequence[Measured], hparams: Hparams
) -> Case:
    # Of the losses that a rank may report a cheater takes the one that is nearest.
    runs = [
        each.metrics.model_dump(exclude_none=True) | {"loss": each.mean_loss} for each in measured
    ]
    return Case(
        cheats=cheats,
        saves=saved_flops(cheats, count, hparams.sequence_length),
        saves_bytes=saved_bytes(cheats),
        metrics={name: tuple(float(f"{run[name]:.4g}") for run in runs) for name in runs[0]},
        rejected_by=tuple(_without_tolerance(each, hparams) for each in measured),
    )


def _without_tolerance(measured: Measured, hparams: Hparams) -> tuple[str, ...]:
    """Checks that reject a run whatever the tolerances are."""
    seen = measured.seen
    found = judge_update(
        measured.metrics,
        seen.comparisons,
        seen.attributions,
        hparams.verify.tolerances,
        hparams.turned_rows,
    )
    return tuple(
        finding.check
        for finding in found
        if finding.severity is Severity.REJECTS and finding.check not in Tolerances.model_fields
    )


def _line(case: Case, hparams: Hparams) -> str:
    left_out = ", ".join(map(str, case.cheats))
    found = judge(case, Rules.of(hparams))
    return f"{left_out}: found in {found.found} of {found.runs} runs"
