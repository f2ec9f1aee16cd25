"""Records of days and symbols that were retired: they are not kept, however they come again.

Comes in: rows on their way, and up to where the table's rows were retired. Goes out: which of them
are late, and entries of the ledger for them.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from k2.lake import Lake, RetiredUpTo
from k2.lake.ledgers import to_rows
from k2.lake.retired import LATE, LEDGER, RetiredRows, of_kind
from k2.lake.retiring import places_of, symbols_of
from k2.model import Exchange, exchange_dates, micros

_COLUMNS: Final = ("event", "kind", "exchange", "exchange_date", "symbols", "commit")
_EPOCH: Final = date(1970, 1, 1)
_LINEAGE: Final = ("log_topic", "log_id", "log_partition")

Mask = npt.NDArray[np.bool_]
Days = npt.NDArray[np.int32]


class Closed:
    """The days and symbols of one kind that are closed. One thread at a time."""

    def __init__(self, lake: Lake, kind: str) -> None:
        self._kind = kind
        self._ledger = RetiredRows(lake, _COLUMNS)
        self._commit = 0
        self._symbols: Mapping[tuple[str, date], frozenset[str]] = {}

    def late(self, rows: pa.Table, exchange: Exchange, retired: RetiredUpTo) -> Mask | None:
        """Which rows (all of that exchange) are of a day and symbol that was retired by then; None
        if none is.
        """
        last = retired.days.get(exchange.name)
        if last is None or not rows.num_rows:
            return None
        days = days_of(rows, exchange)
        old = np.flatnonzero(days <= (last - _EPOCH).days)
        if not len(old):
            return None
        closed = self._closed(retired)
        found = np.zeros(rows.num_rows, np.bool_)
        for day in np.unique(days[old]).tolist():
            symbols = closed.get((exchange.name, _EPOCH + timedelta(days=day)))
            if symbols:
                mine = old[days[old] == day]
                names = rows["symbol"].take(pa.array(mine)).cast(pa.string())
                among = pc.is_in(names, pa.array(sorted(symbols), pa.string()))
                found[mine] = among.to_numpy()
        return found if found.any() else None

    def between(
        self, exchange: Exchange, symbol: str, times: Sequence[datetime], retired: RetiredUpTo
    ) -> tuple[bool, bool]:
        """Whether any of the trading dates between these times is closed to the symbol, and whether
        all of them are.
        """
        if exchange.name not in retired.days or not times:
            return False, False
        us = np.array([(time - _DAWN) // timedelta(microseconds=1) for time in times], np.int64)
        days = exchange_dates(us, exchange)
        closed = self._closed(retired)
        found = [
            symbol in closed.get((exchange.name, _EPOCH + timedelta(days=day)), ())
            for day in range(int(days.min()), int(days.max()) + 1)
        ]
        return any(found), all(found)

    def _closed(self, retired: RetiredUpTo) -> Mapping[tuple[str, date], frozenset[str]]:
        """The symbols of each exchange and day. Others may have retired more since."""
        if retired.commit != self._commit:
            found: dict[tuple[str, date], frozenset[str]] = {}
            rows = of_kind(self._ledger.rows(), self._kind, retired.commit)
            for row in rows.to_pylist():
                key = (row["exchange"], row["exchange_date"])
                found[key] = found.get(key, frozenset()) | frozenset(json.loads(row["symbols"]))
            self._symbols, self._commit = found, retired.commit
        return self._symbols


def days_of(rows: pa.Table, exchange: Exchange) -> Days:
    """The trading date of each row, in days since 1970."""
    return exchange_dates(micros(rows["timestamp"]), exchange)


def to_late(kind: str, rows: pa.Table, exchange: Exchange) -> pa.Table:
    """The ledger's entries of rows that are late: one for each trading date and partition.

    They have the time at which the latest of them was first seen, so that whoever decides the same
    records writes the same.
    """
    days = days_of(rows, exchange)
    partitions = rows["log_partition"].to_numpy()
    entries: list[dict[str, Any]] = []
    keys = np.unique(np.stack([days.astype(np.int64), partitions.astype(np.int64)]), axis=1)
    for day, partition in keys.T.tolist():
        mine = rows.filter(pa.array((days == day) & (partitions == partition)))
        times = pc.min_max(mine["timestamp"]).as_py()
        symbols = frozenset(pc.unique(mine["symbol"].cast(pa.string())).to_pylist())
        entries.append(
            {
                "event": LATE,
                "kind": kind,
                "exchange": exchange.name,
                "exchange_date": _EPOCH + timedelta(days=day),
                **symbols_of(symbols),
                **places_of(np.sort(mine["log_offset"].to_numpy())),
                "first_timestamp": times["min"],
                "last_timestamp": times["max"],
                "committed_at": pc.max(mine["ingestion_timestamp"]).as_py() or _DAWN,
                **{name: mine[name][0].as_py() for name in _LINEAGE},
            }
        )
    return to_rows(LEDGER, entries)


_DAWN: Final = datetime(1970, 1, 1, tzinfo=UTC)
