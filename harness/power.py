"""What can be left out unseen: graded cheats, trained by the trusted loop and judged like a submission.

For each family of cheats and each strength: how much of the timed work it saves, in how many runs it was
found, and by which check. `docs/power.md` holds what came of it for the embedded benchmarks.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from harness.benchmark.hparams import Hparams, LoadedHparams, Tolerances
from harness.benchmark.model_config import load_config
from harness.benchmark.snapshot import Snapshot
from harness.lab import Lab, Measured
from harness.phases import OnProgress
from harness.records import Record
from harness.reference.cheats import Cheat, Family
from harness.reference.launch import default_variant
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
}
#: Of a product's passes, those that go backwards.
BACKWARD: Final = 2 / 3
CONFIDENCE: Final = 0.95


class Case(Record):
    """One cheat at one strength.

    Attributes:
        saves: part of the timed FLOPs that it leaves out; a product in half the width counts half.
        runs, found: how many were trained, and in how many of them a check rejects.
        strict: in how many the update error is over the bound that one run of an evaluation has to meet.
        nearest: the check that is most over (or nearest to) its tolerance, in the median run.
        times: how many times its tolerance that is.
    """

    family: Family
    strength: float
    saves: float
    runs: int
    found: int
    strict: int
    nearest: str
    times: float


class Power(Record):
    """What was measured for one benchmark."""

    benchmark: str
    evaluation_runs: int
    cases: tuple[Case, ...]


def measure(
    loaded: LoadedHparams,
    snapshot: Snapshot,
    sandbox: Sandbox,
    families: Sequence[Family],
    runs: int,
    progress: OnProgress,
) -> Power:
    """Train and judge every cheat of these families on `runs` fresh challenges.

    Raises JudgeError: a run failed.
    """
    hparams = loaded.hparams
    base = default_variant(hparams, hparams.world.size)
    count = count_parameters(load_config(str(snapshot.model_dir)))
    cases = []
    with Lab.opened(hparams, snapshot, sandbox, runs) as lab:
        progress(f"reference: {runs} runs of {hparams.steps.max} steps")
        reference = lab.run("reference", base)
        for cheat in _cheats(families):
            trained = lab.run("cheat", base.model_copy(update={"cheat": cheat}))
            measured = lab.measure(reference, trained)
            lab.discard("cheat")
            saves = saved(cheat, count, hparams.sequence_length)
            cases.append(_case(cheat, saves, measured, hparams))
            progress(_line(cases[-1]))
    return Power(
        benchmark=hparams.name, evaluation_runs=hparams.evaluation_runs, cases=tuple(cases)
    )


def _cheats(families: Sequence[Family]) -> Iterator[Cheat]:
    for family in families:
        for strength in STRENGTHS[family]:
            yield Cheat(family=family, strength=strength)


def saved(cheat: Cheat, count: ParameterCount, sequence_length: int) -> float:
    """The part of the timed FLOPs that a train file saves with this cheat, at best.

    A dropped token saves the head's products (of the tokens with the lowest loss only backwards: the loss
    has to be known), a dropped position or row all of its work; a second expert that is not visited its
    products; a gradient that is not computed the backward products below it.
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
        "learning_rate": 0.0,
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


def at_least(found: int, runs: int) -> float:
    """Lower bound of a rate, one-sided at CONFIDENCE (Clopper and Pearson 1934, by bisection)."""
    if not found:
        return 0.0
    low, high = 0.0, 1.0
    for _ in range(60):
        rate = (low + high) / 2
        tail = sum(
            math.comb(runs, k) * rate**k * (1 - rate) ** (runs - k) for k in range(found, runs + 1)
        )
        low, high = (rate, high) if tail < 1 - CONFIDENCE else (low, rate)
    return low


def _line(case: Case) -> str:
    return f"{case.family} {case.strength:g}: found in {case.found} of {case.runs} runs"


def table(power: Power) -> str:
    """As Markdown: one row for each family and strength."""
    lines = [
        "| left out | part | saves | found in | at least | over the strict bound | nearest check |",
        "|---|---|---|---|---|---|---|",
    ]
    for case in power.cases:
        lines.append(
            f"| {case.family.replace('_', ' ')} | {case.strength:.2%} | {case.saves:.2%} | "
            f"{case.found} of {case.runs} | {at_least(case.found, case.runs):.0%} | {case.strict} | "
            f"{case.nearest} {case.times:.2g}× |"
        )
    return "\n".join(lines)


def unseen(power: Power) -> dict[Family, float]:
    """For each family the largest saving at a strength that an evaluation may miss; 0 where it misses none.

    It misses where some run passes every check and some run meets the strict bound.
    """
    found: dict[Family, float] = {}
    for case in power.cases:
        missed = case.saves if max(case.found, case.strict) < case.runs else 0.0
        found[case.family] = max(found.get(case.family, 0.0), missed)
    return found
