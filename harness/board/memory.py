"""Memory that was needed for a moment goes back to the system.

Ranking a large season takes several times the memory that stays. What is freed then lies in pieces all over
the heap, and the C library keeps it: a server would hold for good what it needed once.
"""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa

# Arrow's own allocator keeps more, and knows no way to give all of it back.
pa.set_memory_pool(pa.system_memory_pool())


@contextmanager
def given_back() -> Iterator[None]:
    """What was freed within goes back at the end."""
    try:
        yield
    finally:
        # Of glibc; others give back by themselves, or not at all.
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
