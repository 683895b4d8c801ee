"""Where a publication goes: a folder that is replaced as a whole, or a data set on the Hugging Face hub."""

import ctypes
import errno
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from harness.errors import Code, InputError, JudgeError
from harness.files import make_readable, write_readable

#: By it, and by nothing else lying there, a folder is known as one that may be replaced.
MARK: Final = ".trainjudge-published"
HUB: Final = "hf://"
_HUB_NAME: Final = re.compile(r"hf://datasets/([A-Za-z0-9._-]{1,96}/[A-Za-z0-9._-]{1,96})/?")
_TOKEN: Final = re.compile(r"[!-~]+")
_AT_FDCWD: Final = -100
_RENAME_EXCHANGE: Final = 2


# --- a folder ---------------------------------------------------------------------------------


def replace_folder(target: Path, names: Sequence[str], fill: Callable[[Path], None]) -> None:
    """Make a folder anew beside the one that is there, and put it in its place in one step.

    Args:
        target: may be there already, if this function made it.
        names: of all files that are ever published.
        fill: writes them into the folder that it is given.

    Raises:
        InputError(BAD_ARGUMENT): something else is there, or it cannot be written.
    """
    try:
        _check_replaceable(target, names)
        target = target.resolve()
        beside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent))
        try:
            fill(beside)
            write_readable(beside / MARK, b"Replaced as a whole by `validator publish`.\n")
            for file in beside.iterdir():
                make_readable(file)
            make_readable(beside)
            _put_in_place(beside, target)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    except OSError as error:
        raise InputError(
            Code.BAD_ARGUMENT, f"{target} cannot be written: {error.strerror or error}"
        ) from error


def _check_replaceable(target: Path, names: Sequence[str]) -> None:
    if not target.absolute().parent.is_dir():
        raise InputError(Code.BAD_ARGUMENT, f"there is no folder {target.absolute().parent}")
    if target.is_symlink():
        raise InputError(Code.BAD_ARGUMENT, f"{target} is a link: name the folder itself")
    if not target.exists():
        return
    if not target.is_dir() or not (target / MARK).is_file():
        raise InputError(
            Code.BAD_ARGUMENT,
            f"{target} exists and was not made by `validator publish`: name a new folder",
        )
    foreign = sorted({each.name for each in target.iterdir()} - {MARK, *names})
    if foreign:
        raise InputError(
            Code.BAD_ARGUMENT,
            f"{target} holds {foreign[0]!r}, which would be lost: it is replaced as a whole",
        )


def _put_in_place(new: Path, target: Path) -> None:
    """Afterwards `new` is what was there before, or is gone."""
    if not target.exists():
        new.rename(target)
    elif not _exchange(new, target):
        # For an instant there is none, but never half of one.
        old = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".old", dir=target.parent))
        target.rename(old)
        new.rename(target)
        old.rename(new)


def _exchange(one: Path, other: Path) -> bool:
    """Two names for each other, in one step; False where system or file system cannot do that."""
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):
        return False
    paths = os.fsencode(one), os.fsencode(other)
    if libc.renameat2(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP):
        return False
    raise OSError(number, os.strerror(number))


# --- the hub ----------------------------------------------------------------------------------


def data_set_name(target: str) -> str:
    """ORG/NAME of hf://datasets/ORG/NAME. Raises InputError(BAD_ARGUMENT)."""
    found = _HUB_NAME.fullmatch(target)
    if found is None:
        raise InputError(
            Code.BAD_ARGUMENT, f"{target!r} is no data set: hf://datasets/ORG/NAME would be one"
        )
    return found[1]


def upload(folder: Path, name: str, token: str | None, message: str) -> str:
    """All files of a folder in one commit; the data set is made if it is not there. Gives its address.

    Args:
        folder: what is uploaded.
        name: ORG/NAME.
        token: of the hub; None: the one that `hf auth login` has kept.
        message: of the commit.

    Raises:
        InputError: DOWNLOAD_FAILED: the token is missing, wrong, or may not write there; BAD_ARGUMENT: no
            name for a data set, or no token.
        JudgeError(DOWNLOAD_FAILED): the hub cannot be reached, or fails.
    """
    token = token.strip() if token else None
    if token and not _TOKEN.fullmatch(token):
        # An HTTP library would refuse it as a header, and quote it in its message.
        raise InputError(Code.BAD_ARGUMENT, "HF_TOKEN is no token: it has blanks or odd characters")
    hub = HfApi(endpoint=os.environ.get("HF_ENDPOINT"), token=token)
    with _explained(name):
        address = hub.create_repo(name, repo_type="dataset", exist_ok=True)
        # `upload_folder` may make several commits of one; a reader would see one half of a publication.
        hub.create_commit(
            name,
            [
                CommitOperationAdd(path_in_repo=file.name, path_or_fileobj=file)
                for file in sorted(folder.iterdir())
            ],
            commit_message=message,
            repo_type="dataset",
        )
    return str(address)


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Turn the hub library's errors into ours: who has to act, and how."""
    refused = (
        f"the hub does not let us write to the data set {name}: set HF_TOKEN to a token that may write "
        f"for {name.partition('/')[0]}"
    )
    try:
        yield
    except HFValidationError as error:
        raise InputError(Code.BAD_ARGUMENT, f"{name!r} is no name of a data set: {error}") from None
    except OfflineModeIsEnabled:
        raise InputError(
            Code.DOWNLOAD_FAILED, "HF_HUB_OFFLINE is set, and publishing needs the hub"
        ) from None
    except RepositoryNotFoundError as error:
        raise InputError(Code.DOWNLOAD_FAILED, refused, str(error)) from None
    except HfHubHTTPError as error:
        if error.response.status_code in (401, 402, 403):
            raise InputError(Code.DOWNLOAD_FAILED, refused, str(error)) from None
        raise _failed(name, error) from None
    except Exception as error:
        # Transport errors are of whatever HTTP library the hub's client uses at the moment.
        raise _failed(name, error) from error


def _failed(name: str, error: Exception) -> JudgeError:
    return JudgeError(
        Code.DOWNLOAD_FAILED,
        f"cannot publish to the data set {name}: {type(error).__name__}; nothing of it was changed, "
        "try it again",
        str(error),
    )
