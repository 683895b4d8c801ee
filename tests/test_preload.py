"""The snapshot: made once, the same every time, refused when it is not what was made."""

import gzip
import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
from hub_standin import Hub, Repository, hub_standin
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModelForCausalLM

from env.model import load_model
from harness import initial_state
from harness.corpus import pack, read_documents
from harness.errors import Code, InputError, JudgeError
from harness.hparams import LoadedHparams
from harness.preload import preload
from harness.snapshot import Snapshot, default_directory, open_snapshot
from harness.verify.pieces import TensorKind

ROOT = Path(__file__).resolve().parent.parent
Edit = Callable[[dict[str, Any]], LoadedHparams]

TOKENIZER = ROOT / "assets" / "tokenizer.json"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
OTHER_COMMIT = "f" * 40
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
TINY_MOE = {**TINY, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8}


@pytest.fixture
def copied(snapshot: Snapshot, tmp_path: Path) -> Path:
    """A copy of the embedded snapshot, to be damaged."""
    target = tmp_path / "copy"
    shutil.copytree(snapshot.directory, target)
    return target


# --- the embedded benchmark -------------------------------------------------------------------


def test_a_second_preload_makes_the_same_bytes_and_leaves_the_random_state_alone(
    loaded: LoadedHparams, snapshot: Snapshot, tmp_path: Path
) -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    again = preload(loaded, tmp_path / "again")
    assert again.manifest == snapshot.manifest
    assert torch.equal(torch.rand(4), expected)


def test_an_existing_snapshot_is_reused(loaded: LoadedHparams, snapshot: Snapshot) -> None:
    before = (snapshot.directory / "manifest.json").stat()
    assert preload(loaded).manifest == snapshot.manifest
    after = (snapshot.directory / "manifest.json").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


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


def test_bfloat16_parameters_are_the_rounded_float32_ones(
    edited: Edit, snapshot: Snapshot, tmp_path: Path
) -> None:
    rounded = preload(edited({"numerics.param_dtype": "bfloat16"}), tmp_path / "bf16")
    exact = _state(snapshot)
    state = _state(rounded)
    assert all(torch.equal(state[name], exact[name].bfloat16()) for name in exact)
    assert {spec.dtype for spec in rounded.layout.values()} == {"bfloat16"}


def test_a_killed_preload_leaves_no_snapshot_and_the_next_one_works(
    loaded: LoadedHparams, tmp_path: Path
) -> None:
    target = tmp_path / "s"
    script = ROOT / "local_test" / "setup_benchmark.py"
    command = [sys.executable, "-u", script, "--directory", target]
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


# --- a snapshot that is not what was made -----------------------------------------------------


def _flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda d: _flip_a_bit(d / "model/state/00001.safetensors"), "00001.safetensors"),
        (lambda d: _flip_a_bit(d / "corpus/tokens.bin"), "corpus/tokens.bin"),
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
    _flip_a_bit(copied / "model/state/00001.safetensors")
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


def test_importing_the_snapshot_needs_no_torch() -> None:
    code = "import sys, harness.preload, harness.snapshot; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


# --- corpora ----------------------------------------------------------------------------------

DOCUMENTS = ["one", "two\u2028still two", "three", "  four "]


def _lines(documents: list[str]) -> bytes:
    return "\n".join(documents).encode() + b"\n\n"


def _json_lines(documents: list[str]) -> bytes:
    return b"".join(json.dumps({"id": 1, "body": d}).encode() + b"\n" for d in [*documents, ""])


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(("suffix", "content"), [("txt", _lines), ("jsonl", _json_lines)])
def test_documents_of_every_form(
    tmp_path: Path, suffix: str, content: Callable[[list[str]], bytes], zipped: bool
) -> None:
    raw = content(DOCUMENTS)
    file = tmp_path / (f"a.{suffix}.gz" if zipped else f"a.{suffix}")
    file.write_bytes(gzip.compress(raw) if zipped else raw)
    assert list(read_documents(file, "body")) == DOCUMENTS


