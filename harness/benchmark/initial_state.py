"""The initial weights: drawn from a seed, or converted from a checkpoint, written as safetensors.

The files hold what the `state_dict` of the transformers version in use holds, under its names, in the
benchmark's `param_dtype`: routed experts fused, tied tensors once under each of their names (a
submission's state is compared name by name).
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import convert_and_load_state_dict_in_model
from transformers.modeling_utils import LoadStateDictConfig
from transformers.utils import logging as transformers_logging

from harness.benchmark.experts import expert_parameters, routed_experts
from harness.errors import Code, InputError
from harness.phases import OnProgress
from harness.tensors.boxes import TensorKind, TensorSpec

SHARD_BYTES = 2 * 2**30
_LAYER = re.compile(r"\blayers\.\d+\.")


def empty_model(config: PreTrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
    """The model on the meta device: structure, no memory.

    Raises:
        InputError: HPARAMS_INVALID where the config describes no causal language model.
    """
    with torch.device("meta"):
        return _build(config, dtype)


def describe_layout(model: PreTrainedModel) -> dict[str, TensorSpec]:
    """Name, shape, dtype and kind of every tensor of the model's state dict."""
    num_experts = routed_experts(model.config.get_text_config())
    fused = expert_parameters(model, num_experts) if num_experts else ()
    kinds = dict.fromkeys(fused, TensorKind.EXPERTS)
    embedding = model.get_input_embeddings()
    for name, module in model.named_modules():
        if module is embedding:
            kinds[f"{name}.weight"] = TensorKind.EMBEDDING
    return {
        name: TensorSpec(
            shape=tuple(tensor.shape),
            dtype=str(tensor.dtype).removeprefix("torch."),
            kind=kinds.get(name, TensorKind.PLAIN),
        )
        for name, tensor in model.state_dict().items()
    }


def write_random(
    config: PreTrainedConfig, layout: Mapping[str, TensorSpec], seed: int, folder: Path
) -> None:
    """Write transformers' own random initialisation, drawn on the CPU in float32 from `seed`.

    The same torch and transformers give the same bytes on the same kind of CPU. The whole model is
    in memory, in float32.

    Args:
        config: the model's.
        layout: from `describe_layout`; the dtypes to write.
        seed: torch's; the caller's random state is left alone.
        folder: gets the safetensors files.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _build(config, torch.float32)
    writer = StateWriter(folder, layout)
    for name, tensor in model.state_dict().items():
        writer.add(name, tensor)
    writer.close()


def write_converted(
    model: PreTrainedModel,
    checkpoint: Sequence[Path],
    layout: Mapping[str, TensorSpec],
    folder: Path,
    progress: OnProgress,
) -> None:
    """Convert a checkpoint to the model's own names, layer by layer.

    transformers' conversion (renamed keys, experts fused) runs on one layer's tensors at a time, so
    that memory holds one layer and one output shard, not the model.

    Args:
        model: on the meta device, as from `empty_model`; left there.
        checkpoint: safetensors files, read memory-mapped.
        layout: from `describe_layout` of the same model; names and dtypes to write.
        folder: gets the safetensors files.
        progress: told what is going on.

    Raises:
        InputError: HPARAMS_INVALID where checkpoint and model do not fit together.
    """
    wanted = dict.fromkeys(layout)
    transformers_logging.disable_progress_bar()  # one per layer says nothing
    ties: dict[str, str] = getattr(model, "all_tied_weights_keys", {})
    writer = StateWriter(folder, layout)
    with ExitStack() as stack:
        groups = _by_layer(checkpoint, stack)
        for number, (_, tensors) in enumerate(sorted(groups.items()), 1):
            for name, tensor in _convert(model, tensors):
                for target in (name, *(t for t, source in ties.items() if source == name)):
                    if target in wanted:
                        del wanted[target]
                        writer.add(target, tensor)
            progress(f"converted {number} of {len(groups)} groups of weights")
    if wanted:
        some = ", ".join(list(wanted)[:5])
        raise InputError(
            Code.HPARAMS_INVALID,
            f"the checkpoint lacks {len(wanted)} of the model's tensors: {some}",
        )
    writer.close()


class StateWriter:
    """Collects tensors and writes them as files of about SHARD_BYTES, in the order given."""

    def __init__(self, folder: Path, layout: Mapping[str, TensorSpec]) -> None:
        self._folder = folder
        self._layout = layout
        self._waiting: dict[str, torch.Tensor] = {}
        self._storages: set[int] = set()
        self._bytes = 0
        self._files = 0

    def add(self, name: str, tensor: torch.Tensor) -> None:
        """Take `tensor`, in the layout's dtype; it must not change before it is written."""
        dtype: torch.dtype = getattr(torch, self._layout[name].dtype)
        size = tensor.numel() * dtype.itemsize
        if self._waiting and self._bytes + size > SHARD_BYTES:
            self.close()
        own = tensor.detach().to(dtype).contiguous()
        storage = own.untyped_storage()
        if storage.data_ptr() in self._storages or storage.nbytes() != size:
            own = own.clone()  # safetensors refuses tensors that share memory, as tied ones do
        self._storages.add(own.untyped_storage().data_ptr())
        self._waiting[name] = own
        self._bytes += size

    def close(self) -> None:
        """Write what is still waiting."""
        self._files += 1
        save_file(self._waiting, self._folder / f"{self._files:05d}.safetensors", {"format": "pt"})
        self._waiting = {}
        self._storages = set()
        self._bytes = 0


