"""The records that stood beside others: for each, the one of a view that an as-of rule gives.

Comes in: keys of the records that ask, and a view. Goes out: a row for each of them, in their
order. Time is read backwards, window by window, until everyone has found its record: of a long
past no more than that is read, and never more than a window at once is in memory.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from k2.model import micros, plain_schema
from k2.query.asof import NONE, Column, Keys, Rule, match
from k2.query.knowledge import KNOWN_COLUMNS, known_at
from k2.query.port import Engine, Source, Statement
from k2.query.predicate import predicate, quoted
from k2.query.selection import Selection
from k2.query.statements import statement
from k2.query.view import View
from k2.query.zones import EARLIEST, LATEST, from_us, to_us

_MOST_ROWS: Final = 1_000_000
"""Rows that a window should hold at most."""

_LEAST_ROWS: Final = 8_192
"""Rows that should be looked back over at first, before the time of the first that asks."""

_WIDEN: Final = 32
_SPARE: Final = 4
"""So many times what is wanted of a window may be kept of it: to copy costs as well."""

_FEW_SYMBOLS: Final = 100
"""More are not named in the statement: all are read, and joined to those wanted."""

_NANOS_EDGE: Final = 2**63 // 1000 - 1
_OFFSET_BITS: Final = 48

PAIR: Final = ("symbol", "exchange")
KEY_COLUMNS: Final = (*KNOWN_COLUMNS, "timestamp_nanos")
"""Columns that records must have to ask, those of `PAIR` besides."""


@dataclass(frozen=True)
class Askers:
    """Records that ask what stood beside them: their keys, and the table of the pairs that these
    number (`pair`, `of_symbol`, `at_exchange`).
    """

    keys: Keys
    pairs: pa.Table


@dataclass(frozen=True)
class Beside:
    """What stood: `rows` in the order of those who asked, all null where nothing stood.

    `missing` tells where nothing did, `passed` where a later record was not taken, since it was not
    known yet.
    """

    rows: pa.Table
    missing: npt.NDArray[np.bool_]
    passed: npt.NDArray[np.bool_]


def number_pairs(*records: pa.Table) -> tuple[list[Column], pa.Table]:
    """For each of these tables the number of each row's symbol and exchange, and the table of the
    pairs that they number: `pair`, `of_symbol`, `at_exchange`.
    """
    names = pa.concat_tables([each.select(PAIR) for each in records])
    symbol, exchange = (names[name].dictionary_encode().combine_chunks() for name in PAIR)
    exchanges = max(1, len(exchange.dictionary))
    code = symbol.indices.to_numpy().astype(np.int64) * exchanges + exchange.indices.to_numpy()
    there = np.bincount(code) > 0
    codes = np.flatnonzero(there)
    pairs = pa.table(
        {
            "pair": pa.array(np.arange(len(codes))),
            "of_symbol": symbol.dictionary.take(pa.array(codes // exchanges)),
            "at_exchange": exchange.dictionary.take(pa.array(codes % exchanges)),
        }
    )
    number = (np.cumsum(there) - 1)[code]
    ends = np.cumsum([each.num_rows for each in records])
    return np.split(number, ends[:-1]), pairs


def askers(records: pa.Table) -> Askers:
    """These records (with `KEY_COLUMNS`) as those who ask."""
    (number,), pairs = number_pairs(records)
    zeros = np.zeros(len(number), np.int64)
    return Askers(Keys(number, event_nanos(records), known_at(records), zeros), pairs)


def find_beside(
    engine: Engine,
    view: View,
    asking: Askers,
    columns: tuple[str, ...],
    rule: Rule,
    max_age: timedelta | None = None,
) -> Beside:
    """These columns of the record in the view that stood beside each of those who ask.

    A record that is older than `max_age`, by event time, is not taken, and none before it.
    """
    age = None if max_age is None else to_nanos(max_age)
    return _Search(engine, view, asking, columns, rule, age).run()


@dataclass(frozen=True)
class _Search:
    """One search on its way; `max_age` is in nanoseconds."""

    engine: Engine
    view: View
    asking: Askers
    columns: tuple[str, ...]
    rule: Rule
    max_age: int | None

    def run(self) -> Beside:
        keys = self.asking.keys
        kept = _Kept(len(keys), self._nothing())
        waiting = np.arange(len(keys))
        windows = self._windows()
        while len(waiting) and windows.left:
            start, end = windows.take()
            rows = self._read(np.unique(keys.pair[waiting]), start, end)
            right = _keys(rows)
            found, passed = match(keys.take(waiting), right, self.rule)
            kept.passed[waiting] |= passed
            there = found != NONE
            fresh = there & ~self._too_old(keys.time[waiting], right.time, found)
            kept.keep(rows.select(self.columns), found[fresh], waiting[fresh])
            waiting = waiting[~there]
            if self.max_age is not None:
                waiting = waiting[keys.time[waiting] - self.max_age < start * 1000]
            if len(waiting):
                windows.held(rows.num_rows, int(keys.time[waiting].max()) // 1000)
        return kept.to_beside()

    def _too_old(self, asked: Column, times: Column, found: Column) -> npt.NDArray[np.bool_]:
        if self.max_age is None or not len(times):
            return np.zeros(len(found), np.bool_)
        return asked - times[found] > self.max_age

    def _windows(self) -> "_Windows":
        times = self.asking.keys.time
        if not len(times):
            return _Windows(0, 0, 0, 1, 1)
        low, high = int(times.min()) // 1000, int(times.max()) // 1000 + 1
        files = self.view.select(self._few(self.asking.pairs), times=(None, _instant(high)))
        span = self.view.span(files)
        if span is None:
            return _Windows(high, low, high, 1, 1)
        floor = to_us(span[0])
        if self.max_age is not None:
            floor = max(floor, low - self.max_age // 1000 - 1)
        tail_rows = 0 if self.view.tail is None else self.view.tail.num_rows
        total = max(1, sum(file.rows for file in files) + tail_rows)
        width = to_us(span[1]) - to_us(span[0]) + 1
        least, most = (max(1, width * rows // total) for rows in (_LEAST_ROWS, _MOST_ROWS))
        return _Windows(floor, low, high, least, most)

    def _read(self, pairs: npt.NDArray[np.int64], start: int, end: int) -> pa.Table:
        """The records of these pairs at times (microseconds) of `[start, end)`."""
        wanted = self.asking.pairs.take(pa.array(pairs))
        symbols = self._few(wanted)
        times = (_instant(start), _instant(end))
        files = self.view.select(symbols, times=times)
        return self.engine.run(
            self._statement(wanted, symbols, times),
            self._sources(self.view.source(files), wanted),
        )

    def _statement(
        self, pairs: pa.Table, symbols: tuple[str, ...], times: tuple[datetime, datetime]
    ) -> Statement:
        one = pairs.num_rows == 1
        exchanges = tuple(pairs["at_exchange"].to_pylist()) if one else ()
        view = self.view
        made = predicate(Selection(symbols, exchanges), view.columns, view.time, view.exchanges)
        for edge, operator in zip(times, (">=", "<"), strict=True):
            made.add(f"{view.time} {operator} {made.bind(edge)}")
        pair, source = (
            "pair",
            "{rows} join {pairs} on symbol = of_symbol and exchange = at_exchange",
        )
        if one:
            # Known beforehand: to look up both names for each row costs as much as all the rest.
            pair, source = f"{made.bind(pairs['pair'][0].as_py())}::bigint", "{rows}"
        names = dict.fromkeys((*self.columns, *KEY_COLUMNS, "log_partition", "log_offset"))
        return statement(
            "columns",
            made.values,
            columns=", ".join([f"{pair} as pair", *(quoted(name) for name in names)]),
            source=source,
            predicate=made.text,
        )

    def _sources(self, rows: Source, pairs: pa.Table) -> dict[str, Source | pa.Table]:
        return {"rows": rows} if pairs.num_rows == 1 else {"rows": rows, "pairs": pairs}

    def _few(self, pairs: pa.Table) -> tuple[str, ...]:
        """The symbols of these pairs, if they are few enough to be named."""
        symbols = pc.unique(pairs["of_symbol"])
        return tuple(symbols.to_pylist()) if len(symbols) <= _FEW_SYMBOLS else ()

    def _nothing(self) -> pa.Table:
        """No rows, with the columns that are wanted."""
        return plain_schema(self.view.columns.field(n) for n in self.columns).empty_table()


class _Windows:
    """Windows of time (microseconds), the newest first, down to `floor`.

    All but the last few reach over the time of those who ask, from `high` down to `low`; then ever
    wider ones look back, from `least` on. None is wider than `most`, which follows what was held.
    """

    def __init__(self, floor: int, low: int, high: int, least: int, most: int) -> None:
        self._floor, self._low, self._end = floor, low, high
        self._least, self._most = least, most
        self._width = 0

    @property
    def left(self) -> bool:
        """Whether there is one more."""
        return self._end > self._floor

    def take(self) -> tuple[int, int]:
        """The next window, `[start, end)`."""
        end = self._end
        width = min(max(0, end - self._low) + self._least, self._most)
        start = max(self._floor, end - width)
        if start <= self._low:
            self._least *= _WIDEN
        self._width, self._end = end - start, start
        return start, end

    def held(self, rows: int, newest: int) -> None:
        """The window held so many rows; of those who ask still, `newest` is the latest time."""
        fitting = self._width * _MOST_ROWS // max(1, rows)
        self._most = max(1, min(self._most * _WIDEN, fitting))
        self._end = min(self._end, newest + 1)


class _Kept:
    """What was found so far: parts of windows, and which of their rows each of `count` gets."""

    def __init__(self, count: int, nothing: pa.Table) -> None:
        self._parts = [nothing]
        self._held = 0
        self._index = np.full(count, NONE, np.int64)
        self.passed = np.zeros(count, np.bool_)

    def keep(self, rows: pa.Table, found: Column, who: npt.NDArray[np.intp]) -> None:
        """Give each of `who` its row: the one at this index."""
        if not len(found):
            return
        if rows.num_rows > _SPARE * len(found):
            taken, found = np.unique(found, return_inverse=True)
            rows = rows.take(pa.array(taken))
        self._parts.append(rows.cast(self._parts[0].schema))
        self._index[who] = found + self._held
        self._held += rows.num_rows

    def to_beside(self) -> Beside:
        """A row for each."""
        missing = self._index == NONE
        rows = pa.concat_tables(self._parts).combine_chunks()
        return Beside(rows.take(pa.array(self._index, mask=missing)), missing, self.passed)


def _keys(rows: pa.Table) -> Keys:
    place = rows["log_partition"].to_numpy().astype(np.int64) << _OFFSET_BITS
    return Keys(
        rows["pair"].to_numpy(),
        event_nanos(rows),
        known_at(rows),
        place + rows["log_offset"].to_numpy(),
    )


def event_nanos(records: pa.Table) -> Column:
    """Event times in nanoseconds. Beyond the years 1678 to 2261 they are not told apart."""
    happened = np.clip(micros(records["timestamp"]), -_NANOS_EDGE, _NANOS_EDGE)
    return happened * 1000 + records["timestamp_nanos"].to_numpy()


def to_nanos(length: timedelta) -> int:
    """A length of time in nanoseconds."""
    return length // timedelta(microseconds=1) * 1000


def _instant(microseconds: int) -> datetime:
    return from_us(min(max(microseconds, EARLIEST), LATEST))
