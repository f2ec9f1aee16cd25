"""Stopping questions that take too long, or whose asker is gone.

A question sets its limits around all that it does, however many statements that takes; an engine
lets its `Watch` interrupt what runs within them.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import count
from typing import Final

from k2.errors import Refused

_TICK_SECONDS: Final = 0.05
"""How often it is looked whether a query is to be stopped."""


@dataclass(frozen=True)
class Limits:
    """When a question is to be stopped: at a time of `time.monotonic`, or once `gone` is set."""

    seconds: float | None = None
    deadline: float | None = None
    gone: threading.Event | None = None

    @property
    def are_passed(self) -> bool:
        """Whether it is to be stopped now."""
        late = self.deadline is not None and time.monotonic() >= self.deadline
        return late or (self.gone is not None and self.gone.is_set())

    def refusal(self) -> Refused:
        """What whoever asked is told."""
        if self.gone is not None and self.gone.is_set():
            return Refused("cancelled: whoever asked is gone")
        return Refused(
            f"the query took longer than {self.seconds:g} seconds" if self.seconds else "cancelled",
            hint="ask for fewer symbols or a shorter range, or raise the limit",
        )


_UNLIMITED: Final = Limits()
_limits: ContextVar[Limits | None] = ContextVar("k2_query_limits", default=None)


def limits() -> Limits:
    """Those of the question that this thread (or task) is busy with."""
    return _limits.get() or _UNLIMITED


@contextmanager
def limited(seconds: float | None) -> Iterator[None]:
    """All that is asked within this block may take so many seconds together; None: no limit."""
    if seconds is None:
        yield
        return
    token = _limits.set(Limits(seconds, time.monotonic() + seconds, limits().gone))
    try:
        yield
    finally:
        _limits.reset(token)


@contextmanager
def cancelled_by(gone: threading.Event) -> Iterator[None]:
    """Questions that are asked within this block are stopped once `gone` is set, by any thread.

    They raise `Refused`. Holds for the thread (or task) that enters the block.
    """
    token = _limits.set(Limits(limits().seconds, limits().deadline, gone))
    try:
        yield
    finally:
        _limits.reset(token)


class Watch:
    """Interrupts queries, from a thread that lives while there are some."""

    def __init__(self) -> None:
        self._of: dict[int, tuple[Callable[[], None], Limits]] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._numbers = count()

    @contextmanager
    def over(self, interrupt: Callable[[], None], timeout: float | None = None) -> Iterator[None]:
        """Call `interrupt`, again and again, once this question's limits (or so many seconds) are
        passed, until the block is left. Raises `Refused` if they are already.
        """
        with limited(timeout):
            mine = limits()
        if mine.deadline is None and mine.gone is None:
            yield
            return
        if mine.are_passed:
            raise mine.refusal()
        with self._lock:
            number = next(self._numbers)
            self._of[number] = (interrupt, mine)
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
                for interrupt, of in self._of.values():
                    if of.are_passed:
                        interrupt()
