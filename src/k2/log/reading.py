"""Stored batches on their way into columns: many small ones become one, none passes unchecked.

Whatever a damaged file gives, the messages that come out are those that were appended, or `Broken`
names the first offset that cannot be read.
"""

import struct
from typing import Final, NoReturn

import numpy as np

from k2.errors import Broken
from k2.log.batch import Blob, Unpacked, join, unpack
from k2.log.port import Batch

_COLUMN_BYTES: Final = 1 << 30
"""Most that goes into one column: its offsets are 32 bits wide."""


def place_of(topic: str, partition: int, offset: int) -> str:
    """How an error names a place in the log."""
    return f"topic {topic}, partition {partition}, offset {offset}"


class Reading:
    """One read from `offset` on; give it the stored batches in order, then ask for `batches`."""

    def __init__(self, topic: str, partition: int, partition_id: int, offset: int) -> None:
        self._topic = topic
        self._partition = partition
        self._partition_id = partition_id
        self._offset = offset
        self._runs: list[tuple[int, list[Unpacked]]] = []
        self._run_bytes = 0
        self.next_offset = offset
        self.bytes = 0
        """Expanded size of what was taken."""

    @property
    def place(self) -> str:
        """Of the next message."""
        return place_of(self._topic, self._partition, self.next_offset)

    def take(self, first: int, appended_at: int, checksum: int, blob: Blob) -> None:
        """The batch that holds `next_offset`. Raises `Broken` if it is not, or not as written."""
        if not self._is_sound(first, appended_at, checksum, blob):
            self._broken("the batch is not what was written")
        if self._runs or not first <= self.next_offset < first + blob.count:
            self.expect(first)
        part = unpack(blob, self.place)
        if first < self._offset:
            part = part.skip(self._offset - first)
        size = len(part.datums)
        run_is_full = self._run_bytes + size > _COLUMN_BYTES
        if run_is_full or not self._runs or self._runs[-1][0] != blob.schema_id:
            self._runs.append((blob.schema_id, []))
            self._run_bytes = 0
        self._runs[-1][1].append(part)
        self._run_bytes += size
        self.bytes += blob.datum_bytes + blob.count * blob.width
        self.next_offset = first + blob.count

    def expect(self, offset: int) -> None:
        """What comes next (a batch, or the end) must be at `offset`: the log has no holes."""
        if offset != self.next_offset:
            self._broken(f"a batch is missing, the next is at {offset}")

    def batches(self) -> list[Batch]:
        """What was taken: a batch for each run of one schema."""
        found, offset = [], self._offset
        for schema_id, parts in self._runs:
            values = join(parts)
            end = offset + len(values)
            offsets = np.arange(offset, end, dtype=np.int64)
            ids = np.full(len(values), schema_id, np.int32)
            found.append(Batch(self._topic, self._partition, offsets, ids, values, end))
            offset = end
        return found

    def _is_sound(self, first: int, appended_at: int, checksum: int, blob: Blob) -> bool:
        try:
            return blob.checksum(self._partition_id, first, appended_at) == checksum
        except (struct.error, TypeError):
            # A damaged row may hold anything, also texts where numbers were.
            return False

    def _broken(self, message: str) -> NoReturn:
        raise Broken(
            message,
            place=self.place,
            hint="the file is damaged: restore it from a backup, or load these records anew",
        )