@pytest.mark.parametrize("zipped", [False, True])
def test_documents_of_a_parquet_file(tmp_path: Path, zipped: bool) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    plain = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"body": [*DOCUMENTS, None], "id": [1] * 5}), plain)
    file = plain
    if zipped:
        file = tmp_path / "a.parquet.gz"
        file.write_bytes(gzip.compress(plain.read_bytes()))
    assert list(read_documents(file, "body")) == DOCUMENTS
    with pytest.raises(InputError, match="no column 'text'"):
        list(read_documents(file))


def test_parquet_without_pyarrow_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.corpus.find_spec", lambda _: None)
    (tmp_path / "a.parquet").touch()
    with pytest.raises(InputError, match="pip install pyarrow"):
        list(read_documents(tmp_path / "a.parquet"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"x", "must end with"),
        ("a.txt", b"\xff\xfe", "not UTF-8"),
        ("a.txt.gz", b"not gzip", "gzip"),
        ("a.txt.gz", gzip.compress(b"some text\n" * 99)[:-20], "gzip"),
        ("a.jsonl", b"{]\n", "line 1 is not JSON"),
        ("a.jsonl", b'{"text": "a"}\n{"other": 1}\n', "line 2 has no text"),
        ("a.jsonl", b"[]\n", "line 1 has no text"),
    ],
)
def test_an_unreadable_corpus_says_why(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        list(read_documents(tmp_path / name))


def test_a_large_vocabulary_gets_wider_tokens(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_file(str(TOKENIZER))
    packed = pack(["ab"], tokenizer, 100_000, 100_001, tmp_path / "tokens", lambda _: None)
    tokens = np.fromfile(tmp_path / "tokens", dtype=np.uint32)
    assert packed.dtype == "uint32" and packed.count == len(tokens) and tokens[-1] == 100_000


# --- models -----------------------------------------------------------------------------------


def _state(snapshot: Snapshot) -> dict[str, torch.Tensor]:
    return {
        name: tensor
        for file in sorted((snapshot.model_dir / "state").iterdir())
        for name, tensor in load_file(file).items()
    }


def _tiny_model(model_type: str, **fields: Any) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **fields))


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
    edited: Edit, tmp_path: Path
) -> None:
    config = {"model_type": "qwen3", **TINY, "tie_word_embeddings": True}
    changes = {"model.config": config, "sequence_length": 64}
    made = preload(edited(changes), tmp_path / "s")
    state = _state(made)
    assert torch.equal(state["model.embed_tokens.weight"], state["lm_head.weight"])
    model = load_model(made.model_dir, torch.device("cpu"), "device", torch.float32)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert set(model.state_dict()) == set(made.layout)


# --- the hub ----------------------------------------------------------------------------------


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A stand-in with a tiny sharded Qwen3-MoE checkpoint and a dataset of two files."""
    with hub_standin() as standin:
        saved = tmp_path / "saved"
        model = _tiny_model("qwen3_moe", **TINY_MOE)
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
    state = _state(made)
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
    _tiny_model("qwen3", **TINY, tie_word_embeddings=True).save_pretrained(saved)
    shutil.copy(TOKENIZER, saved)
    files = {file.name: file.read_bytes() for file in saved.iterdir()}
    assert b"lm_head" not in files["model.safetensors"][:5000]
    hub.repositories["models/tiny/moe"].files = files
    state = _state(preload(hub_benchmark(), tmp_path / "s"))
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
    command = [sys.executable, script, "--hparams", loaded.path]
    made = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert made.returncode == 0, made.stderr
    shutil.rmtree(tmp_path / "hf")
    hub.down = True
    asked = len(hub.requests)
    code = (
        "import sys, torch; from pathlib import Path; from harness.hparams import load;"
        "from harness.snapshot import open_snapshot; from env.model import load_model;"
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
