"""The rules of counting, one by one: experts, attention, heads."""

from typing import Any

import pytest

from harness.errors import InputError
from harness.score import flops
from harness.score.flops import attention_flops_per_token
from tests.score.on_paper import MADE_UP, config_of


def test_the_two_bases_of_a_model_on_paper() -> None:
    # 6 · 2 layers · 3 heads · (4 + 9) · 10 tokens
    assert attention_flops_per_token(MADE_UP, 10) == 4680
    assert flops.flops_per_token(MADE_UP, 10, "active_params") == 5_999_999_994
    assert flops.flops_per_token(MADE_UP, 10, "matmul_flops") == 6 * 700 + 4680


@pytest.mark.parametrize(
    ("fields", "routing"),
    [
        ({}, (0, 0)),
        ({"num_experts": None, "num_experts_per_tok": 2}, (0, 0)),
        ({"num_experts": 0}, (0, 0)),
        ({"num_experts": 1, "num_experts_per_tok": 1}, (0, 0)),
        ({"num_experts": 2, "num_experts_per_tok": 1}, (2, 1)),
        ({"num_experts": 2, "num_experts_per_tok": 2}, (2, 2)),
        ({"num_local_experts": 8, "num_experts_per_tok": 2}, (8, 2)),
        ({"n_routed_experts": 8, "moe_top_k": 3}, (8, 3)),
        ({"moe_num_experts": 8, "moe_topk": 4}, (8, 4)),
        ({"num_experts": 8, "moe_k": 5}, (8, 5)),
        # What is said in transformers' own words goes first; what is no number says nothing.
        ({"num_experts": 4, "n_routed_experts": 8, "moe_k": 2, "num_experts_per_tok": 3}, (4, 3)),
        ({"num_experts": [4, 8], "num_local_experts": 8, "moe_top_k": 2}, (8, 2)),
    ],
    ids=str,
)
def test_routing_is_known_by_any_of_its_names(
    fields: dict[str, Any], routing: tuple[int, int]
) -> None:
    assert flops._routing(config_of(fields)) == routing


@pytest.mark.parametrize("top_k", [None, -1, 0, 5, "2"])
def test_a_token_visits_at_least_one_expert_and_at_most_all(top_k: object) -> None:
    with pytest.raises(InputError, match="4 experts, but it is unclear"):
        flops._routing(config_of({"num_experts": 4, "num_experts_per_tok": top_k}))


@pytest.mark.parametrize(
    ("kinds", "number"),
    [
        (None, 5),
        ([], 0),
        (["full_attention", "sliding_attention", "chunked_attention"], 3),
        (["linear_attention", "full_attention", "conv", "mlp", "moe"], 1),
        (["full_attention"] * 3 + ["conv"], 3),
    ],
)
def test_only_layers_in_which_tokens_attend_to_each_other_count(
    kinds: list[str] | None, number: int
) -> None:
    text = config_of({"num_hidden_layers": 5, "layer_types": kinds})
    assert flops._attention_layers(text, text) == number


def test_layers_without_a_formula_are_named() -> None:
    text = config_of({"layer_types": ["full_attention", "mamba", "hybrid", "conv", "mamba"]})
    with pytest.raises(InputError, match=r"of the kind hybrid, mamba$"):
        flops._attention_layers(text, text)


LATENT: dict[str, Any] = {
    "num_attention_heads": 3,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4,
    "v_head_dim": 6,
    "head_dim": 5,
    "hidden_size": 21,
}


@pytest.mark.parametrize(
    ("change", "widths"),
    [
        ({}, (12, 6)),
        # Without latent attention other fields of the same names mean nothing.
        ({"kv_lora_rank": None}, (5, 5)),
        ({"v_head_dim": None}, (5, 5)),
        ({"kv_lora_rank": None, "head_dim": None}, (7, 7)),
    ],
    ids=str,
)
def test_a_head_is_as_wide_as_its_kind_of_attention_makes_it(
    change: dict[str, Any], widths: tuple[int, int]
) -> None:
    text = config_of({**LATENT, **change})
    heads = flops._heads(text, text)
    assert (heads.number, heads.qk_dim, heads.v_dim) == (3, *widths)


@pytest.mark.parametrize("missing", ["num_attention_heads", "qk_nope_head_dim"])
def test_heads_of_no_known_kind_are_an_error(missing: str) -> None:
    text = config_of({name: value for name, value in LATENT.items() if name != missing})
    with pytest.raises(InputError, match=f"attention heads of no known kind .*{missing}"):
        flops._heads(text, text)


@pytest.mark.parametrize(
    ("parameters", "experts", "top_k", "idle"),
    [(800, 8, 2, 600), (800, 8, 8, 0), (800, 8, 1, 700), (0, 8, 2, 0), (800, 0, 0, 0)],
)
def test_experts_that_a_token_does_not_visit_are_idle(
    parameters: int, experts: int, top_k: int, idle: int
) -> None:
    assert flops._idle(parameters, experts, top_k) == idle


def test_the_first_line_of_a_reason_is_enough() -> None:
    assert flops._uncountable(config_of({}), "\n one\ntwo\n").message == (
        "cannot count the parameters of a made-up model: one"
    )
    assert flops._uncountable(config_of({}), " \n").message.endswith("a made-up model: ")
