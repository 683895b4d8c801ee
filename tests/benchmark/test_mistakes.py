"""What is often done instead of what a benchmark asks for."""

from typing import Any

import pytest

from harness.benchmark.mistakes import in_words, likely_mistakes, numerics_in_words
from harness.benchmark.problem import AdamW, Numerics, Sgd

PLAIN = Sgd(name="sgd", lr=0.1)
FULL: dict[str, Any] = {"lr": 0.001, "weight_decay": 0.1, "warmup_steps": 2, "max_grad_norm": 1.0}
RICH = AdamW(name="adamw", beta1=0.8, beta2=0.95, eps=1e-4, **FULL)


@pytest.mark.parametrize(
    ("optimizer", "words"),
    [
        (PLAIN, "SGD with lr 0.1, momentum 0, weight decay 0, no warm-up, no clipping"),
        (
            RICH,
            "AdamW with lr 0.001, betas 0.8 and 0.95, eps 0.0001, weight decay 0.1, "
            "linear warm-up over 2 steps, gradients clipped to norm 1",
        ),
    ],
    ids=["sgd", "adamw"],
)
def test_all_settings_are_told_the_missing_ones_too(optimizer: Sgd | AdamW, words: str) -> None:
    assert in_words(optimizer) == words


def test_the_lowest_precision_of_everything_is_told() -> None:
    numerics = Numerics(compute_dtype="bfloat16", state_dtype="bfloat16")
    assert numerics_in_words(numerics) == (
        "matrix products in bfloat16, reductions in float32 and optimizer state in bfloat16 at least"
    )


def test_of_a_plain_benchmark_what_others_add_is_likely() -> None:
    found = {mistake.words: mistake.optimizer for mistake in likely_mistakes(PLAIN)}
    assert found == {
        "with AdamW instead of SGD": AdamW(name="adamw", lr=0.1),
        "with AdamW at lr 0.001 instead of SGD": AdamW(name="adamw", lr=0.001),
        "with momentum 0.9": Sgd(name="sgd", lr=0.1, momentum=0.9),
        "with gradients clipped to norm 1": Sgd(name="sgd", lr=0.1, max_grad_norm=1.0),
    }


def test_of_a_rich_one_what_others_leave_out() -> None:
    found = {mistake.words: mistake.optimizer for mistake in likely_mistakes(RICH)}
    rich = RICH.model_dump()
    assert found == {
        "without clipping": AdamW(**rich | {"max_grad_norm": None}),
        "without the warm-up": AdamW(**rich | {"warmup_steps": 0}),
        "without weight decay": AdamW(**rich | {"weight_decay": 0.0}),
        "with SGD instead of AdamW": Sgd(name="sgd", **FULL),
        "with SGD at lr 0.1 instead of AdamW": Sgd(name="sgd", **FULL | {"lr": 0.1}),
        "with torch's default betas": AdamW(**rich | {"beta1": 0.9, "beta2": 0.999}),
        "with torch's default eps": AdamW(**rich | {"eps": 1e-8}),
    }


def test_momentum_that_is_asked_for_may_be_missing() -> None:
    found = likely_mistakes(Sgd(name="sgd", lr=0.1, momentum=0.9))
    assert ("without momentum", PLAIN) in [(each.words, each.optimizer) for each in found]


@pytest.mark.parametrize("optimizer", [PLAIN, RICH, AdamW(name="adamw", lr=0.1)])
def test_no_mistake_is_what_is_asked_for(optimizer: Sgd | AdamW) -> None:
    assert optimizer not in [mistake.optimizer for mistake in likely_mistakes(optimizer)]
