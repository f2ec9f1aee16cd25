"""Batches of one partition. While one is worked on, a thread makes columns of the next.

Only while there is more to read at once: at the end of the log nothing is prepared, and nobody
waits for the thread.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from k2.log.kafka.cluster import Cluster
from k2.log.kafka.cursor import NOWHERE, Cursor, Taken
from k2.log.port import Batch
from k2.log.wire import from_wire

_CHUNK_MESSAGES: Final = 20_000
_FIRST_GUESS_BYTES: Final = 200
_COLUMN_BYTES: Final = 1 << 30
"""Most that goes into one column: its offsets are 32 bits wide."""


@dataclass(frozen=True)
class _Gathered:
    """Messages up to `next_offset`. `is_full`: as many as were asked for, so that more may wait."""

    offsets: npt.NDArray[np.int64]
    messages: pa.BinaryArray
    next_offset: int
    is_full: bool


class Reader:
    """Reads one partition of a topic. One thread at a time has it, by `lock`."""

    def __init__(self, cluster: Cluster, topic: str, partition: int) -> None:
        self.lock = threading.Lock()
        self.used_at = 0.0
        """When somebody wanted it last, by `time.monotonic`."""
        self._topic = topic
        self._partition = partition
        self._cursor = Cursor(cluster, topic, partition)
        self._message_bytes = float(_FIRST_GUESS_BYTES)
        self._thread: ThreadPoolExecutor | None = None
        self._ahead: tuple[int, Future[_Gathered | None]] | None = None

    def read(self, offset: int, max_bytes: int) -> list[Batch]:
        """As `Log.read`; at most one batch."""
        found = self._prepared(offset)
        if found is None:
            found = self._gather(offset, max_bytes, lambda count: self._cursor.begin(offset, count))
        if found is None:
            return []
        if found.is_full:
            self._prepare(found.next_offset, max_bytes)
        ids, values = from_wire(found.messages)
        return [Batch(self._topic, self._partition, found.offsets, ids, values, found.next_offset)]

    def _prepare(self, offset: int, max_bytes: int) -> None:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="k2-read-ahead")
        more = self._thread.submit(self._gather, offset, max_bytes, self._cursor.take)
        self._ahead = (offset, more)

    def _prepared(self, offset: int) -> _Gathered | None:
        """What was made ready, if it begins there; None if it does not, or nothing was there."""
        if self._ahead is None:
            return None
        (first, ahead), self._ahead = self._ahead, None
        # Waited for also where it is of no use: the cursor is the thread's until then.
        if first == offset:
            return ahead.result()
        wait([ahead])
        return None

    def _gather(
        self, offset: int, max_bytes: int, take: Callable[[int], Taken | None]
    ) -> _Gathered | None:
        """Messages from `offset` on, the first of them by `take`; None if there are none yet."""
        offsets: list[npt.NDArray[np.int64]] = []
        columns: list[pa.BinaryArray] = []
        left, reached = min(max_bytes, _COLUMN_BYTES), offset
        while left > 0:
            count = int(max(1, min(left / self._message_bytes, _CHUNK_MESSAGES)))
            taken, take = take(count), self._cursor.take
            if taken is None or self._cursor.next_offset == NOWHERE:
                break
            reached = self._cursor.next_offset
            offsets.append(taken.offsets)
            columns.append(pa.array(taken.values, pa.binary()))
            if taken.values:
                self._message_bytes = columns[-1].nbytes / len(taken.values)
            left -= columns[-1].nbytes
            if len(taken.values) < count:
                break
        if reached == offset:
            return None
        messages = columns[0] if len(columns) == 1 else pa.concat_arrays(columns)
        if messages.null_count:
            messages = messages.fill_null(b"")
        return _Gathered(np.concatenate(offsets), messages, reached, is_full=left <= 0)

    def rest(self) -> None:
        """Hold nothing that was fetched ahead, and fetch nothing until it is read on."""
        self._prepared(NOWHERE)
        self._cursor.rest()

    def close(self) -> None:
        """Let go of the connection."""
        self._prepared(NOWHERE)
        if self._thread is not None:
            self._thread.shutdown()
        self._cursor.close()
