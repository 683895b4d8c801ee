"""What `validator preload` makes of the embedded benchmark: the same every time, whole or not at all."""

import gzip
import os
import stat
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from harness.benchmark.hparams import LoadedHparams
from harness.benchmark.preload import preload
from harness.benchmark.snapshot import Snapshot
from harness.errors import Code, InputError
from tests.project import ROOT, Edit
from tests.tiny_models import TINY, TOKENIZER


def test_a_second_preload_makes_the_same_bytes_and_leaves_the_random_state_alone(
    loaded: LoadedHparams, snapshot: Snapshot, tmp_path: Path
) -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    again = preload(loaded, tmp_path / "again")
    assert again.manifest == snapshot.manifest
    assert torch.equal(torch.rand(4), expected)


def test_where_the_text_lies_makes_no_other_snapshot(
    edited: Edit, snapshot: Snapshot, tmp_path: Path
) -> None:
    """`edited` names it by its absolute path."""
    assert preload(edited({}), tmp_path / "again").manifest == snapshot.manifest


def test_an_existing_snapshot_is_reused(loaded: LoadedHparams, snapshot: Snapshot) -> None:
    before = (snapshot.directory / "manifest.json").stat()
    assert preload(loaded).manifest == snapshot.manifest
    after = (snapshot.directory / "manifest.json").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_the_tokens_are_the_whole_text_without_padding(
    loaded: LoadedHparams, snapshot: Snapshot
) -> None:
    text = gzip.decompress((ROOT / "assets" / "kjv.txt.gz").read_bytes()).decode()
    tokens = snapshot.tokens()
    assert tokens.dtype == np.uint16 and len(tokens) == snapshot.manifest.token_count
    ends = np.flatnonzero(tokens == snapshot.manifest.end_of_document)
    assert len(ends) == len(text.splitlines()) and ends[-1] == len(tokens) - 1
    decoded = Tokenizer.from_file(str(TOKENIZER)).decode(tokens.tolist(), skip_special_tokens=False)
    assert decoded.replace("<|endoftext|>", "\n") == text


def test_the_corpus_is_for_the_judge_alone_and_the_model_for_any_user(snapshot: Snapshot) -> None:
    def mode(path: Path) -> int:
        return stat.S_IMODE(path.stat().st_mode)

    assert mode(snapshot.tokens_file.parent) == 0o700
    assert mode(snapshot.tokens_file) == 0o600
    for folder, _, files in os.walk(snapshot.model_dir):
        assert mode(Path(folder)) == 0o755
        assert all(mode(Path(folder, file)) == 0o644 for file in files)


def test_a_killed_preload_leaves_no_snapshot_and_the_next_one_works(
    loaded: LoadedHparams, tmp_path: Path
) -> None:
    target = tmp_path / "s"
    script = ROOT / "local_test" / "setup_benchmark.py"
    command = [sys.executable, "-u", str(script), "--snapshot", str(target)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        while "tokenising" not in child.stdout.readline():
            assert child.poll() is None
        child.kill()
    assert [p.name for p in sorted(tmp_path.iterdir())] == [".s.lock", ".s.partial"]
    preload(loaded, target)
    assert [p.name for p in sorted(tmp_path.iterdir())] == [".s.lock", "s"]


def test_the_shipped_tokenizer_is_what_its_script_makes(tmp_path: Path) -> None:
    output = tmp_path / "tokenizer.json"
    script = ROOT / "assets" / "train_tokenizer.py"
    subprocess.run([sys.executable, script, output], check=True, capture_output=True)
    assert output.read_bytes() == TOKENIZER.read_bytes()


def test_a_folder_that_is_no_snapshot_is_never_overwritten(
    loaded: LoadedHparams, tmp_path: Path
) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="not a snapshot"):
        preload(loaded, tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_a_failed_preload_leaves_no_snapshot(edited: Edit, tmp_path: Path) -> None:
    target = tmp_path / "home" / "s"
    with pytest.raises(InputError, match=r"data\.sha256"):
        preload(edited({"data.sha256": "0" * 64}), target)
    assert [p.name for p in target.parent.iterdir()] == [".s.lock"]


def test_a_model_that_no_disk_holds_is_told_before_a_weight_is_drawn(
    edited: Edit, tmp_path: Path
) -> None:
    with pytest.raises(
        InputError, match=r"weights have 6[\d,]+\.\d GiB, and .* left: set TRAINJUDGE_HOME"
    ):
        preload(edited({"model.config.hidden_size": 10**9}), tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_a_tensor_that_no_memory_holds_is_told_too(
    loaded: LoadedHparams, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(total=1_000))
    with pytest.raises(InputError, match=r"alone has 0\.0 GiB, and this machine 0\.0 of"):
        preload(loaded, tmp_path / "s")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model.tokenizer": "absent.json"}, "model.tokenizer"),
        ({"data.file": "absent.txt"}, "cannot be read"),
        ({"model.config": {"model_type": "no_such_type"}}, "model.config"),
        ({"model.config": {"model_type": "vit"}}, "causal language model"),
        ({"model.config": {}}, "model.config"),
        ({"model.config": {"model_type": "qwen3", **TINY, "vocab_size": 100}}, "belong together"),
        ({"model.config": {"model_type": "qwen3", **TINY, "eos_token_id": None}}, "eos_token_id"),
    ],
)
def test_an_embedded_benchmark_that_cannot_be_built_says_why(
    edited: Edit, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        preload(edited(change), tmp_path / "s")
    assert caught.value.code is Code.HPARAMS_INVALID
