"""One pinned state of one table: a snapshot's files, the tail past them, and what both hold.

A view never changes; everything that a query reads comes from one, so that an answer and its meta
tell of the same state.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from typing import TYPE_CHECKING, Final, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from k2.lake import DataFileRef
from k2.model import PRICE_TYPE, TIMESTAMP_TYPE, Exchange, kinds, latest
from k2.query.port import LogRange, PartialFile, Pin, Source, Standing
from k2.query.rows import positions, taken
from k2.query.zones import EARLIEST, LATEST, from_us, to_us

if TYPE_CHECKING:
    from k2.query.copies import Copies
    from k2.query.hot import Hot
    from k2.query.rollup import Rollups

_LONG_TAIL: Final = 2_000_000
"""Rows of a tail beyond which none is copied whole."""

STANDING: Final = pa.schema(
    [
        ("symbol", pa.string()),
        ("exchange", pa.string()),
        ("exchange_date", pa.date32()),
        ("trade_id", pa.string()),
        ("id_space", pa.string()),
        ("target_log_id", pa.string()),
        ("target_partition", pa.int32()),
        ("target_offset", pa.int64()),
        ("action", pa.string()),
        ("timestamp", TIMESTAMP_TYPE),
        ("price", PRICE_TYPE),
        ("quantity", PRICE_TYPE),
        ("corrections", pa.int64()),
    ]
)
"""Columns of what stands: the trade (by its id or its place in the log), the last `action`, when
that was, price and quantity where they were changed, and how many corrections that follows from.
"""

NOTHING: Final = STANDING.empty_table()

HISTORY: Final = pa.schema(
    [
        ("correction", pa.string()),
        ("corrected_at", TIMESTAMP_TYPE),
        ("corrected_price", PRICE_TYPE),
        ("corrected_quantity", PRICE_TYPE),
    ]
)
"""Columns that a trade has besides, if its history is asked for."""


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

    def since(self, commit: int) -> tuple[DataFileRef, ...]:
        """The files that may hold rows which later commits brought in."""

    @property
    def rows(self) -> int:
        """Rows in all files."""

    @property
    def newest(self) -> int | None:
        """The last time of any row, microseconds since 1970; None without rows."""


@dataclass(frozen=True)
class View:
    """The rows of `table` at one state.

    `sequence` is the commit of the snapshot that was read, `offsets` are those that it has
    committed (exclusive ends, by topic and partition). `tail` holds rows past its offsets, up
    to `ranges`. `pin` narrows the view to an earlier state: only its rows count. `evolved`: some
    files may lack columns, since they were written before these were added. `shed`: so many records
    were left in the log under overload and are not among the rows yet. `corrections` is the state
    of the corrections that go with these trades, and `standing` what they made of those that were
    asked for (None: nothing); with `history` trades stay as they were first reported. `known_at`
    narrows the view to what was known by then. `rollups` are those of its files, `copies` decoded
    ones of these, `hot` the newest rows of symbols in memory. `left`: where in the log records were
    shed. `beyond` leaves out the rows of an earlier state. `retirement` is the last commit of the
    snapshot that retired rows (0: none did), and `retired` what of the ledger touches what was
    asked for.
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
    shed: int = 0
    corrections: "View | None" = None
    standing: pa.Table | None = None
    history: bool = False
    known_at: datetime | None = None
    rollups: "Rollups | None" = None
    hot: "Hot | None" = None
    copies: "Copies | None" = None
    left: tuple[LogRange, ...] = ()
    beyond: Pin | None = None
    retirement: int = 0
    retired: pa.Table | None = None

    @property
    def pinned(self) -> Pin:
        """What a page token keeps, to see this same state again."""
        return self.pin or Pin(self.sequence, self.ranges)

    @property
    def shown(self) -> pa.Schema:
        """The columns that its rows have: with history, what became of each as well."""
        return pa.unify_schemas([self.columns, HISTORY]) if self.history else self.columns

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
        """Whether records of an exchange may stand in different partitions: of its topic in the
        log, or of that of loaded files, which is another and comes before each of these.
        """
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
        found = self.index.select(
            symbols=symbols or None,
            times=times,
            dates=dates,
            # Rows that were in the log then may have been committed since, by any later commit.
            as_of=self.pin.sequence if pure and self.pin else None,
        )
        if self.beyond is None:
            return found
        later = {file.path for file in self.index.since(self.beyond.sequence)}
        return tuple(file for file in found if file.path in later)

    @property
    def has_long_tail(self) -> bool:
        """Whether its tail is larger than memory is for."""
        return self.tail is not None and self.tail.num_rows > _LONG_TAIL

    def of_symbols(self, symbols: Sequence[str]) -> "View":
        """The view with no row in its tail that is of another symbol; of all, where none is named.

        Files are chosen by their symbols (`select`), and the tail stands beside all of them. A long
        one stays: rows of it are copied when more is known of those that are asked for.
        """
        if not symbols or self.tail is None or self.has_long_tail:
            return self
        mine = positions(self.tail["symbol"], symbols)
        if len(mine) == self.tail.num_rows:
            return self
        return replace(self, tail=taken(self.tail, mine) if len(mine) else None)

    def source(
        self,
        files: Iterable[DataFileRef],
        times: tuple[datetime | None, datetime | None] = (None, None),
    ) -> Source:
        """These files and the tail as a source, narrowed to the pinned state. The tail is left out
        if no row of it is at `times`, half-open, which are all that will be asked for.
        """
        tail = self._tail_within(*times)
        whole, partial, rows = [], [], 0 if tail is None else tail.num_rows
        for file in files:
            rows += file.rows
            if self.beyond is None and self._is_whole(file):
                whole.append(file)
            else:
                partial.append(PartialFile(file.path, file.sequence))
        return Source(
            columns=self.columns,
            files=tuple(file.path for file in whole),
            partial=tuple(partial),
            pin=self.pin,
            tail=tail,
            mixed=self.evolved,
            defaults=defaults_of(self.table),
            rows=rows,
            standing=self._standing(whole),
            known_at=self.known_at,
            beyond=self.beyond,
        )

    def _tail_within(self, start: datetime | None, end: datetime | None) -> pa.Table | None:
        """The tail, if any row of it may be asked for."""
        tail = self.tail if self.pin is None or self.pin.ranges else None
        if tail is None or not tail.num_rows or (start is None and end is None):
            return tail
        least, greatest = (to_us(each.as_py()) for each in pc.min_max(tail[self.time]).values())
        is_before = start is not None and greatest < to_us(start)
        is_after = end is not None and least >= to_us(end)
        return None if is_before or is_after else tail

    def _standing(self, files: Sequence[DataFileRef]) -> Standing | None:
        """What corrections made of the rows, and which of these files may hold such rows."""
        if self.history:
            table = NOTHING if self.standing is None else self.standing
            return Standing(table, frozenset(file.path for file in files), history=True)
        if self.standing is None:
            return None
        return Standing(self.standing, _touched(files, self.standing))

    def _is_whole(self, file: DataFileRef) -> bool:
        """Whether each row of the file is in the pinned state."""
        if self.pin is None or file.sequence <= self.pin.sequence:
            return True
        # The index has told so, since it was asked as of that commit.
        return not self.pin.ranges and file.whole

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


