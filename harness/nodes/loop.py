"""An event loop of a thread's own, for the connections to agents."""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from harness.nodes.priority import above_the_ranks

T = TypeVar("T")


class Loop:
    """What has to be answered is, whatever the judge does."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="agents", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        above_the_ranks()
        self._loop.run_forever()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of it, which this waits for."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
