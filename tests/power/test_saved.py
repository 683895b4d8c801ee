"""What a cheat saves, by hand."""

import pytest

from harness.benchmark.model_config import load_config
from harness.benchmark.snapshot import Snapshot
from harness.power.families import STRENGTHS, wanted
from harness.power.saved import saved_bytes, saved_flops
from harness.reference.cheats.families import FAMILIES
from harness.score.flops import ParameterCount, count_parameters

LENGTH = 256
# The embedded model: 4 layers of 128 x (128 + 2·64 + 128), 2 of 8 experts of 3·128², a router; 2048 x 128.
HEAD, ATTENTION, EXPERT, ROUTER = 2048 * 128, 128 * (128 + 128 + 128), 3 * 128 * 128, 8 * 128
LAYER = ATTENTION + 2 * EXPERT + ROUTER
SCORES = 12 * 4 * 128 * LENGTH
PRODUCTS = 6 * (HEAD + 4 * LAYER) + SCORES


@pytest.fixture(scope="module")
def count(snapshot: Snapshot) -> ParameterCount:
    return count_parameters(load_config(str(snapshot.model_dir)))


@pytest.mark.parametrize(
    ("cheats", "part"),
    [
        ("random_tokens=0.1", 0.1 * 6 * (HEAD + LAYER) / PRODUCTS),
        ("lowest_loss_tokens=0.1", 0.1 * 4 * (HEAD + LAYER) / PRODUCTS),
        ("last_positions=0.1", 0.1),
        ("stale_steps=0.25", 0.25),
        ("extrapolated_steps=0.25", 0.25),
        ("top_1=0.2", 0.2 * 6 * 4 * EXPERT / PRODUCTS),
        ("top_1_backward=0.2", 0.2 * 4 * 4 * EXPERT / PRODUCTS),
        ("expert_gradients=0.2", 0.2 * 4 * 4 * 2 * EXPERT / PRODUCTS),
        (
            "attention_gradients=0.2",
            0.2 * (4 * 4 * (ATTENTION + ROUTER) + SCORES * 2 / 3) / PRODUCTS,
        ),
        ("layer_gradients=0.2", 0.2 * 2 / 3 * (PRODUCTS - 6 * HEAD) / PRODUCTS),
        ("frozen_layers=0.25", 0.25 * 2 / 3 * (PRODUCTS - 6 * HEAD) / PRODUCTS),
        ("window=0.5", 0.25 / 2 * SCORES / PRODUCTS),
        ("backward_fp8=1", 1 / 3 * (1 - SCORES / PRODUCTS)),
        ("forward_fp8=1", 1 / 6 * (1 - SCORES / PRODUCTS)),
        ("products_bf16=1", 0.5),
        ("products_fp8=1", 0.5 * (1 - SCORES / PRODUCTS)),
        ("learning_rate=0.01", 0.0),
        ("reductions_bf16=1", 0.0),
        ("frozen_norms=1", 0.0),
        ("last_positions=0.1+products_bf16=1", 1 - 0.9 * 0.5),
    ],
)
def test_savings_are_those_of_the_embedded_model(
    count: ParameterCount, cheats: str, part: float
) -> None:
    assert saved_flops(wanted([cheats])[0], count, LENGTH) == pytest.approx(part, rel=1e-6)


@pytest.mark.parametrize(
    ("cheats", "part"),
    [
        ("reductions_bf16=1", 0.5),
        ("reductions_int8=1", 0.75),
        ("reductions_sparse=0.3", 0.3),
        ("local_sgd=0.75", 0.75),
        ("rows=0.125", 0.0),
        ("reductions_sparse=0.3+reductions_int8=1", 1 - 0.7 * 0.25),
    ],
)
def test_what_is_not_sent_saves_bytes(cheats: str, part: float) -> None:
    assert saved_bytes(wanted([cheats])[0]) == pytest.approx(part)


def test_every_family_saves_a_part(count: ParameterCount) -> None:
    for family in FAMILIES:
        for cheats in wanted([f"{family}={part}" for part in STRENGTHS[family]]):
            assert 0 <= saved_flops(cheats, count, LENGTH) < 1 and 0 <= saved_bytes(cheats) < 1
