"""A private folder for temporary files, where a sandbox has no /tmp of its own.

Its supervisor removes it. If that was killed, the folder's name tells whose it was: nothing in it could,
because the sandbox may write there.
"""

import os
import re
import stat
import tempfile
from pathlib import Path
from typing import Final

from harness.sandbox.judge_process import judge_lives, this_process

PREFIX: Final = "trainjudge-tmp-"
_NAMESPACE: Final = re.compile(r"pid:\[(\d+)\]")
_NAME: Final = re.compile(rf"{PREFIX}(\d+)-(\d+)-(\d+)-\w+")


def make_scratch(user: int | None) -> str:
    """A new one below TMPDIR, which belongs to a user of the sandbox's own, or to ours."""
    namespace, pid, start = this_process().split(" ")
    found = _NAMESPACE.fullmatch(namespace)
    assert found is not None
    folder = tempfile.mkdtemp(prefix=f"{PREFIX}{found[1]}-{pid}-{start}-")
    if user is not None:
        os.chown(folder, user, user)
    return folder


def left_scratch() -> list[Path]:
    """Those whose judge was killed, and whose supervisor with it; of this user, or of anybody for root."""
    found = []
    for folder in sorted(Path(tempfile.gettempdir()).glob(f"{PREFIX}*")):
        named = _NAME.fullmatch(folder.name)
        try:
            status = folder.lstat()
        except OSError:
            continue
        mine = os.geteuid() in (0, status.st_uid)
        if named is None or not mine or not stat.S_ISDIR(status.st_mode):
            continue
        if judge_lives(f"pid:[{named[1]}] {named[2]} {named[3]}") is False:
            found.append(folder)
    return found
