"""Which cheats a caller asks for, and which of them are any on a benchmark."""

from dataclasses import replace
from typing import Any

import pytest

from harness.benchmark.hparams import Hparams, LoadedHparams
from harness.benchmark.model_config import load_config
from harness.benchmark.snapshot import Snapshot
from harness.errors import Code, InputError
from harness.power.families import STRENGTHS, possible, wanted
from harness.reference.cheats.families import FAMILIES, LESS_EXACT, Cheat, Family
from harness.score.flops import ParameterCount, count_parameters

ADAMW = {"name": "adamw", "lr": 0.001, "weight_decay": 0.1}


@pytest.fixture(scope="module")
def count(snapshot: Snapshot) -> ParameterCount:
    return count_parameters(load_config(str(snapshot.model_dir)))


def test_every_family_has_strengths() -> None:
    assert set(STRENGTHS) == set(FAMILIES)
    for strengths in STRENGTHS.values():
        assert list(strengths) == sorted(strengths)
        assert strengths[0] > 0 and strengths[-1] <= 1


def test_nothing_asked_for_is_everything() -> None:
    everything = wanted([])
    assert {cheat.family for (cheat,) in everything} == set(FAMILIES)
    assert len(everything) == sum(map(len, STRENGTHS.values()))


def test_families_strengths_and_several_at_once_can_be_asked_for() -> None:
    top_1, rows = Cheat(family="top_1", strength=0.3), Cheat(family="rows", strength=0.25)
    assert wanted(["window", "top_1=0.3", "top_1=0.3+rows=0.25"]) == [
        *((Cheat(family="window", strength=part),) for part in STRENGTHS["window"]),
        (top_1,),
        (top_1, rows),
    ]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nonsense", "no family nonsense; known: random_tokens"),
        ("nonsense=0.5", "no family nonsense; known"),
        ("top_1=much", "top_1=much: how much is left out"),
        ("top_1=0", "A part above 0"),
        ("top_1=1.5", "1 at most: top_1=0.1"),
        ("top_1=nan", "how much is left out"),
        ("top_1=0.1+rows", "rows: how much is left out"),
        ("", "there is no family"),
    ],
)
def test_anything_else_is_the_callers_mistake(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        wanted([name])
    assert caught.value.code is Code.BAD_ARGUMENT


def of(loaded: LoadedHparams, allowed: dict[str, str], optimizer: dict[str, Any]) -> Hparams:
    raw = loaded.hparams.model_dump()
    raw["numerics"] |= allowed
    raw["optimizer"] = optimizer
    return type(loaded.hparams).model_validate(raw)


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
    loaded: LoadedHparams,
    count: ParameterCount,
    allowed: dict[str, str],
    optimizer: dict[str, Any],
    tried: set[str],
) -> None:
    hparams = of(loaded, allowed, optimizer)
    assert {
        cheat.family for (cheat,) in possible(wanted(list(LESS_EXACT)), hparams, count)
    } == tried


def test_what_a_benchmark_has_nothing_of_cannot_be_left_out(
    loaded: LoadedHparams, count: ParameterCount
) -> None:
    def left(hparams: Hparams, count: ParameterCount) -> set[Family]:
        """Of all families those that are none."""
        return set(FAMILIES) - {each.family for (each,) in possible(wanted([]), hparams, count)}

    adamw = of(loaded, {}, ADAMW)
    assert left(adamw, count) == set()
    assert left(of(loaded, {"compute_dtype": "bfloat16"}, ADAMW), count) == {
        "products_bf16", "products_tf32", "backward_bf16",
    }  # fmt: skip
    plain = of(loaded, {}, {"name": "sgd", "lr": 0.1})
    assert left(plain, count) == {
        "state_bf16", "state_int8", "state_shared", "epsilon", "bias_correction", "weight_decay",
    }  # fmt: skip
    dense = replace(count, num_experts=0, top_k=0)
    assert left(adamw, dense) == {"top_1", "top_1_backward", "expert_gradients", "frozen_routers"}
    assert left(adamw, replace(count, top_k=1)) == {"top_1", "top_1_backward"}


def test_several_at_once_are_left_out_if_one_of_them_is_no_cheat(
    loaded: LoadedHparams, count: ParameterCount
) -> None:
    asked = wanted(["epsilon=0.5+rows=0.125", "rows=0.125"])
    assert list(possible(asked, loaded.hparams, count)) == asked[1:]
