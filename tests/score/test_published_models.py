"""Parameter counts of published models against figures worked out by hand from their dimensions.

The configs are those that the models were published with. The arithmetic is this file's own, never that of
the code under test.
"""

import pytest

from harness.score import flops
from harness.score.flops import attention_flops_per_token
from tests.score.on_paper import QWEN3_30B_A3B, count


def gqa(hidden: int, heads: int, kv_heads: int, head_dim: int) -> int:
    """Matrices of grouped-query attention: queries and output, keys and values."""
    return 2 * hidden * heads * head_dim + 2 * hidden * kv_heads * head_dim


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
