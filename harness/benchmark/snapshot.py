"""The snapshot: everything of a benchmark that an evaluation reads, in one verified folder.

    manifest.json               what the files are, for which benchmark, with the sha256 of each
    model/config.json           all that a sandbox may see of the benchmark lies in model/
    model/tokenizer.json
    model/layout.json           name, shape, dtype and kind of every tensor of the state
    model/state/*.safetensors   the initial weights
    corpus/tokens.bin           the packed corpus; the folder is 0700 and never mounted in a sandbox

`validator preload` writes it (`preload.py` beside this), everything else opens it here. Opening hashes
every byte, at about 2 GB/s a thread: a benchmark whose weights were swapped must not be judged. The
manifest itself is trusted: it lies in a folder of the judge's, which no submission can write to.
"""

import hashlib
import json
import os
import stat
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from harness.benchmark.at_hand import name_of
from harness.benchmark.hparams import LoadedHparams
from harness.benchmark.problem import EmbeddedModel
from harness.errors import Code, InputError
from harness.paths import DEFAULT_HPARAMS
from harness.tensors.boxes import TensorSpec

MANIFEST = "manifest.json"
CONFIG = "model/config.json"
TOKENIZER = "model/tokenizer.json"
LAYOUT = "model/layout.json"
STATE = "model/state"
TOKENS = "corpus/tokens.bin"

HASH_THREADS = min(8, os.cpu_count() or 1)

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_LAYOUT: TypeAdapter[dict[str, TensorSpec]] = TypeAdapter(dict[str, TensorSpec])


class FileEntry(BaseModel):
    """One file of the snapshot; `path` is relative to its folder."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    path: str
    size: int = Field(ge=0, description="bytes")
    sha256: Sha256


class Manifest(BaseModel):
    """What a snapshot holds and where it came from."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    schema_version: Literal[1] = 1
    name: str = Field(description="of the benchmark that it was made for")
    key: Sha256 = Field(description="`benchmark_key` of that benchmark")
    model_source: str = Field(description="repository@commit, or the seed of the random weights")
    data_source: str = Field(description="repository@commit:file, or the file's name")
    param_dtype: Literal["float32", "bfloat16"]
    vocab_size: int = Field(ge=1, description="rows of the input embedding")
    end_of_document: int = Field(ge=0, description="token between two documents")
    token_dtype: Literal["uint16", "uint32"]
    token_count: int = Field(ge=1)
    torch: str
    transformers: str
    model_sha256: Sha256 = Field(description="of the list of hashes of the files in model/")
    data_sha256: Sha256 = Field(description="of the list of hashes of the files in corpus/")
    files: tuple[FileEntry, ...]


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
    manifest = _manifest_in(directory)
    if manifest is None:
        raise _missing(directory, _preload_command(loaded, named))
    if manifest.key != benchmark_key(loaded):
        raise InputError(
            Code.SNAPSHOT_MISSING,
            f"{directory} holds a snapshot of another benchmark ({manifest.name}), or of other "
            f"library versions (transformers {manifest.transformers}, torch {manifest.torch}): run "
            f"`{_preload_command(loaded, named)}`",
        )
    try:
        _verify_files(directory, manifest)
    except OSError as error:
        raise InputError(
            Code.SNAPSHOT_MISSING,
            f"cannot read {error.filename} of the snapshot: {error.strerror}; it belongs to the user "
            "who ran `validator preload`",
        ) from None
    try:
        layout = _LAYOUT.validate_json((directory / LAYOUT).read_bytes())
    except ValidationError as error:
        raise _changed(directory, f"{LAYOUT} is not a layout", str(error)) from None
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


def read_manifest(directory: Path) -> Manifest:
    """The manifest alone; nothing else is verified. Raises InputError as `open_snapshot` does."""
    manifest = _manifest_in(directory)
    if manifest is None:
        raise _missing(directory, "validator preload")
    return manifest


