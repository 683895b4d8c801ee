"""What `inner_steps` may return, and how it is brought into one form (`env/result.py`)."""

from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Placement, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.placement_types import _StridedShard
from torch.testing._internal.distributed.fake_pg import FakeStore

from env.result import LocalBox, ModelNames, ResultError, canonical_name, read_result

SHAPES = {
    "model.layers.0.mlp.experts.gate_up_proj": (4, 6, 5),
    "model.layers.0.mlp.experts.down_proj": (4, 5, 3),
    "norm.weight": (5,),
}
NAMES = ModelNames(SHAPES)


def result(**changes: object) -> SimpleNamespace:
    fields = {"final_loss": 1.5, "total_tokens": 10, "final_state": {}, **changes}
    return SimpleNamespace(**fields)


def only_box(state: dict[str, torch.Tensor]) -> LocalBox:
    (box,) = read_result(result(final_state=state), NAMES).boxes
    return box


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "module._orig_mod.", "module.module.", ""]
)
def test_wrapper_prefixes_are_stripped(prefix: str) -> None:
    assert canonical_name(prefix + "norm.weight") == "norm.weight"


def test_wrapper_prefixes_inside_a_name_are_stripped_and_a_modules_own_name_is_not() -> None:
    wrapped = "model.layers.0._checkpoint_wrapped_module._fsdp_wrapped_module.mlp.gate.weight"
    assert canonical_name(wrapped) == "model.layers.0.mlp.gate.weight"
    assert canonical_name("model.module.weight") == "model.module.weight"


@pytest.mark.parametrize(
    ("matrix", "fused", "offset", "shape"),
    [
        ("gate_proj", "gate_up_proj", (2, 0, 0), (3, 5)),
        ("up_proj", "gate_up_proj", (2, 3, 0), (3, 5)),
        ("down_proj", "down_proj", (2, 0, 0), (5, 3)),
    ],
)
def test_an_older_per_expert_name_is_a_box_of_the_fused_tensor(
    matrix: str, fused: str, offset: tuple[int, ...], shape: tuple[int, ...]
) -> None:
    box = only_box({f"model.layers.0.mlp.experts.2.{matrix}.weight": torch.zeros(shape)})
    assert box.name == f"model.layers.0.mlp.experts.{fused}"
    assert (box.offset, tuple(box.tensor.shape)) == (offset, (1, *shape))
    assert box.tensor_shape == SHAPES[box.name]


def test_mixtrals_older_names_are_understood() -> None:
    box = only_box({"model.layers.0.block_sparse_moe.experts.1.w3.weight": torch.zeros(3, 5)})
    assert (box.name, box.offset) == ("model.layers.0.mlp.experts.gate_up_proj", (1, 3, 0))


def test_a_name_that_only_looks_like_an_expert_stays_as_it_is() -> None:
    box = only_box({"other.experts.1.gate_proj.weight": torch.zeros(3, 5)})
    assert box.name == "other.experts.1.gate_proj.weight"


@pytest.mark.parametrize(
    "loss",
    [
        1.5,
        torch.tensor(1.5),
        torch.tensor([1.5]),
        np.float32(1.5),
        np.array(1.5),
        np.array([1.5]),
        None,
    ],
)
def test_a_loss_may_be_any_real_number(loss: object) -> None:
    read = read_result(result(final_loss=loss), NAMES)
    assert read.final_loss == (None if loss is None else 1.5)


@pytest.mark.parametrize("tokens", [10, torch.tensor(10), np.int64(10), None])
def test_a_token_count_may_be_any_whole_number(tokens: object) -> None:
    read = read_result(result(total_tokens=tokens), NAMES)
    assert read.total_tokens == (None if tokens is None else 10)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"final_loss": "1.5"}, "final_loss"),
        ({"final_loss": True}, "final_loss"),
        ({"final_loss": torch.zeros(2)}, "final_loss"),
        ({"total_tokens": 1.0}, "total_tokens"),
        ({"total_tokens": torch.tensor(1.0)}, "total_tokens"),
        ({"final_state": [torch.zeros(1)]}, "final_state"),
        ({"final_state": {1: torch.zeros(1)}}, "final_state"),
        ({"final_state": {"x" * 257: torch.zeros(1)}}, "final_state"),
        ({"final_state": {"norm.weight": [1.0]}}, "norm.weight"),
    ],
)
def test_a_field_of_a_wrong_type_is_named(changes: dict[str, object], word: str) -> None:
    with pytest.raises(ResultError, match=word):
        read_result(result(**changes), NAMES)


