"""A snapshot is opened only if it is what was made, of this benchmark, and enough for it."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from env.model import load_model
from harness.benchmark.hparams import LoadedHparams
from harness.benchmark.preload import preload
from harness.benchmark.snapshot import Snapshot, default_directory, open_snapshot
from harness.errors import Code, InputError
from harness.tensors.boxes import TensorKind
from tests.project import ROOT, Edit


@pytest.fixture
def copied(snapshot: Snapshot, tmp_path: Path) -> Path:
    """A copy of the embedded snapshot, to be damaged."""
    target = tmp_path / "copy"
    shutil.copytree(snapshot.directory, target)
    return target


def test_the_worker_loads_the_snapshot_and_the_layout_describes_it(snapshot: Snapshot) -> None:
    model = load_model(snapshot.model_dir, torch.device("cpu"), "device", torch.float32)
    state = model.state_dict()
    assert {n: (tuple(t.shape), str(t.dtype)) for n, t in state.items()} == {
        n: (spec.shape, f"torch.{spec.dtype}") for n, spec in snapshot.layout.items()
    }
    kinds = {n: spec.kind for n, spec in snapshot.layout.items() if spec.kind != TensorKind.PLAIN}
    experts = {
        f"model.layers.{layer}.mlp.experts.{name}": TensorKind.EXPERTS
        for layer in range(4)
        for name in ("gate_up_proj", "down_proj")
    }
    assert kinds == {"model.embed_tokens.weight": TensorKind.EMBEDDING, **experts}


def flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda d: flip_a_bit(d / "model/state/00001.safetensors"), "00001.safetensors"),
        (lambda d: flip_a_bit(d / "corpus/tokens.bin"), "corpus/tokens.bin"),
        (lambda d: (d / "model/config.json").write_text("{}"), "model/config.json"),
        (lambda d: (d / "model/tokenizer.json").unlink(), "tokenizer.json is missing"),
        (lambda d: (d / "model/state/zzz.safetensors").touch(), "does not belong"),
        (lambda d: (d / "model/extra").symlink_to("/etc"), "model/extra is not a regular"),
        (lambda d: os.mkfifo(d / "model/pipe"), "model/pipe is not a regular"),
        (lambda d: (d / "manifest.json").write_text("{"), "manifest.json"),
    ],
)
def test_a_changed_snapshot_is_refused_by_name(
    loaded: LoadedHparams, copied: Path, damage: Callable[[Path], object], named: str
) -> None:
    open_snapshot(loaded, copied)
    damage(copied)
    with pytest.raises(InputError) as caught:
        open_snapshot(loaded, copied)
    assert caught.value.code is Code.SNAPSHOT_CHANGED
    assert named in caught.value.message and "preload" in caught.value.message


def test_preload_makes_a_changed_snapshot_anew(loaded: LoadedHparams, copied: Path) -> None:
    flip_a_bit(copied / "model/state/00001.safetensors")
    lines: list[str] = []
    preload(loaded, copied, progress=lines.append)
    assert any("00001.safetensors" in line for line in lines)
    open_snapshot(loaded, copied)
    assert sorted(p.name for p in copied.parent.iterdir()) == [".copy.lock", "copy"]


def test_an_absent_snapshot_says_what_to_run(loaded: LoadedHparams, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="validator preload") as caught:
        open_snapshot(loaded, tmp_path / "none")
    assert caught.value.code is Code.SNAPSHOT_MISSING


@pytest.mark.parametrize(
    "change",
    [
        {"model.init_seed": 1},
        {"numerics.param_dtype": "bfloat16"},
        {"data.sha256": "0" * 64},
    ],
)
def test_a_snapshot_of_another_benchmark_is_not_taken(
    edited: Edit, snapshot: Snapshot, change: dict[str, Any]
) -> None:
    other = edited(change)
    assert default_directory(other) != snapshot.directory
    with pytest.raises(InputError, match="another benchmark") as caught:
        open_snapshot(other, snapshot.directory)
    assert caught.value.code is Code.SNAPSHOT_MISSING
    with pytest.raises(InputError, match="another benchmark"):
        preload(other, snapshot.directory)


def test_fields_that_shape_no_file_share_the_snapshot(edited: Edit, snapshot: Snapshot) -> None:
    same = edited({"global_batch": 4, "sequence_length": 128, "optimizer.lr": 0.2})
    assert open_snapshot(same, snapshot.directory).manifest == snapshot.manifest


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sequence_length": 1024}, "max_position_embeddings"),
        ({"global_batch": 4096}, "the corpus has"),
    ],
)
def test_what_model_and_corpus_cannot_give_is_a_bad_benchmark(
    edited: Edit, snapshot: Snapshot, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        open_snapshot(edited(change), snapshot.directory)
    assert caught.value.code is Code.HPARAMS_INVALID


def test_importing_the_snapshot_needs_no_torch() -> None:
    code = (
        "import sys, harness.benchmark.preload, harness.benchmark.snapshot; "
        "print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
