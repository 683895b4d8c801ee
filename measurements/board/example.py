"""A result document as a judge would write it."""

import hashlib
from typing import Final

from harness.errors import Code, Verdict
from harness.machine import Machine
from harness.result import (
    Benchmark,
    EvaluationResult,
    Metric,
    Phase,
    RunResult,
    Score,
    SubmissionRecord,
)

HPARAMS_SHA256: Final = hashlib.sha256(b"of no benchmark").hexdigest()


def digest(what: str, number: int) -> str:
    return hashlib.sha256(f"{what} {number}".encode()).hexdigest()


def example(number: int) -> EvaluationResult:
    """A result document of three runs, with a log of some length."""
    runs = tuple(
        RunResult(
            run=run,
            challenge_seed=f"{run:064x}",
            steps=6,
            tokens=6 * 524_288,
            seconds=62.9 + run,
            tokens_per_second=6 * 524_288 / (62.9 + run),
            mfu_active_params=0.4,
            mfu_matmul_flops=0.44,
            reported_losses=(7.4101, 7.4102),
            reported_memory_bytes=(61_203_283_968, 60_129_542_144),
            reference_loss=7.4099,
            step_weights=(1.001, 0.999, 1.004, 0.998, 1.0, 1.002),
            metrics=tuple(
                Metric(name=name, measured=0.3 * allowed, allowed=allowed)
                for name, allowed in (
                    ("loss", 0.0023), ("update_error", 0.016), ("tensor_update_error", 0.11),
                    ("slice_update_error", 0.082), ("norm_ratio", 0.001),
                    ("tensor_norm_ratio", 0.056), ("step_weight", 0.02),
                )
            ),
            findings=(),
        )
        for run in range(3)
    )  # fmt: skip
    return EvaluationResult(
        verdict=Verdict.ACCEPTED,
        code=Code.OK,
        message="accepted: the update is that of the reference",
        score=Score(
            mfu=0.4,
            basis="active_params",
            mfu_active_params=0.4,
            mfu_matmul_flops=0.44,
            tokens_per_second=50_000.0,
            total_params=30_500_000_000,
            active_params=3_300_000_000,
            flops_per_token=19_800_000_000.0,
            formula_version="1",
            peak_tflops=989.4,
            peak_source="table",
        ),
        benchmark=Benchmark(
            name="qwen3-30b-a3b",
            hparams_sha256=HPARAMS_SHA256,
            model_sha256="a" * 64,
            data_sha256="b" * 64,
            calibrated=True,
        ),
        submission=SubmissionRecord(name="train.py", sha256="c" * 64, strategy={"dp_size": 2}),
        isolation="docker",
        world_size=2,
        machine=Machine(
            platform="Linux 6.1.0",
            cores=16,
            device="cuda",
            devices=("NVIDIA H100 80GB HBM3",) * 2,
            driver="560.35.03",
            trainjudge="0.1.0",
            python="3.11.2",
            torch="2.13.0",
            transformers="5.23.0",
        ),
        runs=runs,
        phases=tuple(
            Phase(name=name, seconds=seconds)
            for name, seconds in (
                ("prepare", 2.1), ("load", 31.4), ("timed", 188.7), ("reference", 201.2),
                ("verify", 12.9),
            )
        ),
        warnings=(),
        started_at="2026-11-24T12:00:00+00:00",
        log="".join(f"step {step} of {number}: loss 7.{step:03}\n" for step in range(200)),
    )  # fmt: skip
