"""Gaps of trades, asked of the venue again: what it gives goes into the log, once.

Comes in: the gap ledger and the tables. Goes out: for each range of ids that is still missing, its
trades from the venue's history, and an entry in the ledger for what the venue does not have.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import groupby

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from k2.feeds import Records
from k2.feeds.live.past import Range, refill, venue_of
from k2.ingest.gaps import Entry, of_kept_days, present_ids, read_entries
from k2.lake import Lake
from k2.log import Producer, Sent
from k2.model import TIMESTAMP_TYPE, Exchange, micros


@dataclass(frozen=True)
class Missing:
    """Trades that the tables do not have, by the venue's own numbers; `source` is the feed that
    noticed.
    """

    exchange: str
    source: str
    range: Range

    @property
    def count(self) -> int:
        """How many trades."""
        return self.range.last - self.range.first + 1


@dataclass(frozen=True)
class Gaps:
    """What is missing, and the ranges (exchange, symbol, first, last) that the ledger has."""

    missing: Sequence[Missing]
    told: Collection[tuple[str, str, int, int]]


@dataclass(frozen=True)
class Backfilled:
    """Of one symbol: trades that were missing, that the venue gave, and that it does not have.

    `has_history`: False where there is nobody to ask.
    """

    exchange: str
    symbol: str
    missing: int = 0
    given: int = 0
    lacking: int = 0
    has_history: bool = True


def find_gaps(lake: Lake, exchanges: Collection[str], symbols: Collection[str]) -> Gaps:
    """Trades within the ledger's gaps that no commit has brought, of these exchanges and symbols
    (of all, where none is named), by exchange and symbol, ascending.

    Gaps without a known range are left out, and so are those that no venue is asked about: shed
    records stand in the log, and other spaces of ids in archives. What is of days that are not kept
    is not missing.
    """
    paths = [file.path for file in lake.ledger_files("gaps")]
    entries = [
        entry
        for entry in read_entries(paths, "trades", exchanges, symbols)
        if not entry.id_space and entry.cause != "shed"
    ]
    kept = of_kept_days(lake, "trades", entries)
    found: list[Missing] = []
    for (exchange, symbol), group in groupby(kept, key=lambda e: (e.exchange, e.symbol)):
        mine = list(group)
        ids, times = present_ids(lake, exchange, symbol, mine)
        found += [each for entry in _merged(mine) for each in _holes(entry, ids, times)]
    return Gaps(found, {(e.exchange, e.symbol, e.first, e.last) for e in entries})


def _merged(entries: Sequence[Entry]) -> list[Entry]:
    """Entries of one symbol, those that overlap as one."""
    found: list[Entry] = []
    for entry in entries:
        before = found[-1] if found else None
        if before is None or entry.first > before.last:
            found.append(entry)
        elif entry.last > before.last:
            # A feed that noticed knows why.
            cause = entry.cause if before.cause == "unknown" else before.cause
            found[-1] = replace(before, last=entry.last, before=entry.before, cause=cause)
    return found


def _holes(
    entry: Entry, ids: npt.NDArray[np.int64], times: npt.NDArray[np.int64]
) -> Iterator[Missing]:
    """What of the entry is not among `ids`."""
    low, high = np.searchsorted(ids, [entry.first, entry.last + 1])
    had = [entry.first - 1, *ids[low:high].tolist(), entry.last + 1]
    when = [times[low - 1] if low else 0, *times[low:high].tolist()]
    if entry.after is not None:
        when[0] = int(micros(pa.chunked_array([[entry.after]], TIMESTAMP_TYPE))[0])
    for at in np.flatnonzero(np.diff(had) > 1).tolist():
        after = int(when[at]) * 1000
        wanted = Range(entry.symbol, had[at] + 1, had[at + 1] - 1, after, entry.cause)
        yield Missing(entry.exchange, entry.source, wanted)


class Backfill:
    """One run over the gaps. `sent`: where in the log what came of it stands."""

    def __init__(
        self,
        producer: Producer,
        gaps: Gaps,
        rest: str | None,
        clock: Callable[[], datetime],
    ) -> None:
        self.sent: list[Sent] = []
        self._producer = producer
        self._gaps = gaps
        self._rest = rest
        self._clock = clock
        self._lines: dict[tuple[str, str], Backfilled] = {}

    def run(
        self, stop: Callable[[], bool], tell: Callable[[int, int], None] = lambda done, total: None
    ) -> list[Backfilled]:
        """Ask each venue for what is missing until all is asked or `stop()`; a line a symbol.

        What was appended when it was stopped stays, and the next run asks for the rest. `tell` is
        told how many trades were given or are known to be lacking, of how many.
        """
        missing = sorted(self._gaps.missing, key=lambda m: (m.source, m.exchange))
        for each in missing:
            self._count(each.exchange, each.range.symbol, missing=each.count)
        total = sum(each.count for each in missing)
        for (source, exchange), group in groupby(missing, key=lambda m: (m.source, m.exchange)):
            ranges = [each.range for each in group]
            venue = venue_of(source, sorted({r.symbol for r in ranges}), self._rest)
            if venue is None or venue.exchange.name != exchange:
                for wanted in ranges:
                    self._count(exchange, wanted.symbol, has_history=False)
                continue
            for wanted, found in refill(venue, ranges, self._clock, stop):
                for records in found:
                    self._take(venue.exchange, wanted.symbol, records)
                tell(sum(line.given + line.lacking for line in self._lines.values()), total)
        return [line for _, line in sorted(self._lines.items())]

    def _take(self, exchange: Exchange, symbol: str, records: Records) -> None:
        table = records.table
        if records.kind == "trades":
            self._count(exchange.name, symbol, given=table.num_rows)
        elif records.kind == "gaps":
            width = pc.subtract(table["last_missing"], table["first_missing"])
            self._count(exchange.name, symbol, lacking=pc.sum(width).as_py() + table.num_rows)
            names = ("exchange", "symbol", "first_missing", "last_missing")
            rows = zip(*(table[name].to_pylist() for name in names), strict=True)
            # What the ledger says already is not said again.
            table = table.filter(pa.array([row not in self._gaps.told for row in rows]))
        self.sent += self._producer.send(exchange, records.kind, table)

    def _count(
        self,
        exchange: str,
        symbol: str,
        *,
        missing: int = 0,
        given: int = 0,
        lacking: int = 0,
        has_history: bool = True,
    ) -> None:
        line = self._lines.setdefault((exchange, symbol), Backfilled(exchange, symbol))
        self._lines[exchange, symbol] = replace(
            line,
            missing=line.missing + missing,
            given=line.given + given,
            lacking=line.lacking + lacking,
            has_history=line.has_history and has_history,
        )
