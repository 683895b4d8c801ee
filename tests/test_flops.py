"""Parameter and FLOP counts against hand-derived integers, published figures and torch's counter.

The big configs are those that the models were published with. What is expected of them is worked out
here from their dimensions, in this file's own arithmetic, never from the code under test.
"""

import io
import json
from pathlib import Path
from typing import Any

import pytest

from harness import flops
from harness.errors import Code, InputError
from harness.flops import ParameterCount, attention_flops_per_token, count_parameters
from harness.model_config import config_from_dict


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
    assert (found.matmul, found.matmul_active) == (matmul, matmul - 48 * 120 * expert)
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
    assert found.matmul == found.matmul_active == matmul
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
    import torch
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import AutoModelForCausalLM

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


def test_experts_are_known_by_structure_not_by_name() -> None:
    """A list of as many layers as experts is no expert list, and a stack needs no telling name."""
    from torch import nn

    from harness.flops import _routed_containers

    class Stack(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(nn.Linear(4, 6).weight.detach().repeat(3, 1, 1))
            self.b = nn.Parameter(self.w.detach()[:, 0])

    class Block(nn.Module):
        def __init__(self, routed: nn.Module) -> None:
            super().__init__()
            self.switch = nn.Linear(4, 3, bias=False)
            self.many = routed

    stacked, listed = Stack(), nn.ModuleList(nn.Linear(4, 4) for _ in range(3))
    unrouted = nn.Sequential(Stack())
    model = nn.Module()
    model.layers = nn.ModuleList([Block(stacked), Block(listed), unrouted])
    model.head = nn.Linear(4, 9)
    found = _routed_containers(model, 3)
    assert found == {"layers.0.many": stacked, "layers.1.many": listed}


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


def test_a_config_is_found_in_a_file_a_folder_and_hparams(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(TINY_CONFIGS["mixtral"]))
    for source in (file, tmp_path):
        assert flops.load_config(str(source)).num_local_experts == 4
    assert flops.load_config("hparams.json").model_type == "qwen3_moe"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "as JSON"),
        ("[]", "no model_type"),
        ("{}", "no model_type"),
        ('{"model_type": "gpt-17"}', "gpt-17"),
        ('{"schema_version": 1}', "name"),
        ('{"model_type": "llama", "auto_map": {"AutoConfig": "x.Y"}, "hidden_size": "a"}', "size"),
    ],
)
def test_a_bad_config_gets_a_clear_line(tmp_path: Path, content: str, told: str) -> None:
    file = tmp_path / "config.json"
    file.write_text(content)
    with pytest.raises(InputError, match=told):
        flops.load_config(str(file))


@pytest.mark.parametrize("source", ["nothing-here", "./a/b", "no/such.json", "/etc/nothing"])
def test_what_is_no_file_is_not_asked_of_the_hub_unless_it_looks_like_one(source: str) -> None:
    with pytest.raises(InputError, match=r"there is no file"):
        flops.load_config(source)


def test_a_hub_name_without_network_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="from the hub") as caught:
        flops.load_config("no-such-owner/no-such-model")
    assert "\n" not in caught.value.message


def test_the_table_shows_both_bases() -> None:
    from rich.console import Console

    console = Console(width=120, record=True, file=io.StringIO())
    console.print(flops.render(count(**QWEN3_30B_A3B), 1024))
    text = console.export_text()
    for part in ("30,532,122,624", "128 experts, 8 a token", "active_params", "matmul_flops"):
        assert part in text
