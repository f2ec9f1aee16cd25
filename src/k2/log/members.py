"""Who works on the log's SQLite file, and which partitions each has: a heartbeat a second.

A member that has given no sign of life for a while is gone; the others have its partitions.
"""

import sqlite3
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Final

from k2.errors import Unavailable
from k2.log.database import Database

GONE_AFTER: Final = timedelta(seconds=5)
"""Without a sign of life for so long, a member has no partitions."""
_BEAT_EVERY: Final = timedelta(seconds=1)
_PATIENCE: Final = timedelta(milliseconds=80)

# An id is never given again, and so tells the order in which members came.
_TABLE: Final = """
CREATE TABLE IF NOT EXISTS members (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    group_name TEXT NOT NULL,
    beat REAL NOT NULL
)
"""

_BEAT: Final = """
INSERT INTO members (id, group_name, beat) VALUES (?, ?, ?)
ON CONFLICT (id) DO UPDATE SET beat = excluded.beat
"""

# A beat from the future is one of before the machine was started again.
_GONE: Final = "DELETE FROM members WHERE group_name = ? AND beat NOT BETWEEN ? AND ?"

_ALIVE: Final = """
SELECT id FROM members WHERE group_name = ? AND beat BETWEEN ? AND ? ORDER BY id
"""

# In the order in which they were made: what comes new moves nothing that is given out already.
_PARTITIONS: Final = """
SELECT name, number FROM partitions JOIN topics ON topics.id = topic_id ORDER BY partitions.id
"""


def now() -> float:
    """Seconds since the machine was started: the same for all its processes, asleep or not."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class SqliteMembership:
    """`k2.log.port.Membership` of one group, in the log's own file. `clock` is in seconds."""

    def __init__(self, database: Database, group: str, clock: Callable[[], float] = now) -> None:
        self._database = database
        self._group = group
        self._clock = clock
        self._place = f"group {group}"
        self._given: Mapping[str, frozenset[int]] = {}
        self._beat = clock()
        with database.writing(self._place) as connection:
            connection.execute(_TABLE)
            self._id = connection.execute(_BEAT, (None, group, self._beat)).lastrowid

    def partitions(self) -> Mapping[str, frozenset[int]]:
        """Each partition goes to the live member of its rank, counted in the order of joining.

        While others hold the file, the answer is the last one.
        """
        try:
            at = self._clock()
            if at - self._beat >= _BEAT_EVERY.total_seconds():
                self._give_sign(at)
            with self._database.reading(self._place) as connection:
                self._given = self._divided(connection, at)
        except Unavailable:
            # Somebody else writes. Which partitions are whose is a matter of speed alone.
            pass
        return self._given

    def leave(self) -> None:
        """Give the partitions back."""
        with self._database.writing(self._place) as connection:
            connection.execute("DELETE FROM members WHERE id = ?", (self._id,))

    def _give_sign(self, at: float) -> None:
        with self._database.writing(self._place, patience=_PATIENCE) as connection:
            connection.execute(_GONE, (self._group, *_span(at)))
            # A member that slept may be gone by now: it comes back to its old rank.
            connection.execute(_BEAT, (self._id, self._group, at))
        self._beat = at

    def _divided(self, connection: sqlite3.Connection, at: float) -> Mapping[str, frozenset[int]]:
        alive = [row[0] for row in connection.execute(_ALIVE, (self._group, *_span(at)))]
        if self._id not in alive:
            return {}
        mine: dict[str, list[int]] = defaultdict(list)
        rank = alive.index(self._id)
        for place, (topic, number) in enumerate(connection.execute(_PARTITIONS)):
            if place % len(alive) == rank:
                mine[topic].append(number)
        return {topic: frozenset(numbers) for topic, numbers in mine.items()}


def _span(at: float) -> tuple[float, float]:
    """Times of a beat that prove life; another process may have read its clock a moment later."""
    return at - GONE_AFTER.total_seconds(), at + GONE_AFTER.total_seconds()
