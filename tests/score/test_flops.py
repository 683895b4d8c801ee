"""FLOP counts against torch's counter and models on paper, and what cannot be counted."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM

from harness.benchmark.model_config import config_from_dict
from harness.errors import Code, InputError
from harness.score import flops
from harness.score.flops import ParameterCount, count_parameters
from tests.score.on_paper import config_of, count
from tests.tiny_models import module

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
