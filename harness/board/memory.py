"""Memory that was needed for a moment goes back to the system.

Ranking a large season takes several times the memory that stays. What is freed then lies in pieces all over
the heap, and the C library keeps it: a server would hold for good what it needed once.
"""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import pyarrow as pa

#: Of glibc's `mallopt`: what is larger gets pages of its own, which go back when it is freed.
M_MMAP_THRESHOLD: Final = -3
LARGE_BYTES: Final = 2**20

# Arrow's own allocator keeps more, and knows no way to give all of it back.
pa.set_memory_pool(pa.system_memory_pool())


@contextmanager
def given_back() -> Iterator[None]:
    """What was freed within goes back: columns at once, whatever is small at the end."""
    # Both of glibc; others give back by themselves, or not at all.
    library = ctypes.CDLL(None)
    trim, set_option = (getattr(library, name, None) for name in ("malloc_trim", "mallopt"))
    if set_option is not None:
        # Without it glibc would raise the threshold with the first column that is freed, for all others.
        set_option(M_MMAP_THRESHOLD, LARGE_BYTES)
    try:
        yield
    finally:
        if trim is not None:
            trim(0)
