"""When records are due: at a multiple of real time, or at once. No I/O, and no sleep of its own.

Comes in: event times and a clock's reading. Goes out: how many records are due now, or how long
until the next one is.
"""

import math
from typing import TYPE_CHECKING, Final, TypeAlias

from k2.errors import BadInput

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

FASTEST: Final = "max"
"""The speed of a replay that waits for nothing."""

MOST_SPEED: Final = 1_000_000
"""The highest multiple of real time; beyond it nothing but `max` makes sense."""

TICK_SECONDS: Final = 0.005
"""Records that are due within it come together: a wait for each would cost more than it is long."""

PAUSE_SECONDS: Final = 1.0
"""A reader that is late by more has paused: time stood still for it."""

_MICRO: Final = 1_000_000
Times: TypeAlias = "npt.NDArray[np.int64]"


def parse_speed(text: str) -> float | None:
    """The multiple of real time that is meant; None for `max`. Raises `BadInput`."""
    if text.strip().lower() == FASTEST:
        return None
    try:
        speed = float(text)
    except ValueError:
        speed = 0.0
    if not 0 < speed <= MOST_SPEED:
        raise BadInput(
            f"{text!r} is no speed",
            expected=f"a multiple of real time up to {MOST_SPEED:,}, such as 10 or 0.5, or max",
        )
    return speed


class Schedule:
    """When each record of one replay is due, counted from its first record. One thread at a time.

    Times are microseconds UTC, ascending from call to call; `now` is a monotonic clock's reading
    in seconds. Waits do not add up: each record is due at a distance from the first.
    """

    def __init__(self, speed: float | None) -> None:
        self._speed = speed
        self._first: int | None = None
        self._began = 0.0
        self._last = -math.inf
        self.paused_seconds = 0.0
        """How long time stood still, since nobody read."""

    def due(self, times: Times, at: int, now: float) -> tuple[int, float]:
        """Up to which record (exclusive) those from `at` on are due, and if none is (`at` itself is
        given back), how many seconds that takes.
        """
        if self._speed is None:
            return len(times), 0.0
        if self._first is None:
            self._first, self._began = int(times[at]), now
        late = now - self._due(int(times[at]))
        if late > PAUSE_SECONDS:
            self._began += late
            self.paused_seconds += late
        wait = max(self._due(int(times[at])), self._last + TICK_SECONDS) - now
        if wait > 0:
            return at, wait
        self._last = now
        passed = self._first + int((now - self._began) * self._speed * _MICRO)
        # Rounding must not hold back the one that this was waited for.
        return max(at + 1, int(times.searchsorted(passed, "right"))), 0.0

    def after_start(self, time: int) -> float | None:
        """At how many seconds after the first record one of this time is due; None at full speed,
        or before the first.
        """
        if self._speed is None or self._first is None:
            return None
        return (time - self._first) / self._speed / _MICRO

    def _due(self, time: int) -> float:
        assert self._speed is not None
        assert self._first is not None
        return self._began + (time - self._first) / self._speed / _MICRO
