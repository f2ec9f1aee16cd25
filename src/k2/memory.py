"""Memory that the C library holds and nobody uses, given back to the system.

A process that runs for weeks allocates from many threads; what these free in between is kept in
arenas and seldom given back by itself, so that it would seem to grow without end.
"""

import ctypes
import sys


def release_memory() -> None:
    """Give back what is free. Some milliseconds; only glibc can, elsewhere nothing happens."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
