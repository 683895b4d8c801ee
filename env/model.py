"""Builds the benchmark's model from a snapshot. The reference uses the same function."""

from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import load_file
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.initialization import no_init_weights

Placement = Literal["device", "cpu"]


def load_model(
    model_dir: Path,
    device: torch.device,
    placement: Placement,
    dtype: torch.dtype,
    *,
    attention: str | None = None,
    experts: str | None = None,
) -> nn.Module:
    """The model with the snapshot's initial weights, every parameter trainable, in training mode.

    Args:
        model_dir: the snapshot's model folder: config.json and state/*.safetensors.
        device: the rank's device.
        placement: "device" copies every tensor to `device`; "cpu" leaves the parameters mapped from
            the files (copy on write), so that all ranks of a machine share the same pages.
        dtype: dtype of the parameters in the snapshot.
        attention: transformers' attention implementation, None for its default.
        experts: transformers' experts implementation, None for its default.

    Raises:
        RuntimeError: the snapshot's tensors are not those of the model.
    """
    config = AutoConfig.from_pretrained(model_dir)
    config.use_cache = False
    options = {"attn_implementation": attention, "experts_implementation": experts}
    with no_init_weights():
        # Parameters are allocated but never touched here, so even a large model costs only
        # address space until the snapshot's tensors take their place.
        model = AutoModelForCausalLM.from_config(
            config, dtype=dtype, **{k: v for k, v in options.items() if v is not None}
        )
    target = torch.device("cpu") if placement == "cpu" else device
    state = {}
    for file in sorted((model_dir / "state").glob("*.safetensors")):
        for name, tensor in load_file(file, device=str(target)).items():
            mapped = target.type == "cpu" and placement == "device"
            state[name] = tensor.clone() if mapped else tensor
    model.load_state_dict(state, strict=True, assign=True)
    model.tie_weights()
    model.to(target)  # the buffers that are not part of a state dict, such as rotary frequencies
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    trained: nn.Module = model.train()
    return trained
