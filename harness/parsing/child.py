"""The child's side: limits first, then bytes from stdin, and a little JSON to stdout.

A parser is easy to hurt: one mebibyte of hostile source takes a gigabyte and seconds of CPU even where the
parser gives up cleanly, and how it gives up (SyntaxError, RecursionError, MemoryError, a C stack overflow)
differs between versions of Python. Here all of that happens under limits, and the worst end is that of the
child. Standard library only.
"""

import gc
import json
import os
import resource
import sys
import warnings

ADDRESS_SPACE_BYTES = 2 * 2**30  # the worst source tried took half of it
CPU_SECONDS = 20


def begin(cpu_seconds: int = CPU_SECONDS) -> bytes:
    """Lower the limits, then read all that was given."""
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_AS, ADDRESS_SPACE_BYTES)
    _limit(resource.RLIMIT_CPU, cpu_seconds)
    warnings.simplefilter("ignore")  # from Python 3.12 on, of every "\d"
    gc.disable()
    return sys.stdin.buffer.read()


def answer(what: dict[str, object]) -> None:
    """Write the answer and end."""
    sys.stdout.write(json.dumps(what))
    sys.stdout.flush()
    os._exit(0)  # taking down a tree of a gigabyte is a waste


def _limit(kind: int, value: int) -> None:
    """Lower the soft limit; the hard one may be lower already, and nobody here will raise it again."""
    hard = resource.getrlimit(kind)[1]
    lowered = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (lowered, hard))
