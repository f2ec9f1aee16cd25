"""Between a feed and a log on a server: while the server is away, records wait on disk, in order.

A file of the SQLite log's own format holds what waits; once acknowledged it is dropped. What was
appended through here survives SIGKILL, and any process that opens the file brings it in.
"""

import fcntl
import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from k2.errors import K2Error, Unavailable
from k2.log.port import Append, Batch, Log
from k2.log.sqlite import SqliteLog

_DATUMS: Final = 0
_KEYS: Final = 1
_COUNTS: Final = "partition counts"
_READ_BYTES: Final = 4 << 20
_FIRST_WAIT_SECONDS: Final = 0.25
_LONGEST_WAIT_SECONDS: Final = 5.0
_LOOK_SECONDS: Final = 0.05

_logger = logging.getLogger(__name__)


class Spooled:
    """A log to append to, of which a server being away is not noticed until `max_bytes` wait.

    `log` stays the caller's to close. `positions` names the compacted topic of which a value is
    true only once all appended before it has arrived. Any thread.
    """

    def __init__(self, log: Log, path: Path, *, positions: str, max_bytes: int) -> None:
        self._log = log
        self._path = path
        self._positions = positions
        self._max_bytes = max_bytes
        self._spool = SqliteLog(path)
        self._turn = threading.Lock()
        self._stopped = threading.Event()
        self._wanted = threading.Event()
        self._failed: K2Error | None = None
        # After a crash nobody knows which of them had arrived: all are told again.
        self._late = dict(self._spool.latest(positions)) if self.waiting() else {}
        self._thread = threading.Thread(target=self._run, name="spool", daemon=True)
        self._thread.start()
        if self._late or self.waiting():
            self._wanted.set()

    def waiting(self) -> int:
        """How many records wait on disk."""
        return sum(self._spool.end_offset(t, _DATUMS) - start for t, start in self._ranges())

    def backlog(self) -> tuple[int, int]:
        """How many records wait on disk, and how many bytes they and their keys take there."""
        return self.waiting(), self._size_bytes()

    def append(self, appends: Sequence[Append]) -> list[npt.NDArray[np.int64]]:
        """As `Log.append`, but what has to wait on disk has no offsets yet: its array is empty.

        Raises `Unavailable` once as much waits as may.
        """
        if self._failed is not None:
            raise self._failed
        with self._turn:
            if not any(self._ranges()):
                try:
                    return self._log.append(appends)
                except Unavailable as error:
                    _logger.warning("the log is away, records wait in %s: %s", self._path, error)
            self._keep(appends)
        self._wanted.set()
        return [np.empty(0, np.int64) for _ in appends]

    def put(self, topic: str, key: str, value: str) -> None:
        """As `Log.put`; a position whose records still wait is told when they have arrived."""
        if topic != self._positions:
            self._log.put(topic, key, value)
            self._spool.put(topic, key, value)
            return
        # Kept here first: a feed that is started again while the log is away goes on from it.
        self._spool.put(topic, key, value)
        with self._turn:
            if self._late or any(self._ranges()):
                self._late[key] = value
            else:
                try:
                    self._log.put(topic, key, value)
                    return
                except Unavailable:
                    self._late[key] = value
        self._wanted.set()

    def latest(self, topic: str) -> Mapping[str, str]:
        """As `Log.latest`; while the log is away, what is known of it here."""
        try:
            found = dict(self._log.latest(topic))
        except Unavailable:
            if not (known := self._spool.latest(topic)):
                raise
            return known
        if topic == self._positions:
            with self._turn:
                return found | self._late
        known = self._spool.latest(topic)
        for key, value in found.items():
            if known.get(key) != value:
                self._spool.put(topic, key, value)
        return found

    def create(self, topic: str, partitions: int) -> None:
        """As `Log.create`; while the log is away, nothing for a topic that is known here."""
        try:
            self._log.create(topic, partitions)
        except Unavailable:
            if topic not in self.topics():
                raise

    def topics(self) -> Mapping[str, int]:
        """As `Log.topics`; while the log is away, what is known of it here."""
        known = self._spool.latest(_COUNTS)
        try:
            found = self._log.topics()
        except Unavailable:
            if not known:
                raise
            return {topic: int(count) for topic, count in known.items()}
        for topic, count in found.items():
            if known.get(topic) != str(count):
                self._spool.put(_COUNTS, topic, str(count))
        return found

    def __getattr__(self, name: str) -> Any:
        """All that only reads is the log's own business."""
        return getattr(self._log, name)

    def drain(self, stop: Callable[[], bool]) -> int:
        """Wait until nothing waits on disk, or `stop()` says so; how many records wait still."""
        while (left := self.waiting()) or self._late:
            if stop():
                break
            if self._failed is not None:
                raise self._failed
            self._wanted.set()
            self._stopped.wait(_LOOK_SECONDS)
        return left

    def close(self) -> None:
        """Leave what waits on disk for whoever opens it next."""
        self._stopped.set()
        self._wanted.set()
        self._thread.join()
        self._spool.close()

    def _ranges(self) -> Iterator[tuple[str, int]]:
        """The spool's topics that hold records, each with the offset of the first."""
        for name in self._spool.topics():
            start = self._spool.start_offset(name, _DATUMS)
            if start < self._spool.end_offset(name, _DATUMS):
                yield name, start

    def _size_bytes(self) -> int:
        return sum(self._spool.size(name, n) for name in self._spool.topics() for n in (0, 1))

    def _keep(self, appends: Sequence[Append]) -> None:
        names = [f"{each.topic}/{each.partition}" for each in appends]
        size = self._size_bytes()
        if size >= self._max_bytes:
            raise Unavailable(
                f"the log is away, and {size:,} bytes of records wait on disk: no more may",
                place=str(self._path),
                retry_after=_LONGEST_WAIT_SECONDS,
                hint="the feed waits; K2_LOG_SPOOL_BYTES lets more wait",
            )
        kept = []
        for name, each in zip(names, appends, strict=True):
            self._spool.create(name, 2)
            keys = _plain(each.keys, len(each.values))
            kept.append(Append(name, _DATUMS, each.schema_id, each.values))
            kept.append(Append(name, _KEYS, 0, keys))
        # In one transaction: the n-th key is the n-th datum's.
        self._spool.append(kept)

    def _run(self) -> None:
        """Bring in what waits, as long as it takes."""
        seconds = _FIRST_WAIT_SECONDS
        while not self._stopped.is_set():
            self._wanted.wait()
            self._wanted.clear()
            try:
                with _alone(self._path) as mine:
                    if mine:
                        self._bring_in()
                seconds = _FIRST_WAIT_SECONDS
            except Unavailable:
                seconds = min(2 * seconds, _LONGEST_WAIT_SECONDS)
                self._wanted.set()
            except K2Error as error:
                # Told to whoever appends next: waiting does not mend it.
                self._failed = error
                return
            if self._wanted.is_set() or any(self._ranges()):
                self._wanted.set()
                self._stopped.wait(seconds)

    def _bring_in(self) -> None:
        brought = 0
        for name, start in list(self._ranges()):
            topic, _, partition = name.rpartition("/")
            offset = start
            while batches := self._spool.read(name, _DATUMS, offset, _READ_BYTES):
                for batch in batches:
                    if self._stopped.is_set():
                        return
                    self._log.append([self._to_append(topic, int(partition), batch)])
                    offset = batch.next_offset
                    brought += len(batch.values)
                    self._spool.trim(name, _DATUMS, offset)
                    self._spool.trim(name, _KEYS, offset)
        with self._turn:
            if any(self._ranges()):
                return
            for key, value in list(self._late.items()):
                self._log.put(self._positions, key, value)
                del self._late[key]
        if brought:
            _logger.warning("the log is back: %s records that waited are in", f"{brought:,}")

    def _to_append(self, topic: str, partition: int, batch: Batch) -> Append:
        keys: list[pa.Array] = []
        offset, left = int(batch.offsets[0]), len(batch.values)
        while left:
            for found in self._spool.read(batch.topic, _KEYS, offset, _READ_BYTES):
                keys.append(found.values.slice(0, left))
                left -= len(keys[-1])
                offset = found.next_offset
        joined = pa.concat_arrays(keys)
        # No symbol is empty: such keys stand for messages without one.
        named = pc.any(pc.greater(pc.binary_length(joined), 0)).as_py()
        schema_id = int(batch.schema_ids[0])
        return Append(topic, partition, schema_id, batch.values, joined if named else None)


def _plain(keys: pa.Array | None, count: int) -> pa.Array:
    if keys is None:
        return pa.array([b""] * count, pa.binary())
    if pa.types.is_dictionary(keys.type):
        keys = keys.dictionary_decode()
    return keys.cast(pa.binary())


@contextmanager
def _alone(path: Path) -> Iterator[bool]:
    """Whether this process is the one that brings in what waits: two would mix up its order."""
    handle = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o644)
    with closing(os.fdopen(handle)):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
