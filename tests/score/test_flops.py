"""Parameter and FLOP counts against hand-derived integers, published figures and torch's counter.

The big configs are those that the models were published with. What is expected of them is worked out
here from their dimensions, in this file's own arithmetic, never from the code under test.
"""

import dataclasses
import io
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers.modeling_utils  # noqa: F401 (seconds that the first test would be charged for)
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM

from harness.benchmark.model_config import config_from_dict
from harness.errors import Code, InputError
from harness.score import flops
from harness.score.flops import ParameterCount, attention_flops_per_token, count_parameters
from tests.tiny_models import module


def count(**config: Any) -> ParameterCount:
    return count_parameters(config_from_dict(config, "test"))


def gqa(hidden: int, heads: int, kv_heads: int, head_dim: int) -> int:
    """Matrices of grouped-query attention: queries and output, keys and values."""
    return 2 * hidden * heads * head_dim + 2 * hidden * kv_heads * head_dim


QWEN3_30B_A3B: dict[str, Any] = {
    "model_type": "qwen3_moe",
    "vocab_size": 151936,
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "moe_intermediate_size": 768,
    "num_hidden_layers": 48,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "tie_word_embeddings": False,
}


def test_qwen3_30b_a3b() -> None:
    found = count(**QWEN3_30B_A3B)
    attention = gqa(2048, 32, 4, 128)
    router, expert = 128 * 2048, 3 * 768 * 2048
    norms = 48 * (2 * 2048 + 2 * 128) + 2048  # two a layer, q_norm and k_norm, the last one
    embedding = 151936 * 2048
    matmul = embedding + 48 * (attention + router + 128 * expert)  # the head is as large
    assert found.total == embedding + matmul + norms
    assert found.active == found.total - 48 * 120 * expert
    assert found.matmul_active == matmul - 48 * 120 * expert
    assert (found.input_embedding, found.routed_experts) == (embedding, 48 * 128 * expert)
    assert (found.moe_layers, found.layers, found.num_experts, found.top_k) == (48, 48, 128, 8)
    assert round(found.total / 1e9, 1) == 30.5
    assert int(found.active / 1e8) / 10 == 3.3  # published as 3.3 B
    assert attention_flops_per_token(found, 1024) == 12 * 48 * 32 * 128 * 1024


def test_qwen3_moe_with_dense_layers_between() -> None:
    sparse_step = {**QWEN3_30B_A3B, "decoder_sparse_step": 2, "mlp_only_layers": [1]}
    found = count(**sparse_step)
    # Every second layer is sparse (1, 3, 5, ...), but layer 1 is named as dense.
    assert (found.moe_layers, found.layers) == (23, 48)
    expert, dense, router = 3 * 768 * 2048, 3 * 6144 * 2048, 128 * 2048
    reference = count(**QWEN3_30B_A3B)
    assert found.total == reference.total + 25 * (dense - router - 128 * expert)
    assert found.active == reference.active + 25 * (dense - router - 8 * expert)


def test_mixtral_8x7b() -> None:
    found = count(
        model_type="mixtral",
        vocab_size=32000,
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        num_local_experts=8,
        num_experts_per_tok=2,
        tie_word_embeddings=False,
    )
    expert = 3 * 14336 * 4096
    layer = gqa(4096, 32, 8, 128) + 8 * 4096 + 8 * expert
    embedding, norms = 32000 * 4096, (2 * 32 + 1) * 4096
    assert found.total == 2 * embedding + 32 * layer + norms
    assert found.active == found.total - 32 * 6 * expert
    assert found.matmul_active == embedding + 32 * (layer - 6 * expert)
    assert round(found.total / 1e9, 1) == 46.7
    assert round(found.active / 1e9, 1) == 12.9


