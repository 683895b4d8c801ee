"""Models and data from the Hugging Face hub: converted, checked, and needed only once."""

import gzip
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from transformers import AutoModelForCausalLM

from env.model import load_model
from harness.benchmark import initial_state
from harness.benchmark.hparams import LoadedHparams
from harness.benchmark.preload import preload
from harness.errors import Code, InputError, JudgeError
from tests.hub_standin import Hub, Repository, hub_standin
from tests.project import ROOT, Edit
from tests.tiny_models import TINY, TINY_MOE, TOKENIZER, stored_state, tiny_model

COMMIT = "0123456789abcdef0123456789abcdef01234567"
OTHER_COMMIT = "f" * 40


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A stand-in with a tiny sharded Qwen3-MoE checkpoint and a dataset of two files."""
    with hub_standin() as standin:
        saved = tmp_path / "saved"
        model = tiny_model("qwen3_moe", **TINY_MOE)
        model.to(torch.bfloat16).save_pretrained(saved, max_shard_size="60KB")
        shutil.copy(TOKENIZER, saved)
        files = {file.name: file.read_bytes() for file in saved.iterdir()}
        standin.repositories["models/tiny/moe"] = Repository(COMMIT, files)
        text = gzip.decompress((ROOT / "assets" / "kjv.txt.gz").read_bytes()).decode()
        lines = b"".join(
            json.dumps({"text": line}).encode() + b"\n" for line in text.splitlines()[:4000]
        )
        data = {"sample/part.jsonl.gz": gzip.compress(lines), "small.txt": b"a line\n" * 500}
        standin.repositories["datasets/tiny/text"] = Repository(COMMIT, data)
        monkeypatch.setenv("HF_ENDPOINT", standin.url)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        yield standin


@pytest.fixture
def hub_benchmark(edited: Edit) -> Callable[..., LoadedHparams]:
    def make(**changes: Any) -> LoadedHparams:
        model = {"source": "hub", "repo": "tiny/moe", "revision": COMMIT}
        data = {
            "source": "hub",
            "repo": "tiny/text",
            "revision": COMMIT,
            "file": "sample/part.jsonl.gz",
            "max_documents": 3000,
        }
        base = {"model": model, "data": data, "sequence_length": 64}
        return edited({**base, **{key.replace("__", "."): v for key, v in changes.items()}})

    return make


def test_a_hub_checkpoint_becomes_what_transformers_loads(
    hub: Hub, hub_benchmark: Callable[..., LoadedHparams], tmp_path: Path
) -> None:
    files = hub.repositories["models/tiny/moe"].files
    assert sum(name.endswith(".safetensors") for name in files) > 2
    assert b"mlp.experts.3.gate_proj.weight" in files["model.safetensors.index.json"]
    made = preload(hub_benchmark(), tmp_path / "s")
    expected = AutoModelForCausalLM.from_pretrained(tmp_path / "saved", dtype=torch.float32)
    state = stored_state(made)
    assert set(state) == set(expected.state_dict())
    for name, tensor in expected.state_dict().items():
        assert state[name].dtype == torch.float32 and torch.equal(state[name], tensor), name
    ends = int((made.tokens() == 0).sum())
    assert ends == 3000
    assert made.manifest.model_source == f"tiny/moe@{COMMIT}"


def test_memory_for_a_conversion_is_a_layer_and_a_shard(
    hub: Hub,
    hub_benchmark: Callable[..., LoadedHparams],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(initial_state, "SHARD_BYTES", 100_000)
    whole = preload(hub_benchmark(), tmp_path / "s")
    files = sorted((whole.model_dir / "state").iterdir())
    largest_tensor = 2048 * 16 * 4
    assert len(files) > 3
    assert max(file.stat().st_size for file in files) < largest_tensor + 20_000
    load_model(whole.model_dir, torch.device("cpu"), "cpu", torch.float32)


def test_a_tied_hub_checkpoint_gets_both_names(
    hub: Hub, hub_benchmark: Callable[..., LoadedHparams], tmp_path: Path
) -> None:
    saved = tmp_path / "tied"
    tiny_model("qwen3", **TINY, tie_word_embeddings=True).save_pretrained(saved)
    shutil.copy(TOKENIZER, saved)
    files = {file.name: file.read_bytes() for file in saved.iterdir()}
    assert b"lm_head" not in files["model.safetensors"][:5000]
    hub.repositories["models/tiny/moe"].files = files
    state = stored_state(preload(hub_benchmark(), tmp_path / "s"))
    assert torch.equal(state["model.embed_tokens.weight"], state["lm_head.weight"])


def test_random_weights_on_a_hub_config_download_no_weights(
    hub: Hub, hub_benchmark: Callable[..., LoadedHparams], tmp_path: Path
) -> None:
    loaded = hub_benchmark(model__random_init=True, model__init_seed=5)
    first = preload(loaded, tmp_path / "a")
    second = preload(loaded, tmp_path / "b")
    assert first.manifest == second.manifest
    assert not any("safetensors" in request for request in hub.requests if "resolve" in request)


def test_a_gated_model_asks_for_a_token_and_takes_it(
    hub: Hub, hub_benchmark: Callable[..., LoadedHparams], tmp_path: Path
) -> None:
    hub.repositories["models/tiny/moe"].token = "hf_right"
    for token in (None, "hf_wrong"):
        with pytest.raises(InputError, match=r"is gated.*--token") as caught:
            preload(hub_benchmark(), tmp_path / "s", token=token)
        assert caught.value.code is Code.DOWNLOAD_FAILED
        assert "hf_" not in caught.value.message + caught.value.detail
    assert preload(hub_benchmark(), tmp_path / "s", token="hf_right").tokens().size


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model__revision": OTHER_COMMIT}, f"no commit {OTHER_COMMIT}"),
        ({"model__repo": "tiny/none"}, "no model tiny/none"),
        ({"data__repo": "tiny/none"}, "no dataset tiny/none"),
        ({"data__file": "sample/none.jsonl"}, "no file sample/none.jsonl"),
    ],
)
def test_what_the_hub_does_not_have_is_the_benchmarks_fault(
    hub: Hub,
    hub_benchmark: Callable[..., LoadedHparams],
    tmp_path: Path,
    change: dict[str, Any],
    message: str,
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        preload(hub_benchmark(**change), tmp_path / "s")
    assert caught.value.code is Code.DOWNLOAD_FAILED
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_a_repository_without_what_a_model_needs_is_refused(
    hub: Hub, hub_benchmark: Callable[..., LoadedHparams], tmp_path: Path, name: str
) -> None:
    del hub.repositories["models/tiny/moe"].files[name]
    with pytest.raises(InputError, match=f"has no {name}"):
        preload(hub_benchmark(), tmp_path / "s")


def test_a_checkpoint_without_one_of_the_tensors_is_refused(
    hub: Hub, hub_benchmark: Callable[..., LoadedHparams], tmp_path: Path
) -> None:
    files = hub.repositories["models/tiny/moe"].files
    index = json.loads(files["model.safetensors.index.json"])
    lost = index["weight_map"]["model.norm.weight"]
    index["weight_map"] = {k: v for k, v in index["weight_map"].items() if v != lost}
    files["model.safetensors.index.json"] = json.dumps(index).encode()
    with pytest.raises(InputError, match=r"lacks \d+ of the model's tensors"):
        preload(hub_benchmark(), tmp_path / "s")


def test_a_checkpoint_of_other_shapes_is_refused(
    hub: Hub, hub_benchmark: Callable[..., LoadedHparams], tmp_path: Path
) -> None:
    files = hub.repositories["models/tiny/moe"].files
    config = {**json.loads(files["config.json"]), "moe_intermediate_size": 4}
    files["config.json"] = json.dumps(config).encode()
    with pytest.raises(InputError, match="does not fit the model"):
        preload(hub_benchmark(), tmp_path / "s")


@pytest.mark.parametrize("name", ["tokenizer.json", "config.json"])
def test_a_download_that_is_not_what_the_hub_lists_is_our_error(
    hub: Hub, hub_benchmark: Callable[..., LoadedHparams], tmp_path: Path, name: str
) -> None:
    repository = hub.repositories["models/tiny/moe"]
    damaged = bytearray(repository.files[name])
    damaged[10] ^= 1
    repository.sent[name] = bytes(damaged)
    with pytest.raises(JudgeError, match=f"{name} is damaged") as caught:
        preload(hub_benchmark(), tmp_path / "s")
    assert caught.value.code is Code.DOWNLOAD_FAILED
    assert not (tmp_path / "s").exists()


def test_a_hub_that_sends_another_commit_is_not_believed(
    hub: Hub, hub_benchmark: Callable[..., LoadedHparams], tmp_path: Path
) -> None:
    hub.repositories["datasets/tiny/text"].sent_commit = OTHER_COMMIT
    with pytest.raises(JudgeError, match=OTHER_COMMIT):
        preload(hub_benchmark(), tmp_path / "s")


def test_a_hub_that_is_down_is_our_error(
    hub: Hub, hub_benchmark: Callable[..., LoadedHparams], tmp_path: Path
) -> None:
    hub.down = True
    with pytest.raises(JudgeError, match="try again") as caught:
        preload(hub_benchmark(), tmp_path / "s")
    assert caught.value.code is Code.DOWNLOAD_FAILED


def test_after_preload_nothing_needs_the_hub(
    hub: Hub, hub_benchmark: Callable[..., LoadedHparams], tmp_path: Path
) -> None:
    loaded = hub_benchmark()
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "hf"),
        "TRAINJUDGE_HOME": str(tmp_path / "home"),
    }
    script = ROOT / "local_test" / "setup_benchmark.py"
    command = [sys.executable, str(script), "--hparams", str(loaded.path)]
    made = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert made.returncode == 0, made.stderr
    shutil.rmtree(tmp_path / "hf")
    hub.down = True
    asked = len(hub.requests)
    code = (
        "import sys, torch; from pathlib import Path; from harness.benchmark.hparams import load;"
        "from harness.benchmark.snapshot import open_snapshot; from env.model import load_model;"
        "s = open_snapshot(load(Path(sys.argv[1])));"
        "load_model(s.model_dir, torch.device('cpu'), 'device', torch.float32)"
    )
    opened = subprocess.run(
        [sys.executable, "-c", code, loaded.path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**environment, "HF_HUB_OFFLINE": "1"},
    )
    assert opened.returncode == 0, opened.stderr
    assert len(hub.requests) == asked
