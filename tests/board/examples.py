"""Hand-made result documents, train files, and a board to put them on."""

import csv
import functools
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Final

from harness.board.organise import SeasonPlan, add_author, open_season
from harness.board.outcome import finish
from harness.board.queue import WorkerId, take
from harness.board.rule import ScoringRule
from harness.board.store import Store
from harness.board.submit import Examined, Handed, examine, submit
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
from harness.verify.findings import Finding, Severity, TensorFinding

#: The benchmark that all examples are of.
HPARAMS_SHA256: Final = sha256(b"hparams of the examples").hexdigest()
#: The class of the machine below, as boards name it.
HARDWARE: Final = "2 x NVIDIA H100 80GB HBM3"
PEAK_TFLOPS: Final = 989.4
#: A worker of no real process: nobody can find out that it is gone.
ELSEWHERE: Final = WorkerId("elsewhere:x:1", "machine-1")

#: What train files are made of here.
OPERATIONS: Final = (
    "total + 1", "total - model", "total * 3", "-total", "abs(total)", "next(data_iterator)",
    "optimizer.step(total)", "[total, total]", "total.sum()", "total if device else model",
    "total[0]", "total @ total", "max(total, num_steps)", "{total: num_gpus}", "not total",
    "model(total, device=device)",
)  # fmt: skip

#: Measured in an honest run, and allowed.
METRICS: Final = (
    ("loss", 0.0004, 0.0023),
    ("update_error", 0.0051, 0.016),
    ("tensor_update_error", 0.034, 0.11),
    ("slice_update_error", 0.029, 0.082),
    ("norm_ratio", 0.0002, 0.001),
    ("tensor_norm_ratio", 0.018, 0.056),
    ("step_weight", 0.004, 0.02),
)


def train_file(number: int = 1) -> bytes:
    """A train file for two ranks; each number is another program, and no near copy."""
    steps = (f"    total = {OPERATIONS[int(c, 16)]}\n" for c in sha256(b"%d" % number).hexdigest())
    return (
        "def get_strategy():\n"
        "    return {'dp_size': 2}\n\n\n"
        "def inner_steps(model, data_iterator, optimizer, num_steps, device, num_gpus=1):\n"
        f"    total = {number}\n{''.join(steps)}    return total\n"
    ).encode()