def test_deepseek_v3() -> None:
    found = count(
        model_type="deepseek_v3",
        vocab_size=129280,
        hidden_size=7168,
        intermediate_size=18432,
        moe_intermediate_size=2048,
        num_hidden_layers=61,
        num_attention_heads=128,
        num_key_value_heads=128,
        n_shared_experts=1,
        n_routed_experts=256,
        num_experts_per_tok=8,
        first_k_dense_replace=3,
        n_group=8,
        topk_group=4,
        q_lora_rank=1536,
        kv_lora_rank=512,
        qk_nope_head_dim=128,
        qk_rope_head_dim=64,
        v_head_dim=128,
        rope_theta=10000,
        rope_scaling={
            "type": "yarn",
            "factor": 40,
            "beta_fast": 32,
            "beta_slow": 1,
            "mscale": 1.0,
            "mscale_all_dim": 1.0,
            "original_max_position_embeddings": 4096,
        },
        quantization_config={"quant_method": "fp8", "weight_block_size": [128, 128]},
        tie_word_embeddings=False,
    )
    queries = 7168 * 1536 + 1536 * 128 * (128 + 64)
    keys_values = 7168 * (512 + 64) + 512 * 128 * (128 + 128)
    attention = queries + keys_values + 128 * 128 * 7168
    expert, dense, router = 3 * 2048 * 7168, 3 * 18432 * 7168, 256 * 7168
    embedding = 129280 * 7168
    matmul = embedding + 61 * attention + 3 * dense + 58 * (router + 257 * expert)
    norms = 61 * (2 * 7168 + 1536 + 512) + 7168
    assert found.total == embedding + matmul + norms  # the router's bias is a buffer
    # The shared expert counts in full, 8 of the 256 others.
    assert found.active == found.total - 58 * 248 * expert
    assert found.matmul_active == matmul - 58 * 248 * expert
    assert (found.moe_layers, found.layers, found.routed_experts) == (58, 61, 58 * 256 * expert)
    assert round(found.total / 1e9) == 671
    assert round((found.active - embedding) / 1e9) == 37  # published as 37 B
    assert attention_flops_per_token(found, 4096) == 6 * 61 * 128 * (192 + 128) * 4096


def test_qwen15_moe_a27b() -> None:
    found = count(
        model_type="qwen2_moe",
        vocab_size=151936,
        hidden_size=2048,
        intermediate_size=5632,
        moe_intermediate_size=1408,
        shared_expert_intermediate_size=5632,
        num_hidden_layers=24,
        num_attention_heads=16,
        num_key_value_heads=16,
        num_experts=60,
        num_experts_per_tok=4,
        decoder_sparse_step=1,
        tie_word_embeddings=False,
    )
    attention, biases = gqa(2048, 16, 16, 128), 3 * 2048
    expert, shared = 3 * 1408 * 2048, 3 * 5632 * 2048 + 2048  # with its gate
    embedding = 151936 * 2048
    matmul = embedding + 24 * (attention + 60 * 2048 + 60 * expert + shared)
    assert found.total == embedding + matmul + 24 * (biases + 2 * 2048) + 2048
    assert found.active == found.total - 24 * 56 * expert
    assert found.matmul_active == matmul - 24 * 56 * expert
    assert round(found.total / 1e9, 1) == 14.3
    assert round(found.active / 1e9, 1) == 2.7


def test_gpt_oss_20b() -> None:
    found = count(
        model_type="gpt_oss",
        vocab_size=201088,
        hidden_size=2880,
        intermediate_size=2880,
        num_hidden_layers=24,
        num_attention_heads=64,
        num_key_value_heads=8,
        head_dim=64,
        num_local_experts=32,
        num_experts_per_tok=4,
        sliding_window=128,
        attention_bias=True,
        rope_theta=150000,
        rope_scaling={
            "rope_type": "yarn",
            "factor": 32.0,
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "truncate": False,
            "original_max_position_embeddings": 4096,
        },
        quantization_config={"quant_method": "mxfp4"},
        tie_word_embeddings=False,
    )
    attention, sinks = gqa(2880, 64, 8, 64), 64
    attention_bias = 64 * 64 + 2 * 8 * 64 + 2880
    expert, expert_bias = 3 * 2880 * 2880, 3 * 2880
    router, router_bias = 32 * 2880, 32
    embedding = 201088 * 2880
    matmul = embedding + 24 * (attention + router + 32 * expert)
    vectors = 24 * (attention_bias + sinks + router_bias + 32 * expert_bias + 2 * 2880) + 2880
    assert found.total == embedding + matmul + vectors
    assert found.routed_experts == 24 * 32 * (expert + expert_bias)
    assert found.active == found.total - 24 * 28 * (expert + expert_bias)
    assert found.matmul_active == matmul - 24 * 28 * expert
    assert round(found.total / 1e9, 1) == 20.9
    assert round((found.active - embedding) / 1e9, 1) == 3.6  # published without the embedding
    # Half of the layers have a window of 128, and count as the others do.
    assert attention_flops_per_token(found, 1024) == 12 * 24 * 64 * 64 * 1024


