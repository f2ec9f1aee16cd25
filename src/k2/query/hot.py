"""Hot rows: the newest committed rows of symbols that are asked for, kept in memory.

Comes in: views, each of a later commit than the last. Goes out: every row from some time on, in
total order; with the tail, the newest ones. A symbol is kept once it was asked for; what later
commits bring is read from their files, once for all symbols. What is kept is never a guess: rows
before its time, and states of the past, are read from files.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from k2.lake import DataFileRef
from k2.model import micros, plain_schema, plain_type
from k2.query.port import Source
from k2.query.predicate import edges_of
from k2.query.rows import in_order, positions, taken
from k2.query.selection import Selection
from k2.query.view import View, defaults_of
from k2.query.zones import to_us

KEPT_ROWS: Final = 512
"""Rows that are kept of a symbol when it is first asked for."""
_GROWN: Final = 4
"""By so much they may grow before the oldest are dropped."""
_CAUGHT_UP_ROWS: Final = 200_000
"""Rows of new files up to which these are read; beyond it, all begins anew."""
ALL: Final = ""
"""In place of a symbol: all of them."""

Fetch = Callable[[View, int], pa.Table]
"""The newest rows of a symbol in the view, so many, with all columns, oldest first."""


@dataclass(frozen=True)
class Rows:
    """Every committed row of a symbol at or after `since` (microseconds; None: every row), in
    total order.
    """

    table: pa.Table
    since: int | None


class Hot:
    """The hot rows of one table: at most `most_rows` in all. Any thread may ask."""

    def __init__(self, most_rows: int) -> None:
        self._most_rows = most_rows
        self._lock = threading.Lock()
        self._sequence = 0
        self._kept: OrderedDict[str, Rows] = OrderedDict()

    def of(self, view: View, symbol: str, fetch: Fetch) -> Rows | None:
        """The symbol's rows in the view's snapshot; None where the view is of another state."""
        if view.pin is not None or not view.sequence:
            return None
        with self._lock:
            if not self._advance(view):
                return None
            found = self._kept.get(symbol)
            if found is not None:
                self._kept.move_to_end(symbol)
                return found
        # Not under the lock: it reads files. Whoever else does the same finds the same.
        bare = replace(view, tail=None, ranges=(), corrections=None, standing=None, hot=None)
        newest = fetch(bare, KEPT_ROWS)
        made = _from(newest, view.time, KEPT_ROWS)
        with self._lock:
            if self._sequence == view.sequence:
                self._kept[symbol] = made
                self._bound()
        return made

    def _advance(self, view: View) -> bool:
        """Take in what was committed since; whether what is kept is of the view's snapshot now."""
        if view.sequence < self._sequence:
            return False
        if view.sequence > self._sequence:
            if view.retirement > self._sequence:
                self._kept.clear()  # rows of these may be among those that went
            if self._kept:
                files = view.index.since(self._sequence)
                if sum(file.rows for file in files) > _CAUGHT_UP_ROWS:
                    self._kept.clear()
                for file in files if self._kept else ():
                    self._take(view, file)
            self._sequence = view.sequence
        return True

    def _take(self, view: View, file: DataFileRef) -> None:
        rows = _read(view, file)
        later = pc.greater(
            pc.fill_null(rows["commit_sequence"], file.sequence), pa.scalar(self._sequence)
        )
        rows = rows.filter(later)
        names = rows["symbol"].unique().to_pylist()
        for symbol in [name for name in (*names, ALL) if name in self._kept]:
            mine = rows if symbol == ALL else rows.filter(pc.equal(rows["symbol"], symbol))
            kept = self._kept[symbol]
            if kept.since is not None:
                since = pa.scalar(kept.since, pa.timestamp("us", "UTC"))
                mine = mine.filter(pc.greater_equal(mine[view.time], since))
            joined = in_order(pa.concat_tables([kept.table, mine]), view.order).combine_chunks()
            if joined.num_rows > _GROWN * KEPT_ROWS:
                newest = joined.slice(joined.num_rows - 2 * KEPT_ROWS)
                self._kept[symbol] = _from(newest, view.time, newest.num_rows)
            else:
                self._kept[symbol] = Rows(joined, kept.since)

    def _bound(self) -> None:
        while sum(kept.table.num_rows for kept in self._kept.values()) > self._most_rows:
            self._kept.popitem(last=False)


def _from(newest: pa.Table, time: str, wanted: int) -> Rows:
    """The rows as such of a symbol: where there may be older ones, those of the first moment are
    left out, since not all of that moment may be there.
    """
    if newest.num_rows < wanted:
        return Rows(newest, None)
    since = to_us(pc.min(newest[time]).as_py()) + 1
    begin = pa.scalar(since, pa.timestamp("us", "UTC"))
    return Rows(newest.filter(pc.greater_equal(newest[time], begin)).combine_chunks(), since)


