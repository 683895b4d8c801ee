"""Files and folders that another user, the sandbox's, has to read, whatever the caller's umask."""

from pathlib import Path

READABLE_FILE = 0o644
READABLE_FOLDER = 0o755


def make_readable(path: Path) -> None:
    """Let every user read a file, or list and enter a folder."""
    path.chmod(READABLE_FOLDER if path.is_dir() else READABLE_FILE)


def write_readable(path: Path, data: bytes) -> None:
    """Write a file that every user can read."""
    path.write_bytes(data)
    make_readable(path)


def make_readable_folder(path: Path) -> None:
    """Make a folder that every user can list and enter; its parent is there."""
    path.mkdir()
    make_readable(path)
