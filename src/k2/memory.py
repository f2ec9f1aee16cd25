"""Memory that allocators hold and nobody uses, given back to the system.

A process that runs for weeks allocates from many threads; what these free in between is kept in
arenas, by the C library and by Arrow, and seldom given back by itself, so that it would seem to
grow without end.
"""

import ctypes
import sys

import pyarrow as pa


def release_memory() -> None:
    """Give back what is free, which takes some milliseconds. Of C libraries only glibc can."""
    pa.default_memory_pool().release_unused()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
