"""The initial weights and the layout that describes them, for models of many architectures."""

import gzip
import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig

from env.model import load_model
from harness.benchmark import initial_state
from harness.benchmark.preload import preload
from harness.benchmark.snapshot import Snapshot
from harness.tensors.boxes import TensorKind
from tests.project import ROOT, Edit
from tests.tiny_models import TINY, TINY_MOE, stored_state

DEEPSEEK = {
    **{key: value for key, value in TINY.items() if key != "head_dim"},
    "num_key_value_heads": 2,
    "n_routed_experts": 4,
    "n_group": 1,
    "topk_group": 1,
    "num_experts_per_tok": 2,
    "first_k_dense_replace": 0,
    "moe_intermediate_size": 8,
    "kv_lora_rank": 4,
    "q_lora_rank": 4,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 4,
    "v_head_dim": 4,
}


@pytest.fixture
def genesis(tmp_path: Path) -> dict[str, Any]:
    """Changes of a benchmark whose corpus is tokenised in no time; the weights do not depend on it."""
    lines = gzip.decompress((ROOT / "assets" / "kjv.txt.gz").read_bytes()).splitlines(keepends=True)
    file = tmp_path / "genesis.txt"
    file.write_bytes(b"".join(lines[:1500]))
    return {
        "data.file": str(file),
        "data.sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "sequence_length": 64,
    }


def test_bfloat16_parameters_are_the_rounded_float32_ones(
    edited: Edit, snapshot: Snapshot, genesis: dict[str, Any], tmp_path: Path
) -> None:
    rounded = preload(edited({**genesis, "numerics.param_dtype": "bfloat16"}), tmp_path / "bf16")
    exact = stored_state(snapshot)
    state = stored_state(rounded)
    assert all(torch.equal(state[name], exact[name].bfloat16()) for name in exact)
    assert {spec.dtype for spec in rounded.layout.values()} == {"bfloat16"}


@pytest.mark.parametrize(
    ("model_type", "fields", "experts"),
    [
        ("qwen3_moe", TINY_MOE, 2),
        ("mixtral", {**TINY, "num_local_experts": 4, "sliding_window": None}, 2),
        ("gpt_oss", {**TINY, "num_local_experts": 4, "num_experts_per_tok": 2}, 4),
        ("qwen2_moe", {**TINY_MOE, "shared_expert_intermediate_size": 8}, 2),
        ("deepseek_v3", DEEPSEEK, 2),
        ("llama", TINY, 0),
    ],
)
def test_experts_and_embedding_are_found_by_structure(
    model_type: str, fields: dict[str, Any], experts: int
) -> None:
    config = AutoConfig.for_model(model_type, **fields)
    layout = initial_state.describe_layout(initial_state.empty_model(config, torch.float32))
    found = [name for name, spec in layout.items() if spec.kind is TensorKind.EXPERTS]
    assert len(found) == 3 * experts and all(".mlp.experts." in name for name in found)
    assert all(layout[name].shape[0] == 4 for name in found)
    embedding = [name for name, spec in layout.items() if spec.kind is TensorKind.EMBEDDING]
    assert embedding == ["model.embed_tokens.weight"]


def test_tied_weights_are_stored_under_both_names_and_tied_again(
    edited: Edit, genesis: dict[str, Any], tmp_path: Path
) -> None:
    config = {"model_type": "qwen3", **TINY, "tie_word_embeddings": True}
    made = preload(edited({**genesis, "model.config": config}), tmp_path / "s")
    state = stored_state(made)
    assert torch.equal(state["model.embed_tokens.weight"], state["lm_head.weight"])
    model: Any = load_model(made.model_dir, torch.device("cpu"), "device", torch.float32)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert set(model.state_dict()) == set(made.layout)