def _read(view: View, file: DataFileRef) -> pa.Table:
    return _shaped(view, pq.ParquetFile(file.path).read(), view.columns.names)


def _shaped(view: View, rows: pa.Table, names: Sequence[str]) -> pa.Table:
    """These columns of the rows as plain ones, those that the rows lack included."""
    defaults = defaults_of(view.table)
    columns: list[Any] = []
    for name in names:
        kind = plain_type(view.columns.field(name).type)
        lacking = name not in rows.column_names
        column = pa.nulls(rows.num_rows, kind) if lacking else rows[name].cast(kind)
        if name in defaults and column.null_count:
            column = pc.fill_null(column, pa.scalar(defaults[name], kind))
        columns.append(column)
    return pa.table(columns, names=list(names))


def newest(
    view: View, rows: Rows, selection: Selection, names: Sequence[str], limit: int
) -> pa.Table | None:
    """The newest of hot rows and tail that are selected, in total order: a symbol's, which the
    rows are of, or all. None where more has to be known of each row than its exchange and time.
    """
    if selection.where or selection.sessions is not None or view.standing is not None:
        return None
    edges = edges_of(selection, view.exchanges)
    if view.beyond is not None or any(len(set(edge)) > 1 for edge in edges):
        return None
    needed = list(dict.fromkeys((*names, *view.order)))
    found = _last(rows.table.select(needed), _selected(rows.table, view, selection, edges), limit)
    if view.tail is not None:
        chosen = _selected(view.tail, view, selection, edges, of_all=True)
        new = _last(view.tail, _latest(view.tail.select([view.time]), chosen, limit), None)
        if new.num_rows:
            found = in_order(pa.concat_tables([found, _shaped(view, new, needed)]), view.order)
            found = found.slice(max(0, found.num_rows - limit))
    return found


Edges = tuple[tuple[datetime, ...], tuple[datetime, ...]]


def _selected(
    rows: pa.Table, view: View, selection: Selection, edges: Edges, *, of_all: bool = False
) -> pa.Array | None:
    """Numbers of the rows that are selected, ascending; None: all are. `of_all`: the rows are not
    of the selected symbol alone.
    """
    found: Any = None
    if of_all and selection.symbols:
        found = positions(rows["symbol"], selection.symbols)
    if selection.exchanges:
        here = rows.select(["exchange"])
        here = here if found is None else taken(here, found)
        chosen = positions(here["exchange"], selection.exchanges)
        found = chosen if found is None else found.take(chosen)
    for edge, inside in zip(edges, (pc.greater_equal, pc.less), strict=True):
        for instant in edge[:1]:
            times = rows.select([view.time])
            times = times if found is None else taken(times, found)
            within = inside(times[view.time], pa.scalar(instant, pa.timestamp("us", "UTC")))
            chosen = pc.indices_nonzero(within)
            found = chosen if found is None else found.take(chosen)
    return found


def _latest(times: pa.Table, numbers: pa.Array | None, limit: int) -> pa.Array | None:
    """Of the rows of these numbers (None: all), the `limit` latest, and all of one time with the
    first of these: a tail may be long, and stands in the order of the log.
    """
    when = micros((times if numbers is None else taken(times, numbers)).column(0))
    if len(when) <= limit:
        return numbers
    least = np.partition(when, len(when) - limit)[len(when) - limit]
    latest = pa.array(np.flatnonzero(when >= least))
    return latest if numbers is None else numbers.take(latest)


def _last(rows: pa.Table, numbers: pa.Array | None, limit: int | None) -> pa.Table:
    if numbers is None:
        return rows if limit is None else rows.slice(max(0, rows.num_rows - limit))
    return taken(rows, numbers if limit is None else numbers[max(0, len(numbers) - limit) :])


def source_of(view: View, rows: Rows) -> Source:
    """The hot rows and the tail as a source without files, with all that the view does to rows."""
    joined = rows.table
    if view.tail is not None:
        tail = view.tail.cast(plain_schema(view.tail.schema))
        joined = pa.concat_tables([joined, tail], promote_options="permissive")
    return replace(view.source(()), tail=joined, rows=joined.num_rows)


def is_answer(found: pa.Table, time: str, wanted: int, rows: Rows, start: datetime | None) -> bool:
    """Whether the newest that were found in hot rows and tail, from `start` on, are so of all."""
    if rows.since is None or (start is not None and to_us(start) >= rows.since):
        return True
    return found.num_rows >= wanted and to_us(pc.min(found[time]).as_py()) >= rows.since
