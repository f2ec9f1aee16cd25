"""The log in one SQLite file: `sqlite:PATH`. A row is a batch of messages, not a message.

Safe for many threads and processes at once; what `append` returned for survives SIGKILL and power
loss. A deleted batch's pages are used again by later ones; the file itself does not shrink.
"""

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, NamedTuple
from uuid import uuid4

import numpy as np
import numpy.typing as npt

from k2.errors import Broken, NotFound, Refused
from k2.log.batch import Blob, pack
from k2.log.database import BUSY_TIMEOUT, FAILURES, Database, translate
from k2.log.members import SqliteMembership
from k2.log.port import Access, Append, Batch
from k2.log.reading import Reading, place_of

_APPLICATION: Final = 0x4B324C47  # K2LG

_TABLES: Final = """
CREATE TABLE topics (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    identity TEXT NOT NULL
);
CREATE TABLE partitions (
    id INTEGER PRIMARY KEY,
    topic_id INTEGER NOT NULL REFERENCES topics,
    number INTEGER NOT NULL,
    start_offset INTEGER NOT NULL DEFAULT 0,
    end_offset INTEGER NOT NULL DEFAULT 0,
    bytes INTEGER NOT NULL DEFAULT 0,
    UNIQUE (topic_id, number)
);
CREATE TABLE batches (
    id INTEGER PRIMARY KEY,
    partition_id INTEGER NOT NULL REFERENCES partitions,
    first_offset INTEGER NOT NULL,
    appended_at INTEGER NOT NULL,
    schema_id INTEGER NOT NULL,
    messages INTEGER NOT NULL,
    datum_bytes INTEGER NOT NULL,
    width INTEGER NOT NULL,
    checksum INTEGER NOT NULL,
    body BLOB NOT NULL
);
CREATE UNIQUE INDEX batches_by_offset ON batches (partition_id, first_offset, appended_at);
CREATE TABLE latest (
    topic TEXT NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (topic, key)
) WITHOUT ROWID
"""

_APPEND: Final = """
INSERT INTO batches (partition_id, first_offset, appended_at, schema_id, messages, datum_bytes,
                     width, checksum, body)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
"""

# From the batch that holds the offset on: batches have no overlap, so it is the last that begins
# at or before it.
_READ: Final = """
SELECT first_offset, appended_at, checksum, messages, schema_id, datum_bytes, width, body
FROM batches
WHERE partition_id = ?1 AND first_offset >= coalesce(
    (SELECT max(first_offset) FROM batches WHERE partition_id = ?1 AND first_offset <= ?2), ?2)
ORDER BY first_offset
"""

# The index holds all three columns, so that this reads no batch.
_OFFSET_AT: Final = """
SELECT first_offset FROM batches INDEXED BY batches_by_offset
WHERE partition_id = ? AND appended_at >= ?
ORDER BY first_offset LIMIT 1
"""

_OLDEST: Final = """
SELECT id, first_offset + messages, length(body) FROM batches
WHERE partition_id = ?1 AND first_offset < ?2 AND first_offset + messages <= ?2
ORDER BY first_offset LIMIT 32
"""

_MICROSECOND: Final = timedelta(microseconds=1)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def open_log(path: str, access: Access | None = None) -> "SqliteLog":
    """The log in the file `path`, made if there is none; nobody signs in to a file."""
    return SqliteLog(Path(path))


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class _Topic:
    identity: str
    partitions: tuple[int, ...]


