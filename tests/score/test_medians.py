"""The numbers that are ranked, on a made-up model whose figures can be checked on paper.

A token of a row of 10 costs, with the numbers of `MODEL`:

- active_params: 6 · 1000 = 6000 FLOPs;
- matmul_flops: 6 · 700 = 4200 for the matrices, and 6 · 2 layers · 3 heads · (4 + 6) · 10 = 3600 for
  attention, 7800 together.

Four devices of 0.002 TFLOP/s have 8e9 FLOP/s.
"""

import itertools

import pytest

from harness.benchmark.hparams import Hparams, LoadedHparams
from harness.benchmark.rules import Mfu
from harness.result import RunResult
from harness.score.flops import ParameterCount
from harness.score.medians import score
from harness.score.peaks import Peak

MODEL = ParameterCount(
    model_type="made-up",
    total=1500,
    active=1000,
    input_embedding=100,
    tied=False,
    matmul_active=700,
    routed_experts=600,
    layers=5,
    moe_layers=1,
    num_experts=6,
    top_k=1,
    attention_layers=2,
    attention_heads=3,
    qk_head_dim=4,
    v_head_dim=6,
)
PEAK = Peak(0.002, "hparams", "made-up device")
WORLD = 4


def run(number: int, tokens: int, seconds: float, tokens_per_second: float) -> RunResult:
    return RunResult(
        run=number,
        challenge_seed=f"{number:032x}",
        steps=3,
        tokens=tokens,
        seconds=seconds,
        tokens_per_second=tokens_per_second,
        reported_losses=(1.5, None),
        reference_loss=1.25,
        step_weights=(1.0, 0.5),
        metrics=(),
        findings=(),
    )


# The middle one is neither the mean nor an end; the orders see to it that its place tells nothing.
MIDDLE = run(0, tokens=4_000_000, seconds=10.0, tokens_per_second=400_000.0)
SLOW = run(1, tokens=6_000_000, seconds=30.0, tokens_per_second=200_000.0)
FAST = run(2, tokens=2_000_000, seconds=2.5, tokens_per_second=800_000.0)
#: (active_params, matmul_flops) of the run with that number.
SHARES = {0: (0.3, 0.39), 1: (0.15, 0.195), 2: (0.6, 0.78)}
ORDERS = [list(order) for order in itertools.permutations([MIDDLE, SLOW, FAST])]


def hparams_of(loaded: LoadedHparams, basis: str) -> Hparams:
    mfu = Mfu.model_validate({"basis": basis})
    return loaded.hparams.model_copy(update={"sequence_length": 10, "mfu": mfu})


@pytest.mark.parametrize("runs", ORDERS, ids=lambda runs: "-".join(str(it.run) for it in runs))
@pytest.mark.parametrize(
    ("basis", "headline", "flops"),
    [("active_params", 0.3, 6000.0), ("matmul_flops", 0.39, 7800.0)],
)
def test_the_headline_is_the_median_run_of_the_basis_of_the_benchmark(
    loaded: LoadedHparams, basis: str, headline: float, flops: float, runs: list[RunResult]
) -> None:
    found, _ = score(runs, hparams_of(loaded, basis), MODEL, PEAK, WORLD)
    assert found.model_dump() == {
        "mfu": pytest.approx(headline, rel=1e-12),
        "basis": basis,
        "mfu_active_params": pytest.approx(0.3, rel=1e-12),
        "mfu_matmul_flops": pytest.approx(0.39, rel=1e-12),
        "tokens_per_second": 400_000.0,
        "total_params": 1500,
        "active_params": 1000,
        "flops_per_token": flops,
        "formula_version": "1",
        "peak_tflops": 0.002,
        "peak_source": "hparams",
    }


@pytest.mark.parametrize("basis", ["active_params", "matmul_flops"])
def test_of_two_runs_neither_counts_more(loaded: LoadedHparams, basis: str) -> None:
    found, _ = score([FAST, SLOW], hparams_of(loaded, basis), MODEL, PEAK, WORLD)
    assert found.mfu_active_params == pytest.approx(0.375, rel=1e-12)
    assert found.mfu_matmul_flops == pytest.approx(0.4875, rel=1e-12)
    assert found.tokens_per_second == 500_000.0


def test_every_run_keeps_its_place_and_gets_both_shares(loaded: LoadedHparams) -> None:
    runs = [SLOW, FAST, MIDDLE]
    _, scored = score(runs, hparams_of(loaded, "matmul_flops"), MODEL, PEAK, WORLD)
    assert [it.run for it in scored] == [1, 2, 0]
    for before, after in zip(runs, scored, strict=True):
        active, matmul = SHARES[before.run]
        assert after.mfu_active_params == pytest.approx(active, rel=1e-12)
        assert after.mfu_matmul_flops == pytest.approx(matmul, rel=1e-12)
        filled_in = {"mfu_active_params", "mfu_matmul_flops"}
        assert after.model_dump(exclude=filled_in) == before.model_dump(exclude=filled_in)


def test_a_run_that_was_served_nothing_counts_as_nothing(loaded: LoadedHparams) -> None:
    nothing = run(0, tokens=0, seconds=1.0, tokens_per_second=0.0)
    found, _ = score([nothing], hparams_of(loaded, "active_params"), MODEL, PEAK, WORLD)
    assert (found.mfu, found.mfu_active_params, found.mfu_matmul_flops) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("world", "tflops", "share"), [(4, 0.002, 0.3), (2, 0.002, 0.6), (4, 0.004, 0.15)]
)
def test_more_devices_or_a_higher_peak_make_the_same_run_worth_less(
    loaded: LoadedHparams, world: int, tflops: float, share: float
) -> None:
    peak = Peak(tflops, "table", "made-up device")
    found, _ = score([MIDDLE], hparams_of(loaded, "active_params"), MODEL, peak, world)
    assert found.mfu == pytest.approx(share, rel=1e-12)
    assert (found.peak_tflops, found.peak_source) == (tflops, "table")
