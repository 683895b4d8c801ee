"""Reads sampled coordinates of a sharded model, of its weights or of tensors that are sharded like them."""

from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.tensor import DTensor

from env.result import ModelNames, local_boxes


class Recorder:
    """The same values on every rank."""

    def __init__(self, model: nn.Module, coordinates: dict[str, torch.Tensor]) -> None:
        """`coordinates` maps a tensor's name to int64 flat indices, row-major."""
        self._model = model
        self._samples = sum(len(indices) for indices in coordinates.values())
        self._parts: list[tuple[str, torch.Tensor, torch.Tensor]] = []
        boxes = {box.name: box for box in local_boxes(model.state_dict(), ModelNames({}))}
        base = 0
        for name, indices in sorted(coordinates.items()):
            if name in boxes:
                box = boxes[name]
                # FSDP2 shards the first dimension, so a shard is one range of flat indices.
                start = box.offset[0] * box.tensor[0].numel() if box.offset else 0
                mine = (indices >= start) & (indices < start + box.tensor.numel())
                positions = base + mine.nonzero().flatten()
                self._parts.append((name, (indices[mine] - start), positions))
            base += len(indices)

    def values(self, tensors: Mapping[str, torch.Tensor] | None = None) -> torch.Tensor:
        """float32 [samples], in the order of the sorted names.

        Args:
            tensors: sharded as the weights are; None: the weights. Where a name is missing it is zero.
        """
        found = self._model.state_dict() if tensors is None else tensors
        values = torch.zeros(self._samples)
        for name, indices, positions in self._parts:
            tensor = found.get(name)
            if tensor is None:
                continue
            if isinstance(tensor, DTensor):
                tensor = tensor.to_local()
            elif dist.get_rank() > 0:
                continue  # every rank holds it whole
            values[positions] = tensor.flatten()[indices.to(tensor.device)].float().cpu()
        dist.all_reduce(values)  # each coordinate comes from one rank: a sum with zeros is exact
        return values
