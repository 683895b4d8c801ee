"""The snapshot: everything of a benchmark that an evaluation reads, in one verified folder.

    manifest.json               what the files are, for which benchmark, with the sha256 of each
    model/config.json           all that a sandbox may see of the benchmark lies in model/
    model/tokenizer.json
    model/layout.json           name, shape, dtype and kind of every tensor of the state
    model/state/*.safetensors   the initial weights
    corpus/tokens.bin           the packed corpus; the folder is 0700 and never mounted in a sandbox

`validator preload` writes it (`preload.py` and `build_snapshot.py` beside this), everything else opens it
here. Opening hashes every byte, at about 2 GB/s a thread: a benchmark whose weights were swapped must not
be judged. The manifest itself is trusted: it lies in a folder of the judge's, which no submission can
write to.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter, ValidationError

from harness.benchmark.at_hand import name_of
from harness.benchmark.hparams import LoadedHparams
from harness.benchmark.manifest import Manifest, changed, manifest_in, missing, verify_files
from harness.benchmark.problem import EmbeddedModel
from harness.errors import Code, InputError
from harness.paths import DEFAULT_HPARAMS
from harness.tensors.boxes import TensorSpec

CONFIG = "model/config.json"
TOKENIZER = "model/tokenizer.json"
LAYOUT = "model/layout.json"
STATE = "model/state"
TOKENS = "corpus/tokens.bin"

_LAYOUT: TypeAdapter[dict[str, TensorSpec]] = TypeAdapter(dict[str, TensorSpec])


@dataclass(frozen=True)
class Snapshot:
    """A snapshot whose every file has been verified.

    Attributes:
        directory: its folder.
        model_dir: the part that a sandbox gets, read-only.
        tokens_file: the packed corpus; for the judge only.
        manifest: what it holds.
        layout: what every tensor of the final state must be.
    """

    directory: Path
    model_dir: Path
    tokens_file: Path
    manifest: Manifest
    layout: dict[str, TensorSpec]

    @property
    def state_dir(self) -> Path:
        """The files of the initial weights; `verify.states.trusted_state` reads them."""
        return self.directory / STATE

    @property
    def state_bytes(self) -> int:
        """Bytes of the files of one state of the model."""
        return sum(file.size for file in self.manifest.files if file.path.startswith(f"{STATE}/"))

    def tokens(self) -> npt.NDArray[np.uint16] | npt.NDArray[np.uint32]:
        """The packed corpus, memory-mapped read-only: uint16 or uint32 [token_count]."""
        return np.memmap(self.tokens_file, dtype=self.manifest.token_dtype, mode="r")


def default_directory(loaded: LoadedHparams) -> Path:
    """Where `preload` puts the snapshot of a benchmark unless it is told otherwise.

    Under $TRAINJUDGE_HOME, else $XDG_CACHE_HOME/trainjudge, else ~/.cache/trainjudge.

    Raises:
        InputError: the benchmark's tokenizer file cannot be read.
    """
    if home := os.environ.get("TRAINJUDGE_HOME"):
        base = Path(home)
    elif cache := os.environ.get("XDG_CACHE_HOME"):
        base = Path(cache) / "trainjudge"
    else:
        base = Path.home() / ".cache" / "trainjudge"
    name = f"{loaded.hparams.name}-{benchmark_key(loaded)[:12]}"
    return base.absolute() / "snapshots" / name


def benchmark_key(loaded: LoadedHparams) -> str:
    """SHA-256 of what decides a snapshot's contents; equal for benchmarks that can share one.

    Local files enter by content, not by path. The library versions are part of it: transformers
    names and shapes the tensors, and torch draws random weights.

    Raises:
        InputError: the tokenizer file cannot be read.
    """
    hparams = loaded.hparams
    model: dict[str, object] = hparams.model.model_dump(mode="json")
    data: dict[str, object] = hparams.data.model_dump(mode="json")
    versions = {"transformers": version("transformers")}
    if isinstance(hparams.model, EmbeddedModel):
        model["tokenizer"] = _sha256_of_input(loaded, "model.tokenizer", hparams.model.tokenizer)
        weights_are_random = True
    else:
        model.pop("folder", None)  # its sha256 stays
        weights_are_random = hparams.model.random_init
    if weights_are_random:
        versions["torch"] = version("torch").partition("+")[0]
    if hparams.data.source == "embedded":
        del data["file"]  # its sha256 stays
    parts = {
        "schema": 1,
        "model": model,
        "data": data,
        "param_dtype": hparams.numerics.param_dtype,
        "versions": versions,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def open_snapshot(loaded: LoadedHparams, directory: Path | None = None) -> Snapshot:
    """Verify every byte of the benchmark's snapshot and open it.

    Args:
        loaded: the benchmark.
        directory: the snapshot's folder; None: `default_directory`.

    Raises:
        InputError: SNAPSHOT_MISSING where there is none for this benchmark, SNAPSHOT_CHANGED where a
            file is not what `preload` wrote, HPARAMS_INVALID where the benchmark asks for longer rows
            or more tokens than model and corpus have.
    """
    named = directory
    directory = default_directory(loaded) if directory is None else directory.absolute()
    manifest = manifest_in(directory)
    if manifest is None:
        raise missing(directory, _preload_command(loaded, named))
    if manifest.key != benchmark_key(loaded):
        raise InputError(
            Code.SNAPSHOT_MISSING,
            f"{directory} holds a snapshot of another benchmark ({manifest.name}), or of other "
            f"library versions (transformers {manifest.transformers}, torch {manifest.torch}): run "
            f"`{_preload_command(loaded, named)}`",
        )
    try:
        verify_files(directory, manifest)
    except OSError as error:
        raise InputError(
            Code.SNAPSHOT_MISSING,
            f"cannot read {error.filename} of the snapshot: {error.strerror}; it belongs to the user "
            "who ran `validator preload`",
        ) from None
    try:
        layout = _LAYOUT.validate_json((directory / LAYOUT).read_bytes())
    except ValidationError as error:
        raise changed(directory, f"{LAYOUT} is not a layout", str(error)) from None
    check_fits(loaded, manifest, json.loads((directory / CONFIG).read_bytes()))
    return Snapshot(directory, directory / "model", directory / TOKENS, manifest, layout)


def _preload_command(loaded: LoadedHparams, directory: Path | None) -> str:
    """What makes this very snapshot."""
    words = ["validator preload"]
    if loaded.path != DEFAULT_HPARAMS:
        words.append(f"--hparams {name_of(loaded.path) or loaded.path}")
    if directory is not None:
        words.append(f"--snapshot {directory}")
    return " ".join(words)


def write_layout(file: Path, layout: Mapping[str, TensorSpec]) -> None:
    file.write_bytes(_LAYOUT.dump_json(dict(layout), indent=1))


def check_fits(loaded: LoadedHparams, manifest: Manifest, config: Mapping[str, object]) -> None:
    """That what the hparams ask of this model and corpus can be had. Raises InputError(HPARAMS_INVALID)."""
    hparams = loaded.hparams
    longest = config.get("max_position_embeddings")
    if isinstance(longest, int) and hparams.sequence_length > longest:
        raise InputError(
            Code.HPARAMS_INVALID,
            f"{loaded.path}: sequence_length: {hparams.sequence_length} is above the model's "
            f"max_position_embeddings, {longest}",
        )
    needed = hparams.steps.max * hparams.global_batch * hparams.sequence_length
    if manifest.token_count < needed:
        raise InputError(
            Code.HPARAMS_INVALID,
            f"{loaded.path}: data: a run of {hparams.steps.max} steps reads {needed} tokens, the "
            f"corpus has {manifest.token_count}",
        )


def _sha256_of_input(loaded: LoadedHparams, field: str, relative: str) -> str:
    path = loaded.resolve(relative)
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(
            Code.HPARAMS_INVALID, f"{loaded.path}: {field}: cannot read {path}: {error.strerror}"
        ) from None
