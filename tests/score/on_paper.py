"""Models that several tests of counting share: a published config, and one that is made up."""

from types import SimpleNamespace
from typing import Any

import transformers.modeling_utils  # noqa: F401 (seconds that the first test would be charged for)

from harness.benchmark.model_config import config_from_dict
from harness.score.flops import ParameterCount, count_parameters


def count(**config: Any) -> ParameterCount:
    return count_parameters(config_from_dict(config, "test"))


def config_of(fields: dict[str, Any]) -> Any:
    """What looks like a config, of a type whose other fields are not there."""
    return SimpleNamespace(model_type="made-up", **fields)


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
