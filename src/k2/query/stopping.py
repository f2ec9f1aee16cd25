"""Stopping queries that run too long, or that nobody waits for any more.

Comes in: a way to interrupt each running query, its time limit, and whether its asker is gone.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import count
from typing import Final

_TICK_SECONDS: Final = 0.05
"""How often it is looked whether a query is to be stopped."""

_gone: ContextVar[threading.Event | None] = ContextVar("k2_query_gone", default=None)


@contextmanager
def cancelled_by(gone: threading.Event) -> Iterator[None]:
    """Queries that are asked within this block are stopped once `gone` is set, by any thread.

    They raise `Refused`. Holds for the thread (or task) that enters the block.
    """
    token = _gone.set(gone)
    try:
        yield
    finally:
        _gone.reset(token)


@dataclass
class _Running:
    interrupt: Callable[[], None]
    deadline: float | None
    gone: threading.Event | None


class Watch:
    """Interrupts queries, from a thread that lives while there are some."""

    def __init__(self) -> None:
        self._of: dict[int, _Running] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._numbers = count()

    @contextmanager
    def over(self, interrupt: Callable[[], None], timeout: float | None) -> Iterator[None]:
        """Call `interrupt`, again and again, once `timeout` seconds are over or the asker is gone,
        until the block is left.
        """
        gone = _gone.get()
        if timeout is None and gone is None:
            yield
            return
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._lock:
            number = next(self._numbers)
            self._of[number] = _Running(interrupt, deadline, gone)
            if self._thread is None:
                self._thread = threading.Thread(target=self._look, name="k2-watch", daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._lock:
                del self._of[number]

    def _look(self) -> None:
        while True:
            time.sleep(_TICK_SECONDS)
            # Under the lock, no query can end and its cursor be used for another.
            with self._lock:
                if not self._of:
                    self._thread = None
                    return
                now = time.monotonic()
                for running in self._of.values():
                    late = running.deadline is not None and now >= running.deadline
                    if late or (running.gone is not None and running.gone.is_set()):
                        running.interrupt()
