"""A folder as `save_pretrained` writes it: config.json, tokenizer.json and safetensors weights."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.benchmark.manifest import hash_files
from harness.benchmark.problem import LocalModel
from harness.errors import Code, InputError

#: What every model needs beside its weights.
FILES: Final = ("config.json", "tokenizer.json")
INDEX: Final = "model.safetensors.index.json"
SINGLE: Final = "model.safetensors"


@dataclass(frozen=True)
class ModelFolder:
    """A folder with config.json and tokenizer.json, and the weights (empty: random ones wanted)."""

    folder: Path
    checkpoint: tuple[Path, ...]


def indexed_names(index: Path) -> list[str]:
    """The weight files that an index names, plain names only; empty where it is not an index."""
    try:
        names = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []
    plain = all(isinstance(name, str) and name == Path(name).name for name in names)
    return names if plain else []


def model_folder(folder: Path, random_init: bool) -> ModelFolder:
    """What of a folder on this machine is a model.

    Raises InputError(BAD_ARGUMENT): something is missing.
    """
    names: list[str] = []
    if not random_init:
        names = indexed_names(folder / INDEX) if (folder / INDEX).exists() else [SINGLE]
    missing = [name for name in (*FILES, *names) if not (folder / name).is_file()]
    if missing or not (names or random_init):
        what = ", ".join(missing) or f"a readable {INDEX}"
        raise InputError(
            Code.BAD_ARGUMENT,
            f"{folder} lacks {what}: a model's folder is what `save_pretrained` of model and tokenizer "
            "writes",
        )
    return ModelFolder(folder, tuple(folder / name for name in names))


def folder_sha256(found: ModelFolder) -> str:
    """SHA-256 of `sha256sum config.json tokenizer.json <weights>`, its lines sorted by name.

    Raises InputError(BAD_ARGUMENT) where a file cannot be read.
    """
    names: Iterable[str] = (*FILES, *(path.name for path in found.checkpoint))
    try:
        hashes = hash_files(found.folder, names)
    except OSError as error:
        raise InputError(
            Code.BAD_ARGUMENT, f"cannot read {error.filename}: {error.strerror}"
        ) from None
    listing = "".join(f"{sha256}  {name}\n" for name, sha256 in sorted(hashes.items()))
    return hashlib.sha256(listing.encode()).hexdigest()


def pinned_folder(folder: Path, model: LocalModel) -> ModelFolder:
    """A benchmark's own folder, which has to hold what its hparams file says.

    Raises InputError(BAD_ARGUMENT): something is missing; HPARAMS_INVALID: it is another model.
    """
    found = model_folder(folder, model.random_init)
    sha256 = folder_sha256(found)
    if sha256 != model.sha256:
        raise InputError(
            Code.HPARAMS_INVALID,
            f"model.sha256: the files of {folder} have {sha256}, not {model.sha256}: it is another model",
        )
    return found
