"""How the data move: records per second, lag and freshness, for a status strip.

Comes in: the pinned tails of a running system. Goes out: numbers, ready for JSON.
"""

import threading
import time
from collections.abc import Callable
from datetime import datetime
from typing import Final

import pyarrow.compute as pc

from k2.errors import K2Error
from k2.ingest import Level
from k2.memory import release_memory
from k2.query.state import State
from k2.query.view import View
from k2.query.zones import to_us

_KINDS: Final = ("trades", "quotes")
_EVERY_SECONDS: Final = 0.1
_OVER_SECONDS: Final = 5.0
_RELEASE_EVERY_SECONDS: Final = 10.0


class Pulse:
    """Keeps the tail decided, so that queries find it ready, and samples how many rows there are.

    One thread, from `start` to `stop`.
    """

    def __init__(self, state: State, clock: Callable[[], datetime]) -> None:
        self._state = state
        self._clock = clock
        # Replaced as a whole: `status` reads it from other threads.
        self._samples: tuple[tuple[float, int], ...] = ()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to follow the log."""
        self._thread = threading.Thread(target=self._follow, name="k2-pulse", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End, and wait for it."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()

    def _follow(self) -> None:
        released = time.monotonic()
        while not self._stopped.wait(_EVERY_SECONDS):
            if time.monotonic() - released > _RELEASE_EVERY_SECONDS:
                release_memory()
                released = time.monotonic()
            try:
                for kind in _KINDS:
                    while self._state.tail.follow(kind) and not self._stopped.is_set():
                        pass
                self._sample(sum(held(view) for view in self._views()))
            except K2Error:
                # The next query meets the same error and tells whoever asked.
                continue

    def _views(self) -> list[View]:
        return [self._state.view(kind) for kind in _KINDS]

    def _sample(self, rows: int) -> None:
        now = time.monotonic()
        recent = tuple(sample for sample in self._samples if sample[0] >= now - _OVER_SECONDS)
        self._samples = (*recent, (now, rows))

    def status(self) -> dict[str, object]:
        """Of trades and quotes together: rows, their growth, age of the newest, what waits.

        `records_per_second` is null while nothing follows; `freshness_seconds` is null without
        records; `level` is that of the writer which is overloaded most, `shed_waiting` the records
        that were left in the log and are not brought in; `snapshot` is the newest commit of trades.
        """
        views = self._views()
        newest = max(
            (when for view in views if (when := last_time(view)) is not None), default=None
        )
        age = None if newest is None else max(0.0, (to_us(self._clock()) - newest) / 1e6)
        return {
            "records_per_second": self._rate(),
            "lag_messages": self._state.lag_messages(views),
            "freshness_seconds": age,
            "level": max((each.level for each in self._state.levels()), default=Level.NORMAL).name,
            "shed_waiting": sum(view.shed for view in views),
            "rows": sum(held(view) for view in views),
            "tail_rows": sum(view.tail.num_rows for view in views if view.tail is not None),
            "snapshot": views[0].sequence,
            "snapshot_id": None if views[0].snapshot_id is None else str(views[0].snapshot_id),
            "committed_at": None
            if views[0].committed_at is None or not views[0].sequence
            else views[0].committed_at.isoformat(),
        }

    def _rate(self) -> float | None:
        samples = self._samples
        if len(samples) < 2:
            return None
        (began, first), (ended, last) = samples[0], samples[-1]
        return round(max(0, last - first) / (ended - began), 1)


def held(view: View) -> int:
    """Rows of the newest state, tail included."""
    tail = view.tail.num_rows if view.tail is not None else 0
    return view.index.rows + tail


def last_time(view: View) -> int | None:
    """Microseconds UTC of the newest record; None where there is none."""
    newest = view.index.newest
    if view.tail is None:
        return newest
    tail = pc.max(view.tail[view.time]).value
    return tail if newest is None else max(newest, tail)
