"""Python's cyclic garbage collector, held off while a hundred thousand messages are made.

Messages hold no cycles, and each is an object that the collector counts: it then looks through
all of them, again and again, which took half of the time of reading.
"""

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()
_holders = 0
_was_enabled = True


@contextmanager
def held_off() -> Iterator[None]:
    """No collection while any thread is inside; keep it short, and never wait in it."""
    global _holders, _was_enabled
    with _lock:
        if _holders == 0:
            _was_enabled = gc.isenabled()
            gc.disable()
        _holders += 1
    try:
        yield
    finally:
        with _lock:
            _holders -= 1
            if _holders == 0 and _was_enabled:
                gc.enable()
