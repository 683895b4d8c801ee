"""Files that are written whole, those that a sandbox's user has to read, and those that no other may."""

import json
import os
import re
import shutil
from pathlib import Path

READABLE_FILE = 0o644
READABLE_FOLDER = 0o755
PRIVATE_FILE = 0o600
PRIVATE_FOLDER = 0o700


def write_whole(path: Path, text: str) -> None:
    """Write a file in one step: whoever interrupts this still has the one before, and its mode stays."""
    part = path.with_name(f"{path.name}.part")
    part.write_text(text, encoding="utf-8")
    if path.exists():
        shutil.copymode(path, part)
    part.replace(path)


def make_private_folder(path: Path) -> None:
    """Make a folder that no other user may enter; one that is there keeps its mode."""
    path.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)


def make_private_file(path: Path) -> None:
    """An empty file that no other user may read, where a library lets everybody; or the one there is."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, PRIVATE_FILE))


def make_readable(path: Path) -> None:
    """Let every user read a file, or list and enter a folder."""
    path.chmod(READABLE_FOLDER if path.is_dir() else READABLE_FILE)


def take_over(path: Path) -> None:
    """Make what a sandbox has left our own, and readable for all. Nothing of the sandbox may run any more.

    Root in a container may not change the mode of what is another's, but it may change whose it is.
    """
    if os.geteuid() == 0:
        os.chown(path, 0, 0, follow_symlinks=False)
    make_readable(path)


def write_readable(path: Path, data: bytes) -> None:
    """Write a file that every user can read."""
    path.write_bytes(data)
    make_readable(path)


def make_readable_folder(path: Path) -> None:
    """Make a folder that every user can list and enter; its parent is there."""
    path.mkdir()
    make_readable(path)


def in_lines(document: object) -> str:
    """JSON for people: a line for every value, but lists of numbers have one together."""
    text = json.dumps(document, indent=2, ensure_ascii=False)
    return re.sub(r'\[\n\s+([^\[\]{}"]*?)\n\s+\]', lambda found: f"[{_joined(found[1])}]", text)


def _joined(lines: str) -> str:
    return re.sub(r"\n\s+", " ", lines)