def _missing(directory: Path, make_it: str) -> InputError:
    return InputError(Code.SNAPSHOT_MISSING, f"no snapshot in {directory}: run `{make_it}` first")


def _manifest_in(directory: Path) -> Manifest | None:
    """None where there is none. Raises InputError for one that cannot be read."""
    try:
        raw = (directory / MANIFEST).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise InputError(
            Code.SNAPSHOT_MISSING, f"cannot read {directory / MANIFEST}: {error.strerror}"
        ) from None
    try:
        return Manifest.model_validate_json(raw)
    except ValidationError as error:
        raise _changed(directory, f"{MANIFEST} is not a manifest", str(error)) from None


def list_files(directory: Path) -> dict[str, int]:
    """Path relative to `directory` and size in bytes of every file but the manifest.

    Raises:
        InputError: SNAPSHOT_CHANGED where something is neither a regular file nor a folder.
    """
    sizes = {}
    for folder, folders, files in os.walk(directory, onerror=_raise):
        for entry in (*folders, *files):
            path = Path(folder, entry)
            status = path.lstat()
            relative = path.relative_to(directory).as_posix()
            if stat.S_ISREG(status.st_mode):
                sizes[relative] = status.st_size
            elif not stat.S_ISDIR(status.st_mode):
                raise _changed(directory, f"{relative} is not a regular file")
    sizes.pop(MANIFEST, None)
    return sizes


def hash_files(directory: Path, paths: Iterable[str]) -> dict[str, str]:
    """SHA-256 of every file, several at a time."""
    paths = list(paths)
    with ThreadPoolExecutor(HASH_THREADS) as pool:
        return dict(zip(paths, pool.map(partial(_sha256, directory), paths), strict=True))


def describe_files(directory: Path) -> tuple[FileEntry, ...]:
    """Every file below `directory` as it is now, for a manifest."""
    sizes = list_files(directory)
    hashes = hash_files(directory, sizes)
    return tuple(
        FileEntry(path=path, size=sizes[path], sha256=hashes[path]) for path in sorted(sizes)
    )


def combined_sha256(files: Iterable[FileEntry], part: Literal["model", "corpus"]) -> str:
    """One hash for one part of a snapshot: of the `sha256sum` lines of its files, sorted by path."""
    lines = sorted((f.path, f.sha256) for f in files if f.path.startswith(f"{part}/"))
    listing = "".join(f"{sha256}  {path}\n" for path, sha256 in lines)
    return hashlib.sha256(listing.encode()).hexdigest()


def write_layout(file: Path, layout: Mapping[str, TensorSpec]) -> None:
    file.write_bytes(_LAYOUT.dump_json(dict(layout), indent=1))


def _verify_files(directory: Path, manifest: Manifest) -> None:
    expected = {entry.path: entry for entry in manifest.files}
    sizes = list_files(directory)
    for path in sorted(expected.keys() - sizes.keys()):
        raise _changed(directory, f"{path} is missing")
    for path in sorted(sizes.keys() - expected.keys()):
        raise _changed(directory, f"{path} does not belong there")
    for path, size in sizes.items():
        if size != expected[path].size:
            raise _changed(directory, f"{path} has {size} bytes instead of {expected[path].size}")
    for path, sha256 in hash_files(directory, sizes).items():
        if sha256 != expected[path].sha256:
            raise _changed(directory, f"{path} has another sha256 than the manifest")
    parts = (manifest.model_sha256, manifest.data_sha256)
    if parts != tuple(combined_sha256(manifest.files, p) for p in ("model", "corpus")):
        raise _changed(directory, f"{MANIFEST} contradicts itself")


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


def _raise(error: OSError) -> None:
    raise error


def _sha256(directory: Path, path: str) -> str:
    with (directory / path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _changed(directory: Path, what: str, detail: str = "") -> InputError:
    return InputError(
        Code.SNAPSHOT_CHANGED,
        f"the snapshot in {directory} has changed since it was made: {what}; run `validator "
        "preload` to make it anew",
        detail,
    )
