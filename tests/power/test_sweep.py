"""What a cheat saves, and the way of a sweep from training to a file that can be added to."""

from pathlib import Path
from typing import Any

import pytest

from harness.benchmark.hparams import LoadedHparams
from harness.benchmark.model_config import load_config
from harness.benchmark.snapshot import Snapshot
from harness.errors import Code, InputError
from harness.power.measured import Power
from harness.power.sweep import STRENGTHS, cheated, cheats, measure, saved
from harness.reference.cheats import FAMILIES, LESS_EXACT, Cheat, Family
from harness.reference.task import Variant
from harness.score.flops import count_parameters
from tests.forked_ranks import ForkedRanks

ADAMW = {"name": "adamw", "lr": 0.001}

pytest_plugins = ("tests.judging",)


def test_every_family_has_strengths() -> None:
    assert set(STRENGTHS) == set(FAMILIES)
    for strengths in STRENGTHS.values():
        assert list(strengths) == sorted(strengths)
        assert strengths[0] > 0 and strengths[-1] <= 1


def test_savings_are_those_of_the_embedded_model(snapshot: Snapshot) -> None:
    """By hand: 4 layers of 128 x (128 + 2·64 + 128), 2 of 8 experts of 3·128², a router; 2048 x 128."""
    count = count_parameters(load_config(str(snapshot.model_dir)))
    head, attention, expert = 2048 * 128, 128 * (128 + 128 + 128), 3 * 128 * 128
    products = 6 * (head + 4 * (attention + 2 * expert + 8 * 128)) + 12 * 4 * 128 * 256
    by_hand = {
        ("random_tokens", 0.1): 0.1 * 6 * head / products,
        ("lowest_loss_tokens", 0.1): 0.1 * 4 * head / products,
        ("last_positions", 0.1): 0.1,
        ("top_1", 0.2): 0.2 * 6 * 4 * expert / products,
        ("expert_gradients", 0.2): 0.2 * 4 * 4 * 2 * expert / products,
        ("backward_fp8", 1.0): 1 / 3,
        ("learning_rate", 0.01): 0.0,
        ("products_bf16", 1.0): 0.5,
        ("reductions_bf16", 1.0): 0.0,
    }
    for (family, strength), part in by_hand.items():
        cheat = Cheat.model_validate({"family": family, "strength": strength})
        assert saved(cheat, count, 256) == pytest.approx(part, rel=1e-6), family


@pytest.mark.parametrize(
    ("allowed", "optimizer", "tried"),
    [
        ({}, {"name": "sgd", "lr": 0.1}, {"products_bf16", "reductions_bf16"}),
        ({}, {"name": "sgd", "lr": 0.1, "momentum": 0.9}, set(LESS_EXACT)),
        ({"compute_dtype": "bfloat16"}, ADAMW, {"reductions_bf16", "state_bf16"}),
        ({"reduce_dtype": "bfloat16"}, ADAMW, {"products_bf16", "state_bf16"}),
        ({"state_dtype": "bfloat16"}, ADAMW, {"products_bf16", "reductions_bf16"}),
    ],
)
def test_what_a_benchmark_allows_is_no_cheat(
    loaded: LoadedHparams, allowed: dict[str, str], optimizer: dict[str, Any], tried: set[str]
) -> None:
    raw = loaded.hparams.model_dump()
    raw["numerics"] |= allowed
    raw["optimizer"] = optimizer
    hparams = type(loaded.hparams).model_validate(raw)
    assert {cheat.family for cheat in cheats(list(LESS_EXACT), hparams)} == tried


def test_less_exact_is_a_setting_of_the_loop() -> None:
    base = Variant(world_size=1, micro_batches=1, compute_dtype="float32")
    cheat = Cheat(family="state_bf16", strength=1.0)
    assert cheated(base, cheat) == base.model_copy(
        update={"state_dtype": "bfloat16", "cheat": cheat}
    )
    late = Cheat(family="top_1", strength=0.5)
    assert cheated(base, late) == base.model_copy(update={"cheat": late})


def test_an_unknown_family_is_the_callers_mistake(tmp_path: Path) -> None:
    from harness.api import measure_power

    with pytest.raises(InputError, match="no family nonsense; known: random_tokens") as caught:
        measure_power(None, None, "none", None, ["nonsense"], 1, None)
    assert caught.value.code is Code.BAD_ARGUMENT


def test_a_crude_cheat_is_found_and_none_at_all_is_not(
    loaded: LoadedHparams,
    snapshot: Snapshot,
    forked_ranks: ForkedRanks,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The whole way, with real training on short rows."""
    raw = loaded.hparams.model_dump()
    raw |= {"sequence_length": 32, "steps": {"min": 2, "max": 2}, "global_batch": 4}
    short = loaded.model_copy(update={"hparams": type(loaded.hparams).model_validate(raw)})
    monkeypatch.setattr("harness.power.sweep.STRENGTHS", {"rows": (0.25,), "learning_rate": (0.0,)})
    said: list[str] = []
    kept: list[Power] = []
    families: list[Family] = ["rows", "learning_rate"]
    power = measure(short, snapshot, forked_ranks, families, 1, said.append, kept.append)
    rows, honest = power.cases
    assert [len(known.cases) for known in kept] == [1, 2]
    assert (rows.found, honest.found) == (1, 0)
    assert rows.times > 1 > honest.times
    assert said[1:] == ["rows 0.25: found in 1 of 1 runs", "learning_rate 0: found in 0 of 1 runs"]