def _touched(files: Sequence[DataFileRef], standing: pa.Table) -> frozenset[str]:
    """The files that may hold a trade that was corrected: by their day and their symbols."""
    pairs = standing.group_by(["exchange_date", "symbol"]).aggregate([]).to_pylist()
    symbols: dict[date, list[str]] = {}
    for pair in pairs:
        symbols.setdefault(pair["exchange_date"], []).append(pair["symbol"])
    # By their bytes, as the files' bounds are.
    ordered = {day: sorted(names, key=str.encode) for day, names in symbols.items()}
    return frozenset(file.path for file in files if _may_hold(file, ordered))


def _may_hold(file: DataFileRef, symbols: Mapping[date, Sequence[str]]) -> bool:
    day = file.exchange_date
    days: Iterable[Sequence[str]] = symbols.values() if day is None else [symbols.get(day, ())]
    for names in days:
        low = (file.min_symbol or "").encode()
        at = bisect_left(names, low, key=str.encode)
        if at < len(names) and (
            file.max_symbol is None or names[at].encode() <= file.max_symbol.encode()
        ):
            return True
    return False


def defaults_of(table: str) -> dict[str, object]:
    """The columns that always have a value, and which one in rows written before they existed."""
    if table not in kinds():
        return {}
    return {name: value for name, value in latest(table).defaults.items() if value is not None}
