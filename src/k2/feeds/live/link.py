"""Keeps one plan connected: opens again what ended, and opens the next before the last is cut off.

Driven by the feed's reader, which tells it what its connections say; it waits for nothing.
"""

import logging
from collections.abc import Callable
from random import Random
from typing import Final

from k2.feeds.live.connection import Connection, Ended
from k2.feeds.live.venue import Plan

FIRST_WAIT: Final = 0.25
LONGEST_WAIT: Final = 30.0
"""Seconds before a connection is tried again: they double, and a random half is added."""
GOOD_SECONDS: Final = 3.0
"""A connection that lived so long was good: the next wait begins at the first again."""
OVERLAP: Final = 1.0
"""So long the last connection goes on beside the next, for what was on its way."""
EARLY: Final = 0.05
"""The part of a connection's lifetime by which the next one is opened before the cut-off."""

_logger = logging.getLogger(__name__)


class Link:
    """The connections of one plan. `start` opens one; times are seconds of a monotonic clock.

    `primary` is the number of the connection whose quotes count: one after the other.
    """

    def __init__(
        self,
        plan: Plan,
        lifetime: float | None,
        start: Callable[[Plan], Connection],
        random: Random,
    ) -> None:
        self.plan = plan
        self.primary: int | None = None
        self._lifetime = lifetime
        self._start = start
        self._random = random
        self._current: Connection | None = None
        self._next: Connection | None = None
        self._last: list[tuple[float, Connection]] = []
        self._opened: dict[int, float] = {}
        self._ready: set[int] = set()
        self._not_before = 0.0
        self._failures = 0
        self._replaced = 0
        self._told: set[str] = set()
        self._wanted: str | None = None

    @property
    def connected(self) -> bool:
        """Whether a connection is up and has all it asked for."""
        return self._current is not None and self._current.number in self._ready

    def poll(self, now: float) -> None:
        """Open what has to be opened, end what has done its time."""
        while self._last and self._last[0][0] <= now:
            self._last.pop(0)[1].close()
        if now < self._not_before:
            return
        if self._current is None:
            self._current = self._open(now)
            self.primary = self._current.number
        elif self._next is None and self.connected and self._is_due(now):
            lived = now - self._opened[self._current.number]
            self._replaced = self._replaced + 1 if self._wanted and lived < GOOD_SECONDS else 0
            self._wanted = None
            self._next = self._open(now)

    def replace(self, reason: str) -> None:
        """Open a new connection and then close this one, which can no longer be trusted."""
        if self._next is None and self._wanted is None:
            self._tell(f"{reason}: the connection is replaced")
            self._wanted = reason

    def ready(self, number: int, now: float) -> None:
        """Its connection `number` is ready: if it was the next, it takes the place of the last."""
        self._ready.add(number)
        self._told.clear()
        if self._next is not None and number == self._next.number:
            assert self._current is not None
            self._last.append((now + OVERLAP, self._current))
            self._current, self._next = self._next, None
            self.primary = number

    def ended(self, event: Ended, now: float) -> bool:
        """A connection ended; True if it was the one that brings records: a hole may begin."""
        number = event.number
        lived = now - self._opened.pop(number, now)
        was_ready = number in self._ready
        self._ready.discard(number)
        if number not in (each.number for each in (self._current, self._next) if each):
            # One that has done its time.
            self._last = [each for each in self._last if each[1].number != number]
            return False
        self._tell(event.reason)
        self._failures = 0 if was_ready and lived > GOOD_SECONDS else self._failures + 1
        wait = min(FIRST_WAIT * 2.0 ** min(max(self._failures - 1, 0), 20), LONGEST_WAIT)
        wait = max(event.retry_after, wait * (1 + self._random.random() / 2))
        self._not_before = now + wait
        if self._next is not None and number == self._next.number:
            self._next = None
            return False
        self._current, self._next = self._next, None
        self._wanted = None
        if self._current is not None:
            self.primary = self._current.number
        return True

    def close(self) -> list[Connection]:
        """Ask all connections to end, and give them."""
        found = [c for c in (self._current, self._next) if c is not None]
        found += [connection for _, connection in self._last]
        for connection in found:
            connection.close()
        return found

    def _open(self, now: float) -> Connection:
        connection = self._start(self.plan)
        self._opened[connection.number] = now
        return connection

    def _is_due(self, now: float) -> bool:
        assert self._current is not None
        age = now - self._opened[self._current.number]
        if self._wanted is not None:
            # One that is replaced again and again gets more time each time.
            return age >= min(FIRST_WAIT * 2.0 ** min(self._replaced, 20), LONGEST_WAIT)
        return self._lifetime is not None and age >= self._lifetime * (1 - EARLY)

    def _tell(self, reason: str) -> None:
        # Once: what goes on failing for the same reason is not told again until it worked.
        if reason not in self._told:
            self._told.add(reason)
            _logger.warning("%s: %s", self.plan.url, reason)