class SqliteLog:
    """`k2.log.port.Log` in the file `path`, which is made if there is none.

    `clock` gives the append times, `busy_timeout` is how long to wait for other writers. Keys are
    not stored: a datum holds its symbol.
    """

    def __init__(
        self,
        path: Path,
        *,
        clock: Callable[[], datetime] = _now,
        busy_timeout: timedelta = BUSY_TIMEOUT,
    ) -> None:
        self._clock = clock
        self._database = Database(
            path, application=_APPLICATION, tables=_TABLES, busy_timeout=busy_timeout
        )
        # A topic is never deleted, and a partition that it has stays: what was once read of it
        # stays true, and it may get more.
        self._known: dict[str, _Topic] = {}

    def create(self, topic: str, partitions: int) -> None:
        """Make the topic if there is none; `Refused` for a compacted topic of that name."""
        if partitions < 1:
            raise Refused("a topic has at least one partition", place=f"topic {topic}")
        if topic in self._known:
            return
        with self._database.writing() as connection:
            if connection.execute("SELECT 1 FROM latest WHERE topic = ?", (topic,)).fetchone():
                raise Refused("this is a compacted topic", place=f"topic {topic}")
            made = connection.execute(
                "INSERT OR IGNORE INTO topics (name, identity) VALUES (?, ?)",
                (topic, str(uuid4())),
            )
            if made.rowcount:
                connection.executemany(
                    "INSERT INTO partitions (topic_id, number) VALUES (?, ?)",
                    [(made.lastrowid, number) for number in range(partitions)],
                )

    def topics(self) -> Mapping[str, int]:
        """Names of the topics of records, and their partition counts."""
        with self._database.reading() as connection:
            return dict(
                connection.execute(
                    "SELECT name, count(*) FROM topics JOIN partitions ON topics.id = topic_id "
                    "GROUP BY name ORDER BY name"
                ).fetchall()
            )

    def identity(self, topic: str) -> str:
        """A random id that was made with the topic."""
        return self._topic(topic).identity

    def append(self, appends: Sequence[Append]) -> list[npt.NDArray[np.int64]]:
        """Append each, all in one transaction: readers see all of it or none."""
        # Compressing is the larger part of the work and needs no lock.
        packed = [
            (self._partition(each.topic, each.partition), pack(each.values, each.schema_id))
            for each in appends
        ]
        place = ", ".join(sorted({f"topic {each.topic}" for each in appends}))
        with self._database.writing(place) as connection:
            # Inside the transaction: in the order in which offsets are given.
            now = (self._clock() - _EPOCH) // _MICROSECOND
            return [_append(connection, partition, blobs, now) for partition, blobs in packed]

    def read(self, topic: str, partition: int, offset: int, max_bytes: int) -> list[Batch]:
        """Messages at and after `offset`, one batch for each run of messages of one schema.

        At least one stored batch is read, however small `max_bytes` (before compression) is.
        """
        number = self._partition(topic, partition)
        with self._database.reading() as connection:
            start, end, _ = _read_state(connection, number)
            if not start <= offset <= end:
                raise NotFound(
                    "the log does not hold this offset",
                    place=place_of(topic, partition, offset),
                    expected=f"{start} to {end}",
                    hint="what lies before has been trimmed"
                    if offset < start
                    else "the log is shorter than whoever asks believes: was it made anew?",
                )
            if offset == end:
                return []
            reading = Reading(topic, partition, number, offset)
            try:
                for first, appended_at, checksum, *facts in connection.execute(
                    _READ, (number, offset)
                ):
                    reading.take(first, appended_at, checksum, Blob(*facts))
                    if reading.bytes >= max_bytes:
                        break
                else:
                    reading.expect(end)
            except FAILURES as error:
                raise translate(error, reading.place) from error
        return reading.batches()

    def start_offset(self, topic: str, partition: int) -> int:
        """Offset of the oldest message kept, or the end offset."""
        return self._state(topic, partition).start_offset

    def end_offset(self, topic: str, partition: int) -> int:
        """Offset that the next message will get; cheap enough to be asked often (about 10 us)."""
        return self._state(topic, partition).end_offset

    def end_offsets(self, topic: str) -> Sequence[int]:
        """The end offset of each partition, at one moment."""
        self._known.pop(topic, None)  # others may have added partitions
        numbers = self._topic(topic).partitions
        with self._database.reading(f"topic {topic}") as connection:
            return [_read_state(connection, number).end_offset for number in numbers]

    def offset_at(self, topic: str, partition: int, when: datetime) -> int:
        """First offset appended at or after `when`, by the clock of whoever appended."""
        number = self._partition(topic, partition)
        since = (when - _EPOCH) // _MICROSECOND
        with self._database.reading(f"topic {topic}, partition {partition}") as connection:
            found = connection.execute(_OFFSET_AT, (number, since)).fetchone()
            return int(found[0]) if found else _read_state(connection, number).end_offset

    def size(self, topic: str, partition: int) -> int:
        """Bytes that the partition's batches take, compressed."""
        return self._state(topic, partition).bytes

    def trim(self, topic: str, partition: int, before: int) -> int:
        """Delete the batches that end at or before offset `before`; the new start offset."""
        number = self._partition(topic, partition)
        # In steps, so that nobody who appends waits long.
        while True:
            with self._database.writing(f"topic {topic}, partition {partition}") as connection:
                oldest = connection.execute(_OLDEST, (number, before)).fetchall()
                if not oldest:
                    return self.start_offset(topic, partition)
                connection.executemany(
                    "DELETE FROM batches WHERE id = ?", [(row,) for row, _, _ in oldest]
                )
                connection.execute(
                    "UPDATE partitions SET start_offset = ?, bytes = bytes - ? WHERE id = ?",
                    (oldest[-1][1], sum(size for _, _, size in oldest), number),
                )

    def put(self, topic: str, key: str, value: str) -> None:
        """Write to a compacted topic; `Refused` for a topic of records."""
        with self._database.writing(f"topic {topic}") as connection:
            if connection.execute("SELECT 1 FROM topics WHERE name = ?", (topic,)).fetchone():
                raise Refused("this is a topic of records", place=f"topic {topic}")
            connection.execute(
                "INSERT INTO latest VALUES (?, ?, ?) "
                "ON CONFLICT (topic, key) DO UPDATE SET value = excluded.value",
                (topic, key, value),
            )

    def latest(self, topic: str) -> Mapping[str, str]:
        """The latest value of each key of a compacted topic."""
        with self._database.reading(f"topic {topic}") as connection:
            return dict(
                connection.execute(
                    "SELECT key, value FROM latest WHERE topic = ? ORDER BY key", (topic,)
                ).fetchall()
            )

    def join(self, group: str) -> SqliteMembership:
        """Take part in the group, with whichever processes have joined it in this file."""
        return SqliteMembership(self._database, group)

    def rest(self) -> None:
        """Nothing: nothing is read ahead."""

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def _topic(self, topic: str) -> _Topic:
        if (known := self._known.get(topic)) is not None:
            return known
        with self._database.reading(f"topic {topic}") as connection:
            rows = connection.execute(
                "SELECT identity, partitions.id FROM topics "
                "JOIN partitions ON topics.id = topic_id WHERE name = ? ORDER BY number",
                (topic,),
            ).fetchall()
        if not rows:
            raise NotFound(f"there is no topic called {topic!r}", place=str(self._database.path))
        known = self._known[topic] = _Topic(rows[0][0], tuple(number for _, number in rows))
        return known

    def _partition(self, topic: str, partition: int) -> int:
        numbers = self._topic(topic).partitions
        if partition >= len(numbers):
            self._known.pop(topic, None)
            numbers = self._topic(topic).partitions
        if not 0 <= partition < len(numbers):
            raise NotFound(
                f"there is no partition {partition}",
                place=f"topic {topic}",
                expected=f"0 to {len(numbers) - 1}",
            )
        return numbers[partition]

    def _state(self, topic: str, partition: int) -> "_State":
        number = self._partition(topic, partition)
        with self._database.reading() as connection:
            return _read_state(connection, number)


class _State(NamedTuple):
    """A partition at one moment."""

    start_offset: int
    end_offset: int
    bytes: int


def _read_state(connection: sqlite3.Connection, partition: int) -> _State:
    row = connection.execute(
        "SELECT start_offset, end_offset, bytes FROM partitions WHERE id = ?",
        (partition,),
    ).fetchone()
    if row is None or not all(isinstance(number, int) for number in row):
        raise Broken("the row that describes a partition is damaged", found=str(row))
    return _State(*row)


def _append(
    connection: sqlite3.Connection, partition: int, blobs: Sequence[Blob], now: int
) -> npt.NDArray[np.int64]:
    state = _read_state(connection, partition)
    end = state.end_offset
    for blob in blobs:
        checksum = blob.checksum(partition, end, now)
        facts = (blob.schema_id, blob.count, blob.datum_bytes, blob.width)
        connection.execute(_APPEND, (partition, end, now, *facts, checksum, blob.body))
        end += blob.count
    if blobs:
        connection.execute(
            "UPDATE partitions SET end_offset = ?, bytes = bytes + ? WHERE id = ?",
            (end, sum(len(blob.body) for blob in blobs), partition),
        )
    return np.arange(state.end_offset, end, dtype=np.int64)
