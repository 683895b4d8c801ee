"""Models that are built in no time, and the state that a snapshot stores."""

from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from harness.benchmark.snapshot import Snapshot
from tests.project import ROOT

TOKENIZER = ROOT / "assets" / "tokenizer.json"

TINY: dict[str, Any] = {
    "vocab_size": 2048,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "eos_token_id": 0,
}
TINY_MOE = {**TINY, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8}


def stored_state(snapshot: Snapshot) -> dict[str, torch.Tensor]:
    return {
        name: tensor
        for file in sorted((snapshot.model_dir / "state").iterdir())
        for name, tensor in load_file(file).items()
    }


def tiny_model(model_type: str, **fields: Any) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **fields))


def module(**parts: nn.Module | tuple[int, ...]) -> nn.Module:
    """A module of these modules, and of parameters of these shapes."""
    made = nn.Module()
    for name, part in parts.items():
        fresh = nn.Parameter(torch.zeros(part)) if isinstance(part, tuple) else part
        setattr(made, name, fresh)
    return made