def test_llama_31_8b() -> None:
    found = count(
        model_type="llama",
        vocab_size=128256,
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        tie_word_embeddings=False,
    )
    embedding = 128256 * 4096
    matmul = embedding + 32 * (gqa(4096, 32, 8, 128) + 3 * 14336 * 4096)
    assert found.total == found.active == embedding + matmul + (2 * 32 + 1) * 4096
    assert found.matmul_active == matmul
    assert (found.num_experts, found.moe_layers, found.routed_experts) == (0, 0, 0)
    assert round(found.total / 1e9, 2) == 8.03
    assert flops.flops_per_token(found, 8192, "active_params") == 6 * found.total
    assert flops.flops_per_token(found, 8192, "matmul_flops") == (
        6 * matmul + 12 * 32 * 32 * 128 * 8192
    )


@pytest.mark.parametrize("tied", [False, True])
def test_a_tied_embedding_counts_once_and_stays_a_factor(tied: bool) -> None:
    """Qwen3-8B, and the same with its head tied, as the smaller ones of its family have it."""
    found = count(
        model_type="qwen3",
        vocab_size=151936,
        hidden_size=4096,
        intermediate_size=12288,
        num_hidden_layers=36,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=128,
        tie_word_embeddings=tied,
    )
    embedding = 151936 * 4096
    matmul = embedding + 36 * (gqa(4096, 32, 8, 128) + 3 * 12288 * 4096)
    norms = 36 * (2 * 4096 + 2 * 128) + 4096
    assert found.matmul_active == matmul
    assert found.total == matmul + norms + (0 if tied else embedding)
    assert (found.tied, found.input_embedding) == (tied, embedding)


TINY: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 64,
    "intermediate_size": 48,
}
TINY_CONFIGS: dict[str, dict[str, Any]] = {
    "llama": dict(model_type="llama", **TINY),
    "qwen3": dict(model_type="qwen3", head_dim=16, **TINY),
    "qwen3-tied": dict(model_type="qwen3", head_dim=16, tie_word_embeddings=True, **TINY),
    "qwen3_moe": dict(
        model_type="qwen3_moe",
        num_experts=8,
        num_experts_per_tok=2,
        moe_intermediate_size=16,
        head_dim=8,
        mlp_only_layers=[0],
        **TINY,
    ),
    "mixtral": dict(model_type="mixtral", num_local_experts=4, num_experts_per_tok=2, **TINY),
    "qwen2_moe": dict(
        model_type="qwen2_moe",
        num_experts=8,
        num_experts_per_tok=2,
        moe_intermediate_size=16,
        shared_expert_intermediate_size=24,
        **TINY,
    ),
    "deepseek_v3": dict(
        model_type="deepseek_v3",
        n_routed_experts=8,
        num_experts_per_tok=2,
        n_group=2,
        topk_group=1,
        moe_intermediate_size=16,
        first_k_dense_replace=1,
        q_lora_rank=16,
        kv_lora_rank=16,
        qk_rope_head_dim=4,
        qk_nope_head_dim=8,
        v_head_dim=6,
        **{**TINY, "num_key_value_heads": 4},
    ),
    "gpt_oss": dict(
        model_type="gpt_oss",
        num_local_experts=4,
        num_experts_per_tok=2,
        head_dim=8,
        sliding_window=8,
        **TINY,
    ),
}


