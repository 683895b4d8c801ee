"""Files from the Hugging Face hub, at one commit, each checked against the hash that the hub states.

They are kept in the hub's own cache (HF_HOME), where an interrupted download goes on; once the
snapshot is made, that cache may be deleted.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from huggingface_hub import HfApi
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile

from harness.benchmark.checkpoint import FILES, INDEX, SINGLE, ModelFolder, indexed_names
from harness.benchmark.problem import HubData, HubModel
from harness.errors import Code, InputError, JudgeError
from harness.phases import OnProgress, silent


@dataclass(frozen=True)
class _Repository:
    name: str
    revision: str
    kind: Literal["model", "dataset"]
    token: str | None

    def __str__(self) -> str:
        return f"{self.name} at {self.revision[:12]}"


def download_model(model: HubModel, token: str | None, progress: OnProgress) -> ModelFolder:
    """Config, tokenizer and safetensors weights of a model repository.

    Raises:
        InputError: DOWNLOAD_FAILED where the repository, the commit or a file is not there, or a
            token is wanted.
        JudgeError: DOWNLOAD_FAILED where the hub cannot be reached or sends something else than its
            own hashes say.
    """
    repository = _Repository(model.repo, model.revision, "model", token)
    wanted = list(FILES)
    listed = {file.path for file in _list(repository, [*wanted, INDEX, SINGLE])}
    for name in wanted:
        if name not in listed:
            raise InputError(Code.DOWNLOAD_FAILED, f"{repository} has no {name}")
    weights: list[str] = []
    if not model.random_init:
        if INDEX in listed:
            weights = _indexed_files(_download(repository, [INDEX], progress) / INDEX, repository)
        elif SINGLE in listed:
            weights = [SINGLE]
        else:
            raise InputError(
                Code.DOWNLOAD_FAILED,
                f"{repository} has no weights as safetensors ({SINGLE} or {INDEX})",
            )
    folder = _download(repository, [*wanted, *weights], progress)
    return ModelFolder(folder, tuple(folder / name for name in weights))


def download_data(data: HubData, token: str | None, progress: OnProgress) -> Path:
    """One file of a dataset repository. Raises as `download_model` does."""
    repository = _Repository(data.repo, data.revision, "dataset", token)
    return _download(repository, [data.file], progress) / data.file


def download_config(name: str, revision: str | None = None, token: str | None = None) -> Path:
    """The folder of config.json alone; revision None: the newest commit. Raises as `download_model`."""
    commit = commit_of("model", name, revision, token)
    return _download(_Repository(name, commit, "model", token), ["config.json"], silent)


def commit_of(
    kind: Literal["model", "dataset"], name: str, revision: str | None, token: str | None
) -> str:
    """The full commit hash of a revision (None: the newest). Raises as `download_model` does."""
    repository = _Repository(name, revision or "main", kind, token)
    with _explained(repository):
        found = _api().repo_info(name, repo_type=kind, revision=revision, token=token).sha
    if found is None:
        raise JudgeError(Code.DOWNLOAD_FAILED, f"the hub does not say which commit {repository} is")
    return found


def _api() -> HfApi:
    """The hub, or what HF_ENDPOINT names now, a mirror for instance."""
    return HfApi(endpoint=os.environ.get("HF_ENDPOINT"))


def _list(repository: _Repository, names: Sequence[str]) -> list[RepoFile]:
    """What the hub says of those of the files that exist."""
    with _explained(repository):
        found = _api().get_paths_info(
            repository.name,
            list(names),
            revision=repository.revision,
            repo_type=repository.kind,
            token=repository.token,
        )
    return [file for file in found if isinstance(file, RepoFile)]


def _download(repository: _Repository, names: Sequence[str], progress: OnProgress) -> Path:
    """Fetch the files; returns the folder that they lie in, each verified."""
    listed = {file.path: file for file in _list(repository, names)}
    for name in names:
        if name not in listed:
            raise InputError(Code.DOWNLOAD_FAILED, f"{repository} has no file {name}")
    size = sum(file.size for file in listed.values())
    progress(f"downloading {len(names)} files, {size / 1e6:,.1f} MB, of {repository}")
    with _explained(repository):
        if len(names) == 1:
            file = _api().hf_hub_download(
                repository.name,
                names[0],
                revision=repository.revision,
                repo_type=repository.kind,
                token=repository.token,
            )
            folder = Path(file.removesuffix(names[0]))
        else:
            folder = Path(
                _api().snapshot_download(
                    repository.name,
                    revision=repository.revision,
                    repo_type=repository.kind,
                    token=repository.token,
                    allow_patterns=list(names),
                )
            )
    if folder.name != repository.revision:
        raise JudgeError(
            Code.DOWNLOAD_FAILED,
            f"the hub sent commit {folder.name} for {repository}: not what the benchmark names",
        )
    for name in names:
        _verify(folder / name, listed[name])
    return folder


def _verify(path: Path, listed: RepoFile) -> None:
    """Compare with the hub's hash: SHA-256 of a large file, git's SHA-1 of a small one."""
    try:
        with path.open("rb") as file:
            if listed.lfs is not None:
                expected = listed.lfs.sha256
                found = hashlib.file_digest(file, "sha256").hexdigest()
            else:
                content = file.read()
                expected = listed.blob_id
                header = b"blob %d\0" % len(content)
                found = hashlib.sha1(header + content, usedforsecurity=False).hexdigest()
    except OSError as error:
        raise JudgeError(
            Code.DOWNLOAD_FAILED, f"the download {path} cannot be read: {error.strerror}"
        ) from error
    if found != expected:
        raise JudgeError(
            Code.DOWNLOAD_FAILED,
            f"the download {path} is damaged: its hash is {found}, the hub states {expected}; "
            f"delete {path.resolve()} and run `validator preload` again",
        )


def _indexed_files(index: Path, repository: _Repository) -> list[str]:
    names = indexed_names(index)
    if not names:
        raise InputError(Code.DOWNLOAD_FAILED, f"{repository}: {INDEX} is not a weight index")
    return names


@contextmanager
def _explained(repository: _Repository) -> Iterator[None]:
    """Turn the hub library's errors into ours: who has to act, and how.

    What the benchmark's author or the token's owner must change is an InputError; what goes away by
    itself, or is the network's, is a JudgeError.
    """
    ask = "give one with --token, HF_TOKEN or `hf auth login`"
    try:
        yield
    except GatedRepoError as error:
        raise _wrong(
            f"{repository} is gated: accept its terms on the hub, and use a token that may read it; "
            f"{ask}",
            error,
        ) from None
    except RevisionNotFoundError as error:
        raise _wrong(f"{repository.name} has no commit {repository.revision}", error) from None
    except RepositoryNotFoundError as error:
        raise _wrong(
            f"the hub has no {repository.kind} {repository.name}, or it is private and needs a "
            f"token; {ask}",
            error,
        ) from None
    except OfflineModeIsEnabled as error:
        raise _wrong(f"HF_HUB_OFFLINE is set: unset it to fetch {repository}", error) from None
    except LocalEntryNotFoundError as error:
        raise _unreachable(repository, error) from None
    except EntryNotFoundError as error:
        raise _wrong(f"{repository} lacks a file of the benchmark", error) from None
    except HfHubHTTPError as error:
        if error.response.status_code in (401, 403):
            raise _wrong(f"the hub refuses {repository} to this token; {ask}", error) from None
        raise _unreachable(repository, error) from None
    except Exception as error:
        # Transport errors are of whatever HTTP library the hub's client uses at the moment.
        raise _unreachable(repository, error) from error


def _wrong(message: str, error: Exception) -> InputError:
    return InputError(Code.DOWNLOAD_FAILED, message, str(error))


def _unreachable(repository: _Repository, error: Exception) -> JudgeError:
    return JudgeError(
        Code.DOWNLOAD_FAILED,
        f"cannot download {repository}: {type(error).__name__}; try again, what has arrived is kept",
        str(error),
    )
