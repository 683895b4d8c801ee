"""A benchmark of one's own: model and data of the hub, a folder or a file, pinned and ready to be run."""

import gzip
import hashlib
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from transformers import AutoModelForCausalLM

from harness.benchmark.hparams import load
from harness.benchmark.new import Wish, new_benchmark, next_steps
from harness.benchmark.preload import preload
from harness.benchmark.problem import EmbeddedModel, HubModel, LocalModel
from harness.benchmark.snapshot import benchmark_key
from harness.errors import Code, InputError
from tests.hub_standin import Repository, hub_standin
from tests.project import ROOT
from tests.tiny_models import TINY_MOE, TOKENIZER, stored_state, tiny_model

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """Some verses, enough for a run."""
    lines = gzip.decompress((ROOT / "assets" / "kjv.txt.gz").read_bytes()).splitlines()[:2000]
    file = tmp_path / "text.txt"
    file.write_bytes(b"\n".join(lines))
    return file


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A model and its tokenizer as transformers save them, the weights in several files."""
    folder = tmp_path / "saved"
    tiny_model("qwen3_moe", **TINY_MOE).save_pretrained(folder, max_shard_size="60KB")
    shutil.copy(TOKENIZER, folder)
    return folder


def wish(model: object, data: object, **more: Any) -> Wish:
    return Wish("mine", str(model), str(data), sequence_length=64, global_batch=8, **more)


def test_a_folder_is_pinned_by_its_files_and_becomes_what_transformers_loads(
    saved: Path, text: Path, tmp_path: Path
) -> None:
    made = new_benchmark(wish(saved, text), tmp_path / "mine.json")
    model = made.hparams.model
    assert isinstance(model, LocalModel) and model.folder == "saved"
    names = sorted(
        {"config.json", "tokenizer.json", *(f.name for f in saved.glob("*.safetensors"))}
    )
    listing = subprocess.run(["sha256sum", *names], cwd=saved, capture_output=True, check=True)
    assert model.sha256 == hashlib.sha256(listing.stdout).hexdigest()
    snapshot = preload(made, tmp_path / "s")
    expected = AutoModelForCausalLM.from_pretrained(saved, dtype=torch.float32).state_dict()
    state = stored_state(snapshot)
    assert set(state) == set(expected)
    assert all(torch.equal(state[name], tensor) for name, tensor in expected.items())
    assert model.sha256[:12] in snapshot.manifest.model_source


def test_another_model_in_the_folder_is_refused(saved: Path, text: Path, tmp_path: Path) -> None:
    made = new_benchmark(wish(saved, text), tmp_path / "mine.json")
    config = json.loads((saved / "config.json").read_bytes())
    (saved / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 1e-5}))
    with pytest.raises(InputError, match="it is another model") as caught:
        preload(made, tmp_path / "s")
    assert caught.value.code is Code.HPARAMS_INVALID
    assert not (tmp_path / "s").exists()


def test_where_a_folder_lies_makes_no_other_benchmark(
    saved: Path, text: Path, tmp_path: Path
) -> None:
    here = new_benchmark(wish(saved, text), tmp_path / "mine.json")
    (tmp_path / "deep").mkdir()
    there = new_benchmark(wish(saved, text), tmp_path / "deep" / "mine.json")
    assert there.hparams.model != here.hparams.model
    assert benchmark_key(there) == benchmark_key(here)


def test_random_weights_need_none_in_the_folder(saved: Path, text: Path, tmp_path: Path) -> None:
    for file in saved.glob("*.safetensors*"):
        file.unlink()
    with pytest.raises(InputError, match=r"lacks model\.safetensors"):
        new_benchmark(wish(saved, text), tmp_path / "mine.json")
    assert not (tmp_path / "mine.json").exists()
    made = new_benchmark(wish(saved, text, random_init=True), tmp_path / "mine.json")
    assert preload(made, tmp_path / "s").state_bytes > 0


def test_a_config_stands_in_the_file_itself(saved: Path, text: Path, tmp_path: Path) -> None:
    config = saved / "config.json"
    with pytest.raises(InputError, match="--tokenizer"):
        new_benchmark(wish(config, text), tmp_path / "mine.json")
    made = new_benchmark(wish(config, text, tokenizer=TOKENIZER), tmp_path / "mine.json")
    assert isinstance(made.hparams.model, EmbeddedModel)
    assert made.hparams.model.config == json.loads(config.read_bytes())
    assert preload(made, tmp_path / "s").manifest.token_count > 1000


def test_what_the_hub_has_is_pinned_by_its_newest_commit(
    saved: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {file.name: file.read_bytes() for file in saved.iterdir()}
    with hub_standin() as hub:
        hub.repositories["models/tiny/moe"] = Repository(COMMIT, files)
        hub.repositories["datasets/tiny/text"] = Repository(COMMIT, {"a/b.txt": text.read_bytes()})
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        made = new_benchmark(wish("tiny/moe", "tiny/text:a/b.txt"), tmp_path / "mine.json")
        fetched = [each for each in hub.requests if "safetensors" in each]
        model, data = made.hparams.model, made.hparams.data
        assert isinstance(model, HubModel) and data.source == "hub"
        assert (model.revision, data.revision, data.file) == (COMMIT, COMMIT, "a/b.txt")
        assert not fetched  # weights are the preload's affair
        assert preload(made, tmp_path / "s").manifest.model_source == f"tiny/moe@{COMMIT}"
        pinned = wish(f"tiny/moe@{'f' * 40}", "tiny/text:a/b.txt")
        with pytest.raises(InputError, match="has no commit ffff"):
            new_benchmark(pinned, tmp_path / "other.json")
        with pytest.raises(InputError, match=r"the hub has no model tiny/none"):
            new_benchmark(wish("tiny/none", text), tmp_path / "other.json")


def test_the_file_is_whole_and_its_limits_fit_model_and_machine(
    saved: Path, text: Path, tmp_path: Path
) -> None:
    made = new_benchmark(wish(saved, text, optimizer="sgd", lr=0.1), tmp_path / "mine.json")
    written = json.loads((tmp_path / "mine.json").read_bytes())
    assert set(written) == set(type(made.hparams).model_fields)
    assert set(written["limits"]) == set(type(made.hparams.limits).model_fields)
    state = preload(made, tmp_path / "s").state_bytes
    assert made.hparams.limits.outbox_bytes > 2 * 0.9 * state
    assert not made.hparams.calibrated
    assert f"validator calibrate --hparams {tmp_path / 'mine.json'}" in next_steps(
        made, tmp_path / "mine.json"
    )
    assert load(tmp_path / "mine.json").hparams == made.hparams


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": "nothing"}, "neither here nor a name of the hub"),
        ({"data": "nothing.txt"}, "there is no file 'nothing.txt'"),
        ({"optimizer": "lion"}, '^optimizer: its "name" must be "sgd" or "adamw"'),
        ({"compute_dtype": "fp8"}, "numerics.compute_dtype"),
        ({"global_batch": 7}, "the file: the reference cannot deal global_batch 7 evenly"),
        ({"name": "a name"}, "name"),
        ({"sequence_length": 65}, "65 tokens do not fit the model, which has 64 positions"),
        ({"data": str(ROOT / "hparams.json")}, "must end with .txt, .jsonl or .parquet"),
        ({"tokenizer": TOKENIZER}, "--tokenizer is for a config.json alone"),
    ],
    ids=[
        *("model", "data", "optimizer", "dtype", "batch", "name"),
        *("positions", "data's form", "tokenizer"),
    ],
)
def test_what_does_not_fit_is_said_and_nothing_is_written(
    saved: Path, text: Path, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    fields: dict[str, Any] = {"name": "mine", "model": str(saved), "data": str(text)}
    fields |= {"sequence_length": 64, "global_batch": 8} | changes
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match=words):
        new_benchmark(Wish(**fields), tmp_path / "mine.json")
    assert sorted(tmp_path.iterdir()) == before


def test_a_mistyped_folder_is_said_to_be_no_folder_before_the_hub_is_blamed(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with hub_standin() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        with pytest.raises(InputError, match=r"^'models/tiny' is not here, and") as caught:
            new_benchmark(wish(Path("models/tiny"), text), tmp_path / "mine.json")
    assert caught.value.code is Code.DOWNLOAD_FAILED


def test_a_model_that_transformers_does_not_know_is_a_line(
    saved: Path, text: Path, tmp_path: Path
) -> None:
    (saved / "config.json").write_text('{"model_type": "mamba9000"}')
    with pytest.raises(InputError, match="mamba9000") as caught:
        new_benchmark(wish(saved, text), tmp_path / "mine.json")
    assert "\n" not in caught.value.message.strip()


def test_what_is_no_tokenizer_is_refused_at_once(saved: Path, text: Path, tmp_path: Path) -> None:
    config = saved / "config.json"
    with pytest.raises(InputError, match=r"is not a tokenizer\.json"):
        new_benchmark(wish(config, text, tokenizer=text), tmp_path / "mine.json")


def test_a_corpus_that_is_too_short_for_a_run_leaves_no_snapshot(
    saved: Path, text: Path, tmp_path: Path
) -> None:
    text.write_text("In the beginning\n" * 3)
    made = new_benchmark(wish(saved, text), tmp_path / "mine.json")
    with pytest.raises(InputError, match="the corpus has") as caught:
        preload(made, tmp_path / "s")
    assert caught.value.code is Code.HPARAMS_INVALID
    assert not [each for each in tmp_path.iterdir() if each.name in ("s", ".s.partial")]


def test_a_small_corpus_is_remarked_upon(saved: Path, text: Path, tmp_path: Path) -> None:
    made = new_benchmark(wish(saved, text), tmp_path / "mine.json")
    said: list[str] = []
    preload(made, tmp_path / "s", progress=said.append)
    assert [line for line in said if "could compute gradients beforehand" in line]


def test_a_file_that_is_there_stays(saved: Path, text: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text("mine")
    with pytest.raises(InputError, match="is there already"):
        new_benchmark(wish(saved, text), tmp_path / "mine.json")
    assert (tmp_path / "mine.json").read_text() == "mine"
