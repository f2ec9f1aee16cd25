"""Rows of files that went straight into a table, read again from these files.

Comes in: manifests, and the offsets that are wanted. Goes out: the rows that these records became.
A file must have the very content that it had when it was loaded.
"""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa

from k2.errors import Broken
from k2.ingest.known import Known
from k2.ingest.origin import Place
from k2.ingest.remake import Job
from k2.ingest.sift import Sieve, with_lineage
from k2.ingest.sources import find_source, opened, records_of
from k2.lake import LakeTable
from k2.lake.loads import Loads, Stretch
from k2.model import LOADED_PARTITION, Topic

Ranges = Sequence[tuple[int, int]]


class FromFiles:
    """A `k2.ingest.remake.Rereader`. `folder`: where the files lie now, if not where they were."""

    def __init__(self, loads: Loads, table: LakeTable, job: Job, folder: Path | None) -> None:
        self._loads = loads
        self._table = table
        self._job = job
        self._folder = folder

    def rows(self, place: Place, ranges: Ranges) -> Iterator[tuple[pa.Table, int, int]]:
        """As `Rereader` says."""
        needed = [
            (stretch, within)
            for stretch in self._loads.stretches(place[0])
            if (within := _within(ranges, stretch))
        ]
        # All of them before the first is read: what cannot be done is to be said at once.
        paths = [find_source(stretch.source, self._folder) for stretch, _ in needed]
        for (stretch, within), path in zip(needed, paths, strict=True):
            yield from self._of_file(place, stretch, within, path)

    def _of_file(
        self, place: Place, stretch: Stretch, ranges: Ranges, path: Path
    ) -> Iterator[tuple[pa.Table, int, int]]:
        topic = Topic.of_row(place[0])
        assert topic is not None, "only topics of records have offsets in a table"
        at, last = stretch.first, ranges[-1][1]
        with opened(stretch.load, path, self._folder) as feed:
            for records in records_of(feed):
                if (records.kind, records.exchange) != (topic.kind, topic.exchange):
                    continue
                end = at + records.table.num_rows
                for low, high in ranges:
                    first, past = max(low, at), min(high, end)
                    if first < past:
                        part = records.table.slice(first - at, past - first)
                        yield self._made(place, topic, part, first), first, past
                at = end
                if at >= last:
                    return
        raise Broken(
            "the file has fewer records than were loaded from it",
            place=f"{path}, {topic}",
            found=f"{at - stretch.first:,}",
            expected=f"at least {last - stretch.first:,}",
            hint=f"it was read by K2 {stretch.load.read_by.version}; nothing was changed",
        )

    def _made(self, place: Place, topic: Topic, records: pa.Table, first: int) -> pa.Table:
        offsets = np.arange(first, first + records.num_rows)
        places = {
            "log_partition": pa.array(np.full(len(offsets), LOADED_PARTITION, np.int32)),
            "log_offset": pa.array(offsets),
        }
        rows = with_lineage(records, topic, place[1], places)
        rows = rows.filter(pa.array(self._job.were_rows(place, offsets)))
        snapshot = self._job.snapshot
        # No fate is decided here, so neither what is known nor the skew is ever asked.
        known = Known(topic.kind, self._table, snapshot)
        return Sieve(topic, snapshot.exchanges[topic.exchange], known, timedelta(0)).to_table(rows)


def _within(ranges: Ranges, stretch: Stretch) -> list[tuple[int, int]]:
    """The parts of the ranges that lie in the stretch."""
    parts = (
        (max(low, stretch.first), high if stretch.end is None else min(high, stretch.end))
        for low, high in ranges
    )
    return [(low, high) for low, high in parts if low < high]
