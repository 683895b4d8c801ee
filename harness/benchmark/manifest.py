"""A snapshot's manifest: which files there are, with the sha256 of each, and where they came from."""

import hashlib
import os
import stat
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harness.errors import Code, InputError

MANIFEST: Final = "manifest.json"
HASH_THREADS: Final = min(8, os.cpu_count() or 1)

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


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


def read_manifest(directory: Path) -> Manifest:
    """The manifest alone; nothing else is verified. Raises InputError as `open_snapshot` does."""
    manifest = manifest_in(directory)
    if manifest is None:
        raise missing(directory, "validator preload")
    return manifest


def manifest_in(directory: Path) -> Manifest | None:
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
        raise changed(directory, f"{MANIFEST} is not a manifest", str(error)) from None


def missing(directory: Path, make_it: str) -> InputError:
    """There is no snapshot there."""
    return InputError(Code.SNAPSHOT_MISSING, f"no snapshot in {directory}: run `{make_it}` first")


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
                raise changed(directory, f"{relative} is not a regular file")
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


def verify_files(directory: Path, manifest: Manifest) -> None:
    """Every byte. Raises InputError(SNAPSHOT_CHANGED), and OSError for what cannot be read."""
    expected = {entry.path: entry for entry in manifest.files}
    sizes = list_files(directory)
    for path in sorted(expected.keys() - sizes.keys()):
        raise changed(directory, f"{path} is missing")
    for path in sorted(sizes.keys() - expected.keys()):
        raise changed(directory, f"{path} does not belong there")
    for path, size in sizes.items():
        if size != expected[path].size:
            raise changed(directory, f"{path} has {size} bytes instead of {expected[path].size}")
    for path, sha256 in hash_files(directory, sizes).items():
        if sha256 != expected[path].sha256:
            raise changed(directory, f"{path} has another sha256 than the manifest")
    parts = (manifest.model_sha256, manifest.data_sha256)
    if parts != tuple(combined_sha256(manifest.files, p) for p in ("model", "corpus")):
        raise changed(directory, f"{MANIFEST} contradicts itself")


def _raise(error: OSError) -> None:
    raise error


def _sha256(directory: Path, path: str) -> str:
    with (directory / path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def changed(directory: Path, what: str, detail: str = "") -> InputError:
    """A snapshot is not what was made."""
    return InputError(
        Code.SNAPSHOT_CHANGED,
        f"the snapshot in {directory} has changed since it was made: {what}; run `validator "
        "preload` to make it anew",
        detail,
    )
