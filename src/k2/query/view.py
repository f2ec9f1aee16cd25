"""One pinned state of one table: a snapshot's files, the tail past them, and what both hold.

A view never changes; everything that a query reads comes from one, so that an answer and its meta
tell of the same state.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc

from k2.lake import DataFileRef
from k2.model import Exchange, kinds, latest
from k2.query.port import LogRange, PartialFile, Pin, Source
from k2.query.zones import EARLIEST, LATEST, from_us, to_us


class Index(Protocol):
    """What a view needs of a snapshot's file index (`k2.lake.FileIndex`)."""

    def select(
        self,
        *,
        symbols: Iterable[str] | None = None,
        dates: tuple[date | None, date | None] | None = None,
        times: tuple[datetime | None, datetime | None] | None = None,
        as_of: int | None = None,
    ) -> tuple[DataFileRef, ...]:
        """The files that may hold matching rows."""

    @property
    def rows(self) -> int:
        """Rows in all files."""


@dataclass(frozen=True)
class View:
    """The rows of `table` at one state.

    `sequence` is the commit of the snapshot that was read, `offsets` are those that it has
    committed (exclusive ends, by topic and partition). `tail` holds rows past its offsets, up
    to `ranges`. `pin` narrows the view to an earlier state: only its rows count. `evolved`: some
    files may lack columns, since they were written before these were added.
    """

    table: str
    columns: pa.Schema
    time: str
    index: Index
    sequence: int
    snapshot_id: int | None = None
    committed_at: datetime | None = None
    offsets: Mapping[str, Mapping[int, int]] = field(default_factory=dict)
    tail: pa.Table | None = None
    ranges: tuple[LogRange, ...] = ()
    exchanges: Mapping[str, Exchange] = field(default_factory=dict)
    pin: Pin | None = None
    evolved: bool = True

    @property
    def pinned(self) -> Pin:
        """What a page token keeps, to see this same state again."""
        return self.pin or Pin(self.sequence, self.ranges)

    @property
    def seen(self) -> dict[str, dict[int, int]]:
        """Ends (exclusive) of what is in the view, by topic and partition, as far as known: of a
        past commit, only its number is.
        """
        narrowed = self.pin is not None and self.pin.sequence != self.sequence
        found = {} if narrowed else {topic: dict(of) for topic, of in self.offsets.items()}
        for r in self.pinned.ranges:
            found.setdefault(r.topic, {})[r.partition] = r.end
        return found

    @property
    def is_partitioned(self) -> bool:
        """Whether records of one topic may stand in different partitions of it."""
        if self.sequence and not self.offsets:
            return True
        committed = (partition for of in self.offsets.values() for partition in of)
        return any(committed) or any(r.partition for r in self.ranges)

    @property
    def order(self) -> tuple[str, ...]:
        """The columns of the total order."""
        place = ("log_topic", "log_partition", "log_offset")
        nanos = ("timestamp_nanos",) if "timestamp_nanos" in self.columns.names else ()
        return (self.time, *nanos, *place)

    def select(
        self,
        symbols: Sequence[str] = (),
        *,
        times: tuple[datetime | None, datetime | None] | None = None,
        dates: tuple[date | None, date | None] | None = None,
    ) -> tuple[DataFileRef, ...]:
        """The files that may hold rows of these symbols, times `[start, end)` and dates."""
        pure = self.pin is not None and not self.pin.ranges
        return self.index.select(
            symbols=symbols or None,
            times=times,
            dates=dates,
            # Rows that were in the log then may have been committed since, by any later commit.
            as_of=self.pin.sequence if pure and self.pin else None,
        )

    def source(self, files: Iterable[DataFileRef]) -> Source:
        """These files and the tail as a source, narrowed to the pinned state."""
        whole, partial, rows = [], [], 0 if self.tail is None else self.tail.num_rows
        for file in files:
            rows += file.rows
            if self.pin is None or file.sequence <= self.pin.sequence or self._pure(file):
                whole.append(file.path)
            else:
                partial.append(PartialFile(file.path, file.sequence))
        return Source(
            columns=self.columns,
            files=tuple(whole),
            partial=tuple(partial),
            pin=self.pin,
            tail=self.tail if self.pin is None or self.pin.ranges else None,
            mixed=self.evolved,
            defaults=_defaults(self.table),
            rows=rows,
        )

    def _pure(self, file: DataFileRef) -> bool:
        """Whether the index has told that each row of the file was there by the pinned commit."""
        return self.pin is not None and not self.pin.ranges and file.whole

    def span(self, files: Iterable[DataFileRef]) -> tuple[datetime, datetime] | None:
        """First and last time of any row in the files and the tail; None where there is no row.

        A file whose times are unknown counts for all of time.
        """
        lows, highs = [], []
        for file in files:
            lows.append(EARLIEST if file.min_timestamp is None else file.min_timestamp)
            highs.append(LATEST if file.max_timestamp is None else file.max_timestamp)
        if self.tail is not None and self.tail.num_rows:
            least, greatest = pc.min_max(self.tail[self.time]).values()
            if least.is_valid:
                lows.append(to_us(least.as_py()))
                highs.append(to_us(greatest.as_py()))
        return (from_us(min(lows)), from_us(max(highs))) if lows else None


def _defaults(table: str) -> dict[str, object]:
    """The columns that always have a value, and which one in rows written before they existed."""
    if table not in kinds():
        return {}
    return {name: value for name, value in latest(table).defaults.items() if value is not None}