def _build(config: PreTrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
    try:
        return AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)
    except ValueError as error:
        raise InputError(
            Code.HPARAMS_INVALID, f"the config is not one of a causal language model: {error}"
        ) from None


def _by_layer(checkpoint: Sequence[Path], stack: ExitStack) -> dict[str, dict[str, object]]:
    """Lazy slices of all tensors, grouped by the layer in their names; "" is all that has none."""
    groups: dict[str, dict[str, object]] = defaultdict(dict)
    for file in checkpoint:
        try:
            opened = stack.enter_context(safe_open(file, framework="pt", device="cpu"))
        except (SafetensorError, OSError) as error:
            raise InputError(
                Code.HPARAMS_INVALID, f"{file.name} is not a safetensors file: {error}"
            ) from None
        for key in opened.keys():  # noqa: SIM118  (not a mapping)
            layer = _LAYER.search(key)
            groups[layer.group() if layer else ""][key] = opened.get_slice(key)
    return groups


def _convert(
    model: PreTrainedModel, tensors: dict[str, object]
) -> Iterator[tuple[str, torch.Tensor]]:
    """Load some tensors of a checkpoint into a model on the meta device, and take them out again."""
    options = LoadStateDictConfig(
        device_map={"": "cpu"},
        dtype=model.dtype,
        weight_mapping=get_model_conversion_mapping(model),
    )
    info, _ = convert_and_load_state_dict_in_model(model, tensors, options)
    if info.mismatched_keys or info.conversion_errors:
        problems = [*map(str, info.mismatched_keys), *map(str, info.conversion_errors.values())]
        raise InputError(
            Code.HPARAMS_INVALID,
            "the checkpoint does not fit the model: " + "; ".join(problems[:5]),
        )
    for name, tensor in list(model.state_dict().items()):
        if tensor.device.type != "meta":
            yield name, tensor
            _forget(model, name)


def _forget(model: nn.Module, name: str) -> None:
    """Put one tensor back onto the meta device."""
    path, _, leaf = name.rpartition(".")
    module = model.get_submodule(path)
    tensor = getattr(module, leaf)
    if isinstance(tensor, nn.Parameter):
        setattr(module, leaf, nn.Parameter(torch.empty_like(tensor, device="meta")))
    else:
        setattr(module, leaf, torch.empty_like(tensor, device="meta"))
