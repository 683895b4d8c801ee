"""Graded cheats, trained by the trusted loop and judged like a submission.

For each of them: how much of the timed work it saves, in how many runs it was
found, and by which check. `docs/power.md` holds what came of it for the embedded benchmarks.
"""

import math
from collections.abc import Callable, Sequence

from harness.benchmark.hparams import Hparams, LoadedHparams
from harness.benchmark.rules import Tolerances
from harness.benchmark.snapshot import Snapshot
from harness.host.known_parameters import parameters_of
from harness.lab import Lab, Measured
from harness.phases import OnProgress
from harness.power.families import Cheats, possible
from harness.power.measured import Case, Power, pooled
from harness.power.saved import saved_bytes, saved_flops
from harness.reference.cheats.families import LESS_EXACT
from harness.reference.task import Variant, default_variant
from harness.sandbox import Sandbox
from harness.score.flops import ParameterCount
from harness.verify.exactness import judge_inexactness
from harness.verify.filter_checks import judge_filters
from harness.verify.findings import Severity
from harness.verify.metrics import exceeds, judged_metrics
from harness.verify.token_checks import judge_token_losses
from harness.verify.update_checks import judge_update


def measure(
    loaded: LoadedHparams,
    snapshot: Snapshot,
    sandbox: Sandbox,
    asked: Sequence[Cheats],
    runs: int,
    progress: OnProgress,
    keep: Callable[[Power], None],
    before: Power | None = None,
) -> Power:
    """Train and judge every one of these cheats on `runs` fresh challenges.

    Args:
        keep: is given all that is known, after every case: this takes hours, and may be ended.
        before: what was measured earlier; its runs count too.

    Raises JudgeError: a run failed.
    """
    hparams = loaded.hparams
    known = before or Power(
        benchmark=hparams.name,
        hparams_sha256=loaded.sha256,
        evaluation_runs=hparams.evaluation_runs,
        strict_update_error=hparams.strict_update_error,
        cases=(),
    )
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
            progress(_line(case))
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
    tolerances, strict = hparams.verify.tolerances, hparams.strict_update_error
    nearest = sorted((_nearest(each, tolerances) for each in measured), key=lambda pair: pair[1])
    name, times = nearest[len(nearest) // 2]
    return Case(
        cheats=cheats,
        saves=saved_flops(cheats, count, hparams.sequence_length),
        saves_bytes=saved_bytes(cheats),
        runs=len(measured),
        found=sum(_rejected(each, tolerances) for each in measured),
        strict=sum(
            strict is not None and exceeds(each.metrics.update_error, strict) for each in measured
        ),
        nearest=name,
        times=times,
    )


def _rejected(measured: Measured, tolerances: Tolerances) -> bool:
    """By the checks that judge a submission; the reported loss counts too."""
    metrics, seen = measured.metrics, measured.seen
    findings = [
        *judge_update(metrics, seen.comparisons, seen.attributions, tolerances),
        *judge_token_losses(metrics, measured.shifts, tolerances),
        *judge_filters(metrics, seen.alongs, tolerances),
        *judge_inexactness(metrics, tolerances),
    ]
    over_loss = measured.mean_loss > tolerances.loss
    return over_loss or any(finding.severity is Severity.REJECTS for finding in findings)


def _nearest(measured: Measured, tolerances: Tolerances) -> tuple[str, float]:
    # Of the losses that a rank may report a cheater takes the one that is nearest.
    values = measured.metrics.model_dump() | {"loss": measured.mean_loss}
    parts = {
        name: values[name] / allowed
        for name, allowed in judged_metrics(tolerances).items()
        if values[name] is not None and not math.isnan(values[name])
    }
    return max(parts.items(), key=lambda pair: pair[1])


def _line(case: Case) -> str:
    left_out = ", ".join(map(str, case.cheats))
    return f"{left_out}: found in {case.found} of {case.runs} runs"
