"""Graded cheats, trained by the trusted loop and judged like a submission.

For each family of cheats and each strength: how much of the timed work it saves, in how many runs it was
found, and by which check. `docs/power.md` holds what came of it for the embedded benchmarks.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from harness.benchmark.hparams import Hparams, LoadedHparams
from harness.benchmark.model_config import load_config
from harness.benchmark.problem import Sgd
from harness.benchmark.rules import Tolerances
from harness.benchmark.snapshot import Snapshot
from harness.lab import Lab, Measured
from harness.phases import OnProgress
from harness.power.measured import Case, Power, pooled
from harness.reference.cheats import LESS_EXACT, Cheat, Family
from harness.reference.task import Variant, default_variant
from harness.sandbox import Sandbox
from harness.score.flops import ParameterCount, attention_flops_per_token, count_parameters
from harness.verify.findings import Severity
from harness.verify.metrics import exceeds, judged_metrics
from harness.verify.token_checks import judge_token_losses
from harness.verify.update_checks import judge_update

#: Parts that are left out, from what is surely worth nothing to what is surely seen.
STRENGTHS: Final[Mapping[Family, tuple[float, ...]]] = {
    "random_tokens": (0.001, 0.005, 0.01, 0.02, 0.05),
    "lowest_loss_tokens": (0.002, 0.005, 0.01, 0.02, 0.05),
    "last_positions": (0.004, 0.008, 0.016, 0.032),
    "rows": (0.125,),
    "top_1": (0.01, 0.02, 0.05, 0.1, 0.2),
    "expert_gradients": (0.01, 0.02, 0.05, 0.1, 0.2),
    "layer_gradients": (0.01, 0.02, 0.05, 0.1, 0.2),
    "backward_bf16": (1.0,),
    "backward_fp8": (1.0,),
    "learning_rate": (0.001, 0.002, 0.005, 0.01),
    "products_bf16": (1.0,),
    "reductions_bf16": (1.0,),
    "state_bf16": (1.0,),
}
#: Of a product's passes, those that go backwards.
BACKWARD: Final = 2 / 3


def measure(
    loaded: LoadedHparams,
    snapshot: Snapshot,
    sandbox: Sandbox,
    families: Sequence[Family],
    runs: int,
    progress: OnProgress,
    keep: Callable[[Power], None],
    before: Power | None = None,
) -> Power:
    """Train and judge every cheat of these families on `runs` fresh challenges.

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
    count = count_parameters(load_config(str(snapshot.model_dir)))
    with Lab.opened(hparams, snapshot, sandbox, runs) as lab:
        progress(f"reference: {runs} runs of {hparams.steps.max} steps")
        reference = lab.run("reference", base)
        for cheat in cheats(families, hparams):
            trained = lab.run("cheat", cheated(base, cheat))
            measured = lab.measure(reference, trained)
            lab.discard("cheat")
            saves = saved(cheat, count, hparams.sequence_length)
            case = _case(cheat, saves, measured, hparams)
            known = pooled(known, case)
            progress(_line(case))
            keep(known)
    return known


def cheats(families: Sequence[Family], hparams: Hparams) -> Iterator[Cheat]:
    """Every strength of these families, but what the benchmark allows, or has nothing of."""
    numerics, optimizer = hparams.numerics, hparams.optimizer
    stateless = isinstance(optimizer, Sgd) and not optimizer.momentum
    no_cheat = {
        "products_bf16": numerics.compute_dtype == "bfloat16",
        "reductions_bf16": numerics.reduce_dtype == "bfloat16",
        "state_bf16": numerics.state_dtype == "bfloat16" or stateless,
    }
    for family in families:
        for strength in () if no_cheat.get(family) else STRENGTHS[family]:
            yield Cheat(family=family, strength=strength)


def cheated(base: Variant, cheat: Cheat) -> Variant:
    """The trusted loop with a cheat in it."""
    return base.model_copy(update={"cheat": cheat, **LESS_EXACT.get(cheat.family, {})})


def saved(cheat: Cheat, count: ParameterCount, sequence_length: int) -> float:
    """The part of the timed FLOPs that a train file saves with this cheat, at best.

    A dropped token saves the head's products (of the tokens with the lowest loss only backwards: the loss
    has to be known), a dropped position or row all of its work; a second expert that is not visited its
    products; a gradient that is not computed the backward products below it. What saves bytes between ranks
    or memory saves no FLOPs.
    """
    total = 6 * count.matmul_active + attention_flops_per_token(count, sequence_length)
    head = 6 * count.input_embedding / total  # of the same size as the head
    experts = 6 * count.routed_experts * count.top_k / max(1, count.num_experts) / total
    share = cheat.strength
    return {
        "random_tokens": head * share,
        "lowest_loss_tokens": head * share * BACKWARD,
        "last_positions": share,
        "rows": share,
        "top_1": experts * share * (1 - 1 / max(1, count.top_k)),
        "expert_gradients": experts * share * BACKWARD,
        "layer_gradients": (1 - head) * share * BACKWARD,
        "backward_bf16": BACKWARD / 2,
        "backward_fp8": BACKWARD / 2,
        "products_bf16": 0.5,
        "learning_rate": 0.0,
        "reductions_bf16": 0.0,
        "state_bf16": 0.0,
    }[cheat.family]


def _case(cheat: Cheat, saves: float, measured: Sequence[Measured], hparams: Hparams) -> Case:
    tolerances, strict = hparams.verify.tolerances, hparams.strict_update_error
    nearest = sorted((_nearest(each, tolerances) for each in measured), key=lambda pair: pair[1])
    name, times = nearest[len(nearest) // 2]
    return Case(
        family=cheat.family,
        strength=cheat.strength,
        saves=saves,
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
    findings = [
        *judge_update(measured.metrics, measured.comparisons, measured.attributions, tolerances),
        *judge_token_losses(measured.metrics, measured.shifts, tolerances),
    ]
    over_loss = measured.metrics.loss > tolerances.loss
    return over_loss or any(finding.severity is Severity.REJECTS for finding in findings)


def _nearest(measured: Measured, tolerances: Tolerances) -> tuple[str, float]:
    values = measured.metrics.model_dump()
    parts = {
        name: values[name] / allowed
        for name, allowed in judged_metrics(tolerances).items()
        if values[name] is not None and not math.isnan(values[name])
    }
    return max(parts.items(), key=lambda pair: pair[1])


def _line(case: Case) -> str:
    return f"{case.family} {case.strength:g}: found in {case.found} of {case.runs} runs"