@pytest.mark.parametrize("experts", ["eager", "batched_mm"])
@pytest.mark.parametrize("name", TINY_CONFIGS)
def test_matmul_flops_are_what_torch_counts(name: str, experts: str) -> None:
    config = config_from_dict(TINY_CONFIGS[name], name)
    found = count_parameters(config)
    model = AutoModelForCausalLM.from_config(
        config, attn_implementation="eager", experts_implementation=experts
    )
    rows, length = 3, 24
    tokens = torch.arange(rows * length).reshape(rows, length) % 64
    with FlopCounterMode(display=False) as counter:
        model(input_ids=tokens, labels=tokens).loss.backward()
    expected = rows * length * flops.flops_per_token(found, length, "matmul_flops")
    assert counter.get_total_flops() == expected


def test_a_small_model_on_paper_whose_layers_have_their_experts_in_two_containers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With every kind of parameter that a rule is for."""

    def layer() -> nn.Module:
        mlp = module(
            router=module(w=(4, 2), b=(4,)),
            up=module(w=(4, 3, 2), b=(4, 3)),
            down=module(w=(4, 2, 3)),
        )
        return module(mlp=mlp, attention=module(w=(2, 2)), norm=module(w=(2,)))

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(10, 2)
            self.layers = nn.ModuleList([layer(), layer()])
            self.head = nn.Linear(2, 10, bias=False)

        def get_input_embeddings(self) -> nn.Module:
            return self.embed

        def get_output_embeddings(self) -> nn.Module:
            return self.head

    monkeypatch.setattr(flops, "_build", lambda config: Model())
    text = config_of(
        {
            "num_experts": 4,
            "num_experts_per_tok": 1,
            "num_hidden_layers": 2,
            "layer_types": ["full_attention", "conv"],
            "num_attention_heads": 1,
            "head_dim": 2,
        }
    )
    # As for a model of text and images, whose config has that of its text inside.
    config = config_of({"get_text_config": lambda: text})
    # A layer: router 8 + 4, experts 24 + 12 (biases) + 24, attention 4, norm 2.
    assert count_parameters(config) == ParameterCount(
        model_type="made-up",
        total=20 + 2 * 78 + 20,
        active=20 + 2 * (78 - 45) + 20,
        input_embedding=20,
        tied=False,
        matmul_active=2 * (8 + 12 + 4) + 20,
        routed_experts=120,
        layers=2,
        moe_layers=2,
        num_experts=4,
        top_k=1,
        attention_layers=1,
        attention_heads=1,
        qk_head_dim=2,
        v_head_dim=2,
    )


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"num_experts_per_tok": 9}, "how many a token visits"),
        ({"num_experts_per_tok": 0}, "how many a token visits"),
        ({"mlp_only_layers": [0, 1]}, "no module holds that many"),
        ({"hidden_size": "wide"}, "hidden_size"),
        ({"num_attention_heads": 0}, "ZeroDivisionError"),
    ],
)
def test_a_count_that_would_be_a_guess_is_an_error(change: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told) as caught:
        count(**{**TINY_CONFIGS["qwen3_moe"], **change})
    assert caught.value.code is Code.BAD_ARGUMENT
    assert "\n" not in caught.value.message


def test_an_unknown_kind_of_attention_is_an_error() -> None:
    hybrid = dict(model_type="falcon_h1", **{**TINY, "num_hidden_layers": 1})
    with pytest.raises(InputError, match="hybrid"):
        count(**hybrid)


def test_mfu_is_the_fraction_of_the_peak_of_all_devices() -> None:
    # 1e9 FLOPs for each of 8e6 tokens in 2 s is 4e15 FLOP/s; four devices have 4 x 1000e12.
    assert flops.mfu(10**9, 8 * 10**6, 2.0, 4, 1000.0) == pytest.approx(1.0)
    assert flops.mfu(10**9, 10**6, 2.0, 4, 250.0) == pytest.approx(0.5)


def test_a_matrix_of_its_own_within_a_stack_of_experts_is_a_factor_and_a_bias_of_theirs_is_none() -> (
    None
):
    stack = module(w=(3, 6, 4), b=(3, 6), shared=module(w=(5, 4), scale=(4,)))
    model = module(mlp=module(router=module(w=(3, 4)), experts=stack))
    factors = flops._matmul_factors(model, {"mlp.experts": stack}, tied=False)
    assert sorted(factors.values()) == [12, 20, 72]


def test_code_that_a_config_brings_along_is_not_run(tmp_path: Path) -> None:
    """A config can name a Python file for the model: counting it must not be a way into the judge."""
    marker = tmp_path / "was-run"
    (tmp_path / "modeling.py").write_text(
        f"from pathlib import Path\nPath({str(marker)!r}).touch()\nclass Model:\n    pass\n"
    )
    config = config_from_dict(TINY_CONFIGS["llama"], "test")
    expected = count_parameters(config)
    config.auto_map = {"AutoModelForCausalLM": f"{tmp_path}--modeling.Model"}
    assert count_parameters(config) == expected
    assert not marker.exists()


# --- the table of `validator flops` -----------------------------------------------------------


def table_of(found: ParameterCount, sequence_length: int) -> dict[str, str]:
    """Its rows, as they are printed."""
    from rich.console import Console

    console = Console(width=120, record=True, file=io.StringIO())
    console.print(flops.render(found, sequence_length))
    lines = [line.strip("│┃ ") for line in console.export_text().splitlines()]
    cells = [re.split(r"\s*[│┃]\s*", line, maxsplit=1) for line in lines]
    rows = {row[0]: row[1] for row in cells if len(row) == 2}
    return {**rows, "title": lines[0], "caption": lines[-1]}


def test_an_embedding_that_is_the_head_too_is_no_look_up_alone() -> None:
    untied, tied = count(**QWEN3_30B_A3B), count(**{**QWEN3_30B_A3B, "tie_word_embeddings": True})
    assert untied.active - untied.active_without_embedding == 311_164_928
    assert tied.active_without_embedding == tied.active == untied.active - 311_164_928


def test_programs_get_the_same_figures() -> None:
    found = count(**QWEN3_30B_A3B)
    said = flops.document(found, 1024)
    assert (said["total"], said["active"]) == (30_532_122_624, 3_353_032_704)
    assert said["matmul_flops_per_token"] == flops.flops_per_token(found, 1024, "matmul_flops")
    assert said["active_params_flops_per_token"] == 6 * 3_353_032_704
    assert json.loads(json.dumps(said)) == said


def test_the_table_shows_both_bases() -> None:
    assert table_of(count(**QWEN3_30B_A3B), 1024) == {
        "quantity": "value",
        "parameters, total": "30,532,122,624  (30.5 B)",
        "parameters, active": "3,353,032,704  (3.35 B)",
        "of them without input embedding": "3,041,867,776  (3.04 B)",
        "input embedding": "311,164,928  (311 M)",
        "routed experts": "128 experts, 8 a token, 48 layers",
        "routed experts, total": "28,991,029,248  (29 B)",
        "in matrix products, active": "3,041,656,832  (3.04 B)",
        "attention, FLOPs a token": "2.416e+09",
        "active_params, FLOPs a token": "2.012e+10",
        "matmul_flops, FLOPs a token": "2.067e+10",
        "title": "qwen3_moe, 48 layers, rows of 1024 tokens",
        "caption": "formula version 1; forward and backward, no recomputation",
    }


def test_the_table_of_a_dense_model_says_that_it_has_no_experts_and_that_it_is_tied() -> None:
    rows = table_of(dataclasses.replace(MADE_UP, num_experts=0, tied=True), 10)
    assert rows["routed experts"] == "none"
    assert rows["input embedding"] == "100  (0.0001 M), tied"
    assert rows["parameters, total"] == "1,000,000,000  (1 B)"
    assert rows["parameters, active"] == "999,999,999  (1e+03 M)"


# --- the rules, one by one --------------------------------------------------------------------

#: All of its numbers differ, so that none can stand for another.
MADE_UP = ParameterCount(
    model_type="made-up",
    total=1_000_000_000,
    active=999_999_999,
    input_embedding=100,
    tied=False,
    matmul_active=700,
    routed_experts=600,
    layers=7,
    moe_layers=1,
    num_experts=6,
    top_k=8,
    attention_layers=2,
    attention_heads=3,
    qk_head_dim=4,
    v_head_dim=9,
)


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


def config_of(fields: dict[str, Any]) -> Any:
    """What looks like a config, of a type whose other fields are not there."""
    return SimpleNamespace(model_type="made-up", **fields)


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
