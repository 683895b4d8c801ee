"""What a snapshot is made of: model, tokenizer and text, gathered, converted, packed and described."""

import json
import math
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Final

from harness.benchmark.checkpoint import ModelFolder, pinned_folder
from harness.benchmark.hparams import LoadedHparams
from harness.benchmark.manifest import MANIFEST, Manifest, combined_sha256, describe_files
from harness.benchmark.problem import EmbeddedModel, HubModel, LocalModel
from harness.benchmark.snapshot import (
    CONFIG,
    LAYOUT,
    STATE,
    TOKENIZER,
    TOKENS,
    benchmark_key,
    check_fits,
    write_layout,
)
from harness.errors import Code, InputError
from harness.files import make_readable
from harness.phases import OnProgress
from harness.tensors.boxes import TensorSpec

#: Below that a corpus is small for a benchmark that somebody wants to win (docs/benchmark.md).
FEW_TOKENS: Final = 1_000_000


@dataclass(frozen=True)
class _Inputs:
    """Local files that a snapshot is made of, whether they were shipped or downloaded.

    Attributes:
        tokenizer: a tokenizer.json.
        model_folder: config.json lies in it; None: the config is in the hparams.
        checkpoint: safetensors files; empty: the weights are drawn at random.
        corpus: the text.
    """

    tokenizer: Path
    model_folder: Path | None
    checkpoint: tuple[Path, ...]
    corpus: Path


def build(loaded: LoadedHparams, building: Path, token: str | None, progress: OnProgress) -> None:
    """Write a whole snapshot into a new folder. Raises as `preload` does."""
    for folder in (building, building / "model", building / STATE, building / "corpus"):
        folder.mkdir()
    inputs = _gather(loaded, token, progress)
    shutil.copyfile(inputs.tokenizer, building / TOKENIZER)
    vocab_size, end_of_document = _write_model(loaded, inputs, building, progress)
    manifest = _write_corpus(loaded, inputs, building, vocab_size, end_of_document, progress)
    check_fits(loaded, manifest, json.loads((building / CONFIG).read_bytes()))
    progress("hashing")
    files = describe_files(building)
    manifest = manifest.model_copy(
        update={
            "files": files,
            "model_sha256": combined_sha256(files, "model"),
            "data_sha256": combined_sha256(files, "corpus"),
        }
    )
    (building / MANIFEST).write_text(manifest.model_dump_json(indent=1), encoding="utf-8")
    _set_modes(building)


def _gather(loaded: LoadedHparams, token: str | None, progress: OnProgress) -> _Inputs:
    model, data = loaded.hparams.model, loaded.hparams.data
    if isinstance(model, EmbeddedModel):
        tokenizer = loaded.resolve(model.tokenizer)
        model_folder: Path | None = None
        checkpoint: tuple[Path, ...] = ()
    else:
        found = _model_folder(loaded, model, token, progress)
        tokenizer = found.folder / "tokenizer.json"
        model_folder, checkpoint = found.folder, found.checkpoint
    if data.source == "embedded":
        corpus = _checked_text(loaded, data.file, data.sha256)
    else:
        from harness.benchmark import hub

        corpus = hub.download_data(data, token, progress)
    return _Inputs(tokenizer, model_folder, checkpoint, corpus)


def _model_folder(
    loaded: LoadedHparams, model: HubModel | LocalModel, token: str | None, progress: OnProgress
) -> ModelFolder:
    if isinstance(model, LocalModel):
        progress(f"hashing {model.folder}")
        return pinned_folder(loaded.resolve(model.folder), model)
    from harness.benchmark import hub

    return hub.download_model(model, token, progress)


def _checked_text(loaded: LoadedHparams, file: str, sha256: str) -> Path:
    from harness.benchmark.corpus import text_sha256

    path = loaded.resolve(file)
    found = text_sha256(path)
    if found != sha256:
        raise InputError(
            Code.HPARAMS_INVALID,
            f"{loaded.path}: data.sha256: the text of {path} has {found}, not {sha256}",
        )
    return path


