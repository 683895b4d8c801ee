"""What the leaderboard's commands share: the store that the options name."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.board.store import Store


@contextmanager
def opened(data: Path | None, url: str | None) -> Iterator["Store"]:
    """The store, migrated where that is due; closed afterwards.

    Raises InputError(STORE_UNAVAILABLE or STORE_NEWER).
    """
    from harness.board.store import open_store, store_url
    from harness.paths import data_folder

    folder = data_folder(data)
    store = open_store(store_url(folder, url), folder=folder)
    try:
        yield store
    finally:
        store.close()