def test_every_missing_field_is_named() -> None:
    with pytest.raises(ResultError, match="final_loss, final_state"):
        read_result(SimpleNamespace(total_tokens=1), NAMES)


def test_a_rank_without_a_state_has_no_boxes() -> None:
    assert read_result(result(final_state=None), NAMES).boxes == ()


@pytest.fixture(scope="module")
def last_of_four_ranks() -> Iterator[None]:
    """A process group whose other ranks do not exist: enough for shards, which need no messages.

    One rank alone, because torch caches offsets in a way that assumes that a process keeps its rank.
    """
    dist.init_process_group("fake", rank=3, world_size=4, store=FakeStore())
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize(
    "placements",
    [
        [Shard(0), Shard(0)],
        [Shard(1), Replicate()],
        [Replicate(), _StridedShard(1, split_factor=2)],  # gate and up rows, packed
        [Shard(0), _StridedShard(1, split_factor=2)],
        [_StridedShard(0, split_factor=2), Shard(0)],  # FSDP2 over tensor parallelism
    ],
    ids=str,
)
def test_a_ranks_boxes_hold_what_they_say_strided_shards_included(
    last_of_four_ranks: None, placements: list[Placement]
) -> None:
    mesh = init_device_mesh("cpu", (2, 2))
    whole = torch.arange(8 * 16 * 3).view(8, 16, 3)
    tensor = distribute_tensor(whole, mesh, placements, src_data_rank=None)
    boxes = read_result(result(final_state={"w": tensor}), NAMES).boxes
    for box in boxes:
        here = tuple(slice(o, o + n) for o, n in zip(box.offset, box.tensor.shape, strict=True))
        assert torch.equal(box.tensor, whole[here])
    assert sum(box.tensor.numel() for box in boxes) == tensor.to_local().numel()


def test_a_mapping_is_a_result_too() -> None:
    fields = {"final_loss": 1.5, "total_tokens": 10, "final_state": {"norm.weight": torch.ones(5)}}
    read = read_result(fields, NAMES)
    assert (read.final_loss, read.total_tokens, len(read.boxes)) == (1.5, 10, 1)
    with pytest.raises(ResultError, match="returned dict without final_state"):
        read_result({"final_loss": 1.5, "total_tokens": 10}, NAMES)


class Rotary(torch.nn.Module):
    """As in transformers: frequencies that no checkpoint holds."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(2))
        self.register_buffer("inv_freq", torch.ones(4), persistent=False)
        self.register_buffer("original_inv_freq", self.get_buffer("inv_freq"), persistent=False)
        self.register_buffer("counter", torch.zeros(1))


def test_buffers_that_a_state_dict_leaves_out_may_be_in_a_state_and_are_dropped() -> None:
    model = torch.nn.ModuleDict({"rotary": Rotary()})
    names = ModelNames.of(model)
    assert names.shapes == {"rotary.scale": (2,), "rotary.counter": (1,)}
    assert names.passing == {"rotary.inv_freq", "rotary.original_inv_freq"}
    gathered = dict(model.named_parameters()) | dict(model.named_buffers(remove_duplicate=False))
    wrapped = {f"module.{name}": tensor for name, tensor in gathered.items()}
    boxes = read_result(result(final_state=wrapped), names).boxes
    assert sorted(box.name for box in boxes) == ["rotary.counter", "rotary.scale"]


def test_a_name_that_nobody_knows_is_kept_for_the_judge_to_name() -> None:
    state = {"rotary.other": torch.ones(1)}
    assert only_box(state).name == "rotary.other"