def _write_model(
    loaded: LoadedHparams, inputs: _Inputs, building: Path, progress: OnProgress
) -> tuple[int, int]:
    """Config, layout and weights. Returns the vocabulary's size and the end-of-document token."""
    import torch

    from harness.benchmark import initial_state, model_config

    model = loaded.hparams.model
    dtype = getattr(torch, loaded.hparams.numerics.param_dtype)
    if isinstance(model, EmbeddedModel):
        config = model_config.config_from_fields(model.config)
        config.to_json_file(building / CONFIG, use_diff=True)
    else:
        assert inputs.model_folder is not None
        shutil.copyfile(inputs.model_folder / "config.json", building / CONFIG)
        config = model_config.config_from_folder(building / "model")
    empty = initial_state.empty_model(config, dtype)
    layout = initial_state.describe_layout(empty)
    write_layout(building / LAYOUT, layout)
    _check_room(layout, building, dtype.itemsize)
    if inputs.checkpoint:
        progress(f"converting {len(inputs.checkpoint)} files of weights")
        initial_state.write_converted(empty, inputs.checkpoint, layout, building / STATE, progress)
    else:
        progress(f"drawing random weights from seed {model.init_seed}")
        initial_state.write_random(config, layout, model.init_seed, building / STATE)
    end = config.eos_token_id
    end = end[0] if isinstance(end, list) and end else end
    if not isinstance(end, int):
        raise InputError(
            Code.HPARAMS_INVALID,
            f"{loaded.path}: model: the config has no eos_token_id, which ends a document",
        )
    return int(config.vocab_size), end


def _check_room(layout: Mapping[str, TensorSpec], building: Path, item_bytes: int) -> None:
    """Raises InputError: the weights are too large for this disk, or one tensor for this memory."""
    import psutil

    sizes = {name: math.prod(spec.shape) * item_bytes for name, spec in layout.items()}
    free, memory = shutil.disk_usage(building).free, psutil.virtual_memory().total
    largest = max(sizes, key=lambda name: sizes[name])
    if sum(sizes.values()) > free:
        raise InputError(
            Code.BAD_ARGUMENT,
            f"the model's weights have {sum(sizes.values()) / 2**30:,.1f} GiB, and {building.parent} has "
            f"{free / 2**30:,.1f} left: set TRAINJUDGE_HOME to a larger disk, or take a smaller model",
        )
    if sizes[largest] > memory:
        raise InputError(
            Code.BAD_ARGUMENT,
            f"{largest} alone has {sizes[largest] / 2**30:,.1f} GiB, and this machine "
            f"{memory / 2**30:,.1f} of memory",
        )


def _write_corpus(
    loaded: LoadedHparams,
    inputs: _Inputs,
    building: Path,
    vocab_size: int,
    end_of_document: int,
    progress: OnProgress,
) -> Manifest:
    """Tokenise and pack; returns the manifest without the hashes."""
    from harness.benchmark.corpus import load_tokenizer, pack, read_documents

    hparams = loaded.hparams
    tokenizer = load_tokenizer(inputs.tokenizer)
    progress(f"tokenising {inputs.corpus.name}")
    documents: Iterable[str] = read_documents(inputs.corpus)
    if hparams.data.source == "hub":
        every = read_documents(inputs.corpus, hparams.data.text_field)
        documents = islice(every, hparams.data.max_documents)
    packed = pack(documents, tokenizer, end_of_document, vocab_size, building / TOKENS, progress)
    progress(f"packed {packed.documents:,} documents into {packed.count:,} tokens")
    if not packed.count:
        raise InputError(Code.HPARAMS_INVALID, f"the corpus {inputs.corpus} is empty")
    if packed.count < FEW_TOKENS:
        progress(
            f"that is little: whoever knows {packed.count:,} tokens could compute gradients beforehand"
        )
    return Manifest(
        name=hparams.name,
        key=benchmark_key(loaded),
        model_source=_model_source(hparams.model),
        data_source=(
            f"{hparams.data.repo}@{hparams.data.revision}:{hparams.data.file}"
            if hparams.data.source == "hub"
            else Path(hparams.data.file).name  # where it lies makes no other snapshot
        ),
        param_dtype=hparams.numerics.param_dtype,
        vocab_size=vocab_size,
        end_of_document=end_of_document,
        token_dtype=packed.dtype,
        token_count=packed.count,
        torch=version("torch"),
        transformers=version("transformers"),
        model_sha256="0" * 64,
        data_sha256="0" * 64,
        files=(),
    )


def _model_source(model: EmbeddedModel | HubModel | LocalModel) -> str:
    if isinstance(model, EmbeddedModel):
        return f"random weights from seed {model.init_seed}"
    if isinstance(model, LocalModel):
        source = f"a folder with sha256 {model.sha256[:12]}"
    else:
        source = f"{model.repo}@{model.revision}"
    return f"{source}, random weights from seed {model.init_seed}" if model.random_init else source


def _set_modes(building: Path) -> None:
    """Readable by a sandbox's other user, whatever the umask; the corpus by its owner alone."""
    for folder, _, files in os.walk(building):
        make_readable(Path(folder))
        for file in files:
            make_readable(Path(folder, file))
    (building / "corpus").chmod(0o700)
    (building / TOKENS).chmod(0o600)