def accepted_result(
    mfus: Sequence[float] = (0.40, 0.42, 0.41),
    *,
    peak_tflops: float = PEAK_TFLOPS,
    isolation: str = "docker",
    devices: tuple[str, ...] = ("NVIDIA H100 80GB HBM3",) * 2,
    log: str = "step 1: loss 7.62\nstep 2: loss 7.41\n",
) -> EvaluationResult:
    """Accepted, with one run for each MFU (active parameters); the median is the score."""
    runs = tuple(_run(number, mfu) for number, mfu in enumerate(mfus))
    middle = sorted(runs, key=lambda run: run.seconds)[len(runs) // 2]
    assert middle.mfu_active_params is not None
    assert middle.mfu_matmul_flops is not None
    score = Score(
        mfu=middle.mfu_active_params,
        basis="active_params",
        mfu_active_params=middle.mfu_active_params,
        mfu_matmul_flops=middle.mfu_matmul_flops,
        tokens_per_second=middle.tokens_per_second,
        total_params=30_500_000_000,
        active_params=3_300_000_000,
        flops_per_token=19_800_000_000.0,
        formula_version="1",
        peak_tflops=peak_tflops,
        peak_source="table",
    )
    return _result(
        Verdict.ACCEPTED,
        Code.OK,
        "accepted: the update is that of the reference",
        score=score,
        runs=runs,
        isolation=isolation,
        machine=_machine(devices),
        log=log,
    )


def rejected_result(
    code: Code = Code.UPDATE_MISMATCH, *, message: str | None = None, log: str = ""
) -> EvaluationResult:
    """Rejected. For its numbers: one run, with metrics over what is allowed; else before any run."""
    if code not in (Code.UPDATE_MISMATCH, Code.LOSS_MISMATCH):
        why = message or f"the submission failed: {code.meaning}"
        return _result(Verdict.REJECTED, code, why, log=log, machine=_machine())
    why = message or "update_error is 0.31, and at most 0.016 is allowed: is a step left out?"
    finding = Finding(
        code=code,
        check="update_error",
        severity=Severity.REJECTS,
        message=why,
        measured=0.31,
        allowed=0.016,
        worst=(
            TensorFinding(
                tensor="model.layers.0.mlp.experts.gate_up_proj",
                slice_index=5,
                measured=0.44,
                message="expert 5 moved 0.56 of its way",
            ),
        ),
    )
    run = _run(0, None, wrong=("update_error", 0.31), findings=(finding,))
    return _result(Verdict.REJECTED, code, why, runs=(run,), machine=_machine(), log=log)


def error_result(
    code: Code = Code.WORKER_FAILED, message: str = "rank 1 failed before the file was loaded"
) -> EvaluationResult:
    """Our own failure, before the submission was run; it never got to a machine."""
    return _result(Verdict.ERROR, code, message, detail="Traceback ...\nOSError: [Errno 5]")


def board_with(
    store: Store, *authors: str, rule: ScoringRule | None = None, season: str = "autumn"
) -> None:
    """An open season of the examples' benchmark, and these authors. Without paired runs by default."""
    open_season(
        store,
        SeasonPlan(
            name=season,
            hparams_sha256=HPARAMS_SHA256,
            benchmark="qwen3-30b-a3b",
            world_size=2,
            hardware=HARDWARE,
            rule=rule or ScoringRule(pairs=0),
        ),
    )
    for author in authors:
        add_author(store, author)


def hand_in(
    store: Store, author: str, number: int = 1, note: str = "", season: str | None = None
) -> int:
    """Submit the train file of that number; gives the submission's number."""
    handed = Handed(author, "train.py", train_file(number), note, season)
    return submit(store, handed, _examined(number))


@functools.cache
def _examined(number: int) -> Examined:
    return examine(train_file(number), world_size=2)


def judge_next(store: Store, result: EvaluationResult, worker: WorkerId = ELSEWHERE) -> int:
    """Let the next evaluation end with this result; gives the submission's number."""
    taken = take(store, worker, HPARAMS_SHA256)
    assert taken is not None, "nothing waits"
    finish(store, taken, result, seconds=33.0)
    return taken.submission


def _run(
    number: int,
    mfu: float | None,
    wrong: tuple[str, float] | None = None,
    findings: tuple[Finding, ...] = (),
) -> RunResult:
    # 1 is the time of a run at an MFU of 0.4: 6 steps of 524,288 tokens in 62.9 s.
    tokens = 6 * 524_288
    seconds = 62.9 * 0.4 / (mfu or 0.4)
    measured = {name: value for name, value, _ in METRICS} | (dict([wrong]) if wrong else {})
    return RunResult(
        run=number,
        challenge_seed=f"{number + 1:064x}",
        steps=6,
        tokens=tokens,
        seconds=seconds,
        tokens_per_second=tokens / seconds,
        mfu_active_params=mfu,
        mfu_matmul_flops=None if mfu is None else mfu * 1.1,
        reported_losses=(7.4101, 7.4102),
        reported_memory_bytes=(61_203_283_968, 60_129_542_144),
        reference_loss=7.4099,
        step_weights=(1.001, 0.999, 1.004, 0.998, 1.0, 1.002),
        metrics=tuple(
            Metric(name=name, measured=measured[name], allowed=allowed)
            for name, _, allowed in METRICS
        ),
        findings=findings,
    )


def _machine(devices: tuple[str, ...] = ("NVIDIA H100 80GB HBM3",) * 2) -> Machine:
    cpu = "H100" not in "".join(devices)
    return Machine(
        platform="Linux 6.1.0",
        cores=16,
        device="cpu" if cpu else "cuda",
        devices=devices,
        driver="" if cpu else "560.35.03",
        trainjudge="0.1.0",
        python="3.11.2",
        torch="2.13.0",
        transformers="5.23.0",
    )


def _result(
    verdict: Verdict,
    code: Code,
    message: str,
    *,
    detail: str = "",
    score: Score | None = None,
    runs: tuple[RunResult, ...] = (),
    isolation: str = "docker",
    machine: Machine | None = None,
    log: str = "",
) -> EvaluationResult:
    return EvaluationResult(
        verdict=verdict,
        code=code,
        message=message,
        detail=detail,
        score=score,
        benchmark=Benchmark(
            name="qwen3-30b-a3b",
            hparams_sha256=HPARAMS_SHA256,
            model_sha256="a" * 64,
            data_sha256="b" * 64,
            calibrated=True,
        ),
        submission=SubmissionRecord(
            name="train.py", sha256="c" * 64, strategy={"dp_size": 2, "ep_borrows_dp": False}
        ),
        isolation=isolation,
        world_size=2,
        machine=machine,
        runs=runs,
        phases=(
            Phase(name="prepare", seconds=2.1),
            Phase(name="load", seconds=31.4),
            Phase(name="timed", seconds=188.7),
            Phase(name="reference", seconds=201.2),
            Phase(name="verify", seconds=12.9),
        ),
        warnings=(),
        started_at="2026-11-24T12:00:00+00:00",
        log=log,
    )


def published_rows(folder: Path) -> list[dict[str, str]]:
    """The board of a published folder, as its CSV has it."""
    with (folder / "board.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
