"""Memory that allocators hold and nobody uses, given back to the system.

A process that runs for weeks allocates from many threads; what these free in between is kept in
arenas, by the C library and by Arrow, and seldom given back by itself, so that it would seem to
grow without end.
"""

import ctypes
import os
import sys


def choose_allocator() -> None:
    """Have Arrow allocate as all the rest does, so that `release_memory` reaches what it freed.

    Its usual pool (mimalloc) keeps what one thread freed of another's for that other one, which
    may never allocate again. To be called before Arrow is loaded; what the environment says already
    stays.
    """
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")


def release_memory() -> None:
    """Give back what is free, which takes some milliseconds. Of C libraries only glibc can."""
    # Here, so that whoever only chooses does not load it.
    import pyarrow as pa

    pa.default_memory_pool().release_unused()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
