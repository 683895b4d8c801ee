"""The result of one evaluation: everything that is needed to rank it, explain it, and judge it again.

`docs/result.md` is generated from these models (`python -m harness.result`).
"""

from typing import Literal

from pydantic import BaseModel, Field

from harness.errors import Code, Verdict
from harness.machine import Machine
from harness.records import Record
from harness.timed.delay import NodeDelay
from harness.verify.findings import Finding, TensorFinding


class Benchmark(Record):
    """Which problem was judged."""

    name: str
    hparams_sha256: str = Field(description="of the hparams file")
    model_sha256: str = Field(description="of the snapshot's model files")
    data_sha256: str = Field(description="of the packed tokens")
    image: str | None = Field(
        default=None, description="digest of the worker's image at level docker; null elsewhere"
    )
    calibrated: bool = Field(
        description="whether the tolerances were measured on this very benchmark"
    )


class SubmissionRecord(Record):
    """Which file was judged."""

    name: str
    sha256: str = Field(description="of the file; empty if it could not be read")
    strategy: dict[str, int | bool] = Field(description="as declared; empty if not understood")


class Metric(Record):
    """One number that the verdict rests on."""

    name: str = Field(description="as in hparams.verify.tolerances")
    measured: float
    allowed: float
    where: str = Field(
        default="",
        description="at what it was worst, such as a tensor; nothing of a number for all",
    )


class RunResult(Record):
    """One timed run and what verification found."""

    run: int
    challenge_seed: str = Field(description="the rows and the number of steps follow from it")
    steps: int
    tokens: int = Field(description="tokens served to all ranks; what MFU counts")
    seconds: float = Field(description="release of the data to the last rank's commitment")
    commitment_seconds: float = Field(
        default=0.0, description="of these, from all ranks being done to the last one's commitment"
    )
    delays: tuple[NodeDelay, ...] = Field(
        default=(), description="of each machine, where there are several"
    )
    banked: bool = Field(
        default=False, description="whether challenge and reference were made before the evaluation"
    )
    tokens_per_second: float
    mfu_active_params: float | None = Field(
        default=None,
        description="6 · active parameters · tokens / (s · world · peak); null unless accepted",
    )
    mfu_matmul_flops: float | None = Field(
        default=None, description="the same with the exact matmul and attention FLOPs"
    )
    reported_losses: tuple[float | None, ...] = Field(description="each rank's claim")
    reported_memory_bytes: tuple[int, ...] = Field(
        default=(),
        description="each rank's claim of its peak: of tensors on its GPU in this run, or resident on "
        "a CPU since it started",
    )
    reference_loss: float | None = Field(
        description="mean loss of the last step over all rows, nats per token"
    )
    step_weights: tuple[float, ...] = Field(description="step attribution: 1 is a step done once")
    metrics: tuple[Metric, ...]
    findings: tuple[Finding, ...]

    def measured(self, name: str) -> float | None:
        """The metric of that name; None where it was not judged."""
        return next((metric.measured for metric in self.metrics if metric.name == name), None)

    def where(self, name: str) -> str:
        """At what the metric of that name was worst, in words; empty where there is nothing to say."""
        return next((metric.where for metric in self.metrics if metric.name == name), "")

    @property
    def mean_reported_loss(self) -> float | None:
        """What is like the reference's: the mean of what ranks say of their own rows, or of all rows.

        0.0 is what a pipeline's stage without a loss says.
        """
        said = [loss for loss in self.reported_losses if loss not in (None, 0.0)]
        return sum(loss or 0.0 for loss in said) / len(said) if said else None


class Phase(Record):
    """Where the evaluation's wall time went."""

    name: str
    seconds: float


class Score(Record):
    """What a leaderboard ranks: medians over the runs. Only an accepted evaluation has one."""

    mfu: float = Field(description="the headline, of the basis below")
    basis: Literal["active_params", "matmul_flops"]
    mfu_active_params: float
    mfu_matmul_flops: float
    tokens_per_second: float
    total_params: int
    active_params: int
    flops_per_token: float = Field(description="of the headline's basis")
    formula_version: str
    peak_tflops: float = Field(description="of one device")
    peak_source: str = Field(description="table, hparams, or measured")


class EvaluationResult(Record):
    """The whole document."""

    schema_version: Literal[1] = 1
    verdict: Verdict = Field(
        description="accepted; rejected: the submission's fault; error: ours, never scored"
    )
    code: Code
    message: str = Field(description="what happened and what to do, for the submission's author")
    detail: str = Field(default="", description="evidence, such as the end of a traceback")
    score: Score | None
    benchmark: Benchmark
    submission: SubmissionRecord
    isolation: str = Field(description="the sandbox's level; none cannot enter a leaderboard")
    world_size: int
    machine: Machine | None = Field(description="null if the evaluation did not get that far")
    runs: tuple[RunResult, ...]
    phases: tuple[Phase, ...]
    warnings: tuple[str, ...]
    started_at: str = Field(description="UTC, ISO 8601")
    not_ended: bool = Field(
        default=False,
        description="something that the submission started could not be ended, and may disturb what is "
        "timed on that machine next",
    )
    log: str = Field(default="", description="head and tail of what the sandbox printed")


def document() -> str:
    """docs/result.md: every field, from the models above."""
    lines = [
        "# The result document",
        "",
        "One JSON object for each evaluation. This page is generated by "
        "`python -m harness.result > docs/result.md`; a test keeps it in step.",
        "",
    ]
    models: tuple[type[BaseModel], ...] = (
        EvaluationResult, Score, Benchmark, SubmissionRecord, Machine, RunResult, NodeDelay, Metric,
        Finding, TensorFinding, Phase,
    )  # fmt: skip
    for model in models:
        summary = (model.__doc__ or "").strip().split("\n\n")[0].replace("\n    ", " ")
        lines += [
            f"## {model.__name__}",
            "",
            summary,
            "",
            "| field | type | meaning |",
            "|---|---|---|",
        ]
        for name, field in model.model_fields.items():
            kind = _type_name(field.annotation).replace("|", "\\|")
            lines.append(f"| `{name}` | {kind} | {field.description or ''} |")
        lines.append("")
    lines += ["## Codes", "", "| code | who has to act | meaning |", "|---|---|---|"]
    lines += [f"| `{code}` | {code.side} | {code.meaning} |" for code in Code]
    return "\n".join(lines) + "\n"


def _type_name(annotation: object) -> str:
    name = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    generic = str(annotation) if "[" in str(annotation) else name
    for prefix in ("typing.", "harness.verify.findings.", "harness.machine.", "harness.errors.",
                   "harness.result.", "harness.timed.delay.", "__main__."):  # fmt: skip
        generic = generic.replace(prefix, "")
    return generic


if __name__ == "__main__":
    print(document(), end="")
