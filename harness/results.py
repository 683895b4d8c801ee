"""Where the JSON document of an evaluation goes, and whose file it becomes."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import Code, InputError, JudgeError
from harness.sandbox.judge_container import inside

if TYPE_CHECKING:
    from harness.result import EvaluationResult

RESULTS = Path("results")


def result_file(name: str, wanted: Path | None = None) -> Path:
    """Where the JSON document will go, checked before any work; without a wish a new one in results/.

    Raises:
        InputError: it cannot be written there.
    """
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f")[:-3]
    path = wanted or RESULTS / f"{stamp}-{Path(name).stem}.json"
    try:
        if wanted is None:  # a folder that somebody has named is not made without a word
            RESULTS.mkdir(exist_ok=True)
        new = not path.exists()
        with path.open("ab"):
            pass
        if new:
            path.unlink()  # bad input must not leave an empty result behind
    except OSError as error:
        raise InputError(
            Code.BAD_ARGUMENT, f"cannot write the result to {path}: {error.strerror}"
        ) from None
    return path


def store(result: "EvaluationResult", path: Path) -> None:
    """Write the JSON document. Raises JudgeError where that fails, as on a full disk."""
    try:
        path.write_text(result.model_dump_json(indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise JudgeError(
            Code.INTERNAL,
            f"the verdict is {result.verdict}, but {path} cannot be written: {error.strerror}",
        ) from None


def result_place(name: str, wanted: Path | None) -> Path | None:
    """As `result_file`; inside, None where nobody asked for a file and there is no place for one.

    Raises InputError(BAD_ARGUMENT) where the wanted file cannot be written.
    """
    from harness.results import result_file

    if not inside():
        return result_file(name, wanted)
    with _as_owner(Path.cwd() if wanted is None else wanted.absolute()):
        try:
            return result_file(name, wanted)
        except InputError:
            if wanted is not None:
                raise
            return None


def store_result(result: "EvaluationResult", path: Path) -> None:
    """As `store`; inside, the file becomes the folder's owner's, and not root's."""
    from harness.results import store

    if not inside():
        store(result, path)
        return
    with _as_owner(path.absolute()):
        store(result, path)


@contextmanager
def _as_owner(path: Path) -> Iterator[None]:
    """Act with the rights of whoever owns `path`, or the first folder above it that exists.

    A folder of the host's is written to as its owner would, who need not be root.
    """
    status = next(place.stat() for place in (path, *path.parents) if place.exists())
    if os.geteuid() != 0 or status.st_uid == 0:
        yield
        return
    group = os.getegid()
    try:
        os.setegid(status.st_gid)
        os.seteuid(status.st_uid)
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)
