"""Snapshots from a folder that many nodes reach: `validator fleet share` puts one there, a node gets it.

The folder is an fsspec URL, such as `s3://bucket/snapshots` or `file:///mnt/share`. It is not trusted: an
address names the manifest by its hash (`URL#sha256=...`), the manifest every file by its own, and nothing
is used before all of them are right.
"""

import hashlib
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Final

from pydantic import ValidationError

from harness.benchmark.hparams import LoadedHparams
from harness.benchmark.manifest import MANIFEST, FileEntry, Manifest
from harness.benchmark.preload import preload
from harness.benchmark.snapshot import Snapshot, benchmark_key
from harness.errors import Code, InputError, JudgeError
from harness.phases import OnProgress

ADDRESS: Final = re.compile(r"(?P<url>.+)#sha256=(?P<sha256>[0-9a-f]{64})")
CHUNK: Final = 1 << 20
#: A manifest lists files; a larger one is none.
MANIFEST_BYTES: Final = 64 * CHUNK


def share(snapshot: Snapshot, url: str, say: OnProgress) -> str:
    """Copy a snapshot, whose every byte was checked, into the folder; gives its address.

    Raises InputError: there is no such folder; JudgeError: it cannot be written to.
    """
    system, root = _folder(url)
    name = snapshot.directory.name
    whole = snapshot.directory / MANIFEST
    try:
        for entry in (*(file.path for file in snapshot.manifest.files), MANIFEST):  # that one last
            say(f"copying {entry}")
            target = f"{root}/{name}/{entry}"
            system.makedirs(target.rpartition("/")[0], exist_ok=True)
            system.put_file(str(snapshot.directory / entry), target)
    except Exception as error:  # each file system raises its own
        raise JudgeError(Code.INTERNAL, f"cannot write to {url}: {error}") from error
    digest = hashlib.sha256(whole.read_bytes()).hexdigest()
    return f"{url.rstrip('/')}/{name}#sha256={digest}"


def fetch(loaded: LoadedHparams, addresses: Sequence[str], say: OnProgress) -> Snapshot | None:
    """The benchmark's snapshot at its default place, from the first address that has it; None: none has.

    What is there already and whole is not fetched.

    Raises:
        InputError: BAD_ARGUMENT for what is no address, SNAPSHOT_CHANGED for what is not what it names.
        JudgeError: DOWNLOAD_FAILED: it cannot be read.
    """
    for address in addresses:
        found = ADDRESS.fullmatch(address)
        if found is None:
            raise InputError(
                Code.BAD_ARGUMENT,
                f"{address} is no address of a snapshot: `validator fleet share` prints one",
            )
        copy = _Copy(found["url"], found["sha256"])
        manifest = copy.manifest()
        if manifest.key == benchmark_key(loaded):
            say(f"the snapshot of {manifest.name} from {copy.url}, if it is not here already")
            return preload(loaded, progress=say, make=partial(copy.into, say=say))
    return None


class _Copy:
    """A snapshot in a folder that is not trusted."""

    def __init__(self, url: str, sha256: str) -> None:
        self.url, self._sha256 = url, sha256
        self._system, self._root = _folder(url)
        self._whole = b""

    def manifest(self) -> Manifest:
        """Of the hash that the address names."""
        self._whole = self._read(MANIFEST, MANIFEST_BYTES)
        if hashlib.sha256(self._whole).hexdigest() != self._sha256:
            raise self._changed("its manifest is not the one that the address names")
        try:
            return Manifest.model_validate_json(self._whole)
        except ValidationError as error:
            raise InputError(
                Code.SNAPSHOT_CHANGED, f"{self.url} holds no manifest", str(error)
            ) from None

    def into(self, building: Path, say: OnProgress) -> None:
        """All of its files, each checked while it comes."""
        for entry in self.manifest().files:
            if PurePosixPath(entry.path).is_absolute() or ".." in PurePosixPath(entry.path).parts:
                raise self._changed(f"{entry.path} lies outside of it")
            say(f"fetching {entry.path} ({entry.size / 2**20:.1f} MiB)")
            target = building / entry.path
            target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._fetch(entry, target)
        (building / MANIFEST).write_bytes(self._whole)

    def _fetch(self, entry: FileEntry, target: Path) -> None:
        digest, left = hashlib.sha256(), entry.size
        with self._open(entry.path) as source, target.open("xb") as file:
            while piece := self._piece(source, min(CHUNK, left + 1)):
                left -= len(piece)
                if left < 0:
                    raise self._changed(f"{entry.path} is larger than its manifest says")
                digest.update(piece)
                file.write(piece)
        if digest.hexdigest() != entry.sha256:
            raise self._changed(f"{entry.path} has another sha256 than the manifest")

    def _read(self, path: str, limit: int) -> bytes:
        with self._open(path) as source:
            return self._piece(source, limit)

    def _open(self, path: str) -> Any:
        try:
            return self._system.open(f"{self._root}/{path}", "rb")
        except Exception as error:
            raise self._unreadable(path, error) from error

    def _piece(self, source: Any, size: int) -> bytes:
        try:
            return bytes(source.read(size))
        except Exception as error:
            raise self._unreadable("a file", error) from error

    def _unreadable(self, path: str, error: Exception) -> JudgeError:
        return JudgeError(
            Code.DOWNLOAD_FAILED,
            f"cannot read {path} in {self.url}: {error or type(error).__name__}",
        )

    def _changed(self, what: str) -> InputError:
        return InputError(Code.SNAPSHOT_CHANGED, f"the snapshot in {self.url} is not used: {what}")


def _folder(url: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs

    try:
        system, root = url_to_fs(url)
    except (ImportError, ValueError, OSError) as error:
        raise InputError(
            Code.BAD_ARGUMENT, f"{url} is no folder that can be reached: {error}"
        ) from None
    return system, str(root).rstrip("/")
