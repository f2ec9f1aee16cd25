"""Which gaps an answer touches: records that the ledger calls missing, and that are missing still.

Comes in: what was asked for, by symbols and times. Goes out: gaps, a sentence about them for the
answer's notes, and for each bar whether it is complete.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from k2.ingest import with_state
from k2.lake import Lake, definition
from k2.model import Exchange, micros, plain_schema
from k2.query.interval import Interval, midnights_of
from k2.query.zones import from_us, to_us

_AROUND: Final = timedelta(days=3)
_AGAIN: Final = 5.0
"""Seconds after which a gap is looked at again: something may have filled it."""
_MOST: Final = 200
"""Gaps that are looked at for one answer; of more, it is only said how many there are."""


@dataclass(frozen=True)
class _Looked:
    """How much of a gap was missing (None: nobody knows) when it was looked at, by `monotonic`."""

    missing: int | None
    at: float


@dataclass(frozen=True)
class Gap:
    """A range of the ledger that something is `missing` of (None: nobody knows how much), between
    the records at `start` and `end` (None: not known).
    """

    symbol: str
    exchange: str
    start: datetime | None
    end: datetime | None
    missing: int | None
    cause: str


class Gaps:
    """The gap ledger of one lake, as answers need it. Any thread may ask."""

    def __init__(self, lake: Lake) -> None:
        self._lake = lake
        self._held: tuple[Mapping[str, pa.Table], pa.Table] = (
            {},
            plain_schema(definition("gaps").arrow).empty_table(),
        )
        self._looked: dict[tuple[object, ...], _Looked] = {}

    def touching(
        self,
        kind: str,
        symbols: Sequence[str],
        exchanges: Sequence[str],
        start: datetime | None,
        end: datetime | None,
    ) -> list[Gap]:
        """The gaps of `kind` in the times `[start, end)`, of these symbols and exchanges (of all,
        where none is named). None is an open end.

        Of very many it is not looked up what is missing still: all of them are given.
        """
        rows = self._entries()
        if not rows.num_rows:
            return []
        wanted = (pc.field("kind") == kind) & (pc.field("symbol") != "")
        if symbols:
            wanted &= pc.field("symbol").isin(list(symbols))
        if exchanges:
            wanted &= pc.field("exchange").isin(list(exchanges))
        # A gap of which one end is not known lies at the other.
        begin, done = pc.field("from_timestamp"), pc.field("to_timestamp")
        if start is not None:
            wanted &= pc.coalesce(done, begin) >= start
        if end is not None:
            wanted &= pc.coalesce(begin, done) < end
        rows = rows.filter(wanted)
        few = rows.num_rows <= _MOST
        missing = self._missing(rows) if few else [None] * rows.num_rows
        columns = (rows[name].to_pylist() for name in _GAP)
        found = map(Gap, *columns, missing, rows["cause"].to_pylist())
        return [gap for gap in found if gap.missing != 0]

    def _entries(self) -> pa.Table:
        """The ledger's rows. Its files never change, so that each is read once."""
        paths = [file.path for file in self._lake.ledger_files("gaps")]
        files, rows = self._held
        if files.keys() != set(paths):
            schema = plain_schema(definition("gaps").arrow)
            files = {p: files[p] if p in files else _read(p, schema) for p in paths}
            rows = pa.concat_tables([schema.empty_table(), *files.values()]).combine_chunks()
            self._held = files, rows
        return rows

    def _missing(self, rows: pa.Table) -> list[int | None]:
        """How much is missing of each gap."""
        now = time.monotonic()
        keys = [tuple(row.values()) for row in rows.select(_KEY).to_pylist()]
        stale = [at for at, key in enumerate(keys) if self._is_stale(key, now)]
        if stale:
            found = with_state(self._lake, rows.take(pa.array(stale)))["missing"].to_pylist()
            for at, missing in zip(stale, found, strict=True):
                self._looked[keys[at]] = _Looked(missing, now)
        return [self._looked[key].missing for key in keys]

    def _is_stale(self, key: tuple[object, ...], now: float) -> bool:
        looked = self._looked.get(key)
        # What is filled stays so: rows are kept.
        return looked is None or (looked.missing != 0 and now - looked.at > _AGAIN)


_KEY: Final = (
    *("exchange", "symbol", "kind", "id_space", "first_missing", "last_missing"),
    *("log_topic", "log_partition", "log_offset"),
)


_GAP: Final = ("symbol", "exchange", "from_timestamp", "to_timestamp")


def told_gaps(kind: str, gaps: Sequence[Gap]) -> list[str]:
    """The note of these gaps, if there are any; days that are not kept have one of their own."""
    gaps = [gap for gap in gaps if gap.cause != "retired"]
    return [note(kind, gaps)] if gaps else []


def note(kind: str, gaps: Sequence[Gap]) -> str:
    """What an answer over records of this kind says of the gaps (one at least) that it touches."""
    counts = [gap.missing for gap in gaps]
    many = "an unknown number of" if None in counts else f"{sum(n or 0 for n in counts):,}"
    causes = ", ".join(sorted({gap.cause for gap in gaps}))
    touch = "1 gap touches" if len(gaps) == 1 else f"{len(gaps):,} gaps touch"
    return f"{touch} this: {many} {kind} are missing ({causes}); `gaps` lists them"


def complete(
    bars: pa.Table, gaps: Sequence[Gap], interval: Interval, exchanges: Mapping[str, Exchange]
) -> pa.Array:
    """For each bar, whether no gap touches its interval."""
    found = np.ones(bars.num_rows, np.bool_)
    if not gaps or not bars.num_rows:
        return pa.array(found)
    begin = micros(bars["start"])
    end = _ends(begin, bars["exchange"], interval, exchanges)
    for gap in gaps:
        mine = pc.and_(
            pc.equal(bars["symbol"], gap.symbol), pc.equal(bars["exchange"], gap.exchange)
        )
        touched = mine.to_numpy(zero_copy_only=False)
        if (first := gap.start or gap.end) is not None:
            touched = touched & (end > to_us(first))
        if (last := gap.end or gap.start) is not None:
            touched = touched & (begin <= to_us(last))
        found &= ~touched
    return pa.array(found)


def _ends(
    begin: npt.NDArray[np.int64],
    names: pa.ChunkedArray,
    interval: Interval,
    exchanges: Mapping[str, Exchange],
) -> npt.NDArray[np.int64]:
    """Where each interval ends, in microseconds; a day ends at the next midnight."""
    end = begin + interval.width_us
    if not interval.is_day:
        return end
    first, last = (from_us(int(at)).date() for at in (begin.min(), begin.max()))
    midnights = midnights_of(exchanges, first - _AROUND, last + _AROUND)
    for name, days in midnights.begin_us.items():
        mine = pc.equal(names, name).to_numpy(zero_copy_only=False)
        end[mine] = days[np.searchsorted(days, begin[mine], side="right")]
    return end


def _read(path: str, schema: pa.Schema) -> pa.Table:
    rows = pq.ParquetFile(path).read()
    columns: list[Any] = [
        rows[field.name].cast(field.type)
        if field.name in rows.column_names
        else pa.nulls(rows.num_rows, field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)
