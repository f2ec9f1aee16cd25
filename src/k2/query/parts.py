"""All records that match, in total order, part by part: memory holds one part, however many there
are.

Comes in: a view and a selection. Goes out: tables. Each part is a window of time that holds about
as many rows as a part may have, as the files' bounds tell it; where more happened in it, the window
is read in several goes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from k2.lake import DataFileRef
from k2.query.port import Engine
from k2.query.predicate import bounds, predicate, quoted
from k2.query.records import reaching
from k2.query.selection import Selection
from k2.query.statements import statement
from k2.query.view import View
from k2.query.zones import EARLIEST, LATEST, from_us, to_us

PART_ROWS: Final = 500_000
"""Rows of a part, at most: some 100 MB of them."""

_WIDEN: Final = 4
"""How many windows become one, where one held too few rows."""

Key = tuple[object, ...]


def read_parts(
    engine: Engine,
    view: View,
    selection: Selection,
    fields: Sequence[str],
    *,
    after: Sequence[int | str] | None = None,
    rows: int = PART_ROWS,
) -> Iterator[pa.Table]:
    """The records with these columns, `rows` at most in each part; a part may be empty.

    `after` are the order columns (the time in microseconds UTC) of the row behind which to begin.
    Rows of two logs that share every one of them come in the order of the logs' ids.
    """
    key: Key | None = None
    if after is not None:
        key = (from_us(int(after[0])), *after[1:])
    reading = _Reading(engine, view, selection, tuple(fields), rows, key)
    edges = [None, *reading.edges(), None]
    at, stride = 0, 1
    while at < len(edges) - 1:
        behind = min(at + stride, len(edges) - 1)
        found = 0
        for part in reading.window(_Window(edges[at], edges[behind])):
            found += part.num_rows
            yield part
        # Of few symbols there is less than the files hold.
        if found * _WIDEN < rows:
            stride *= _WIDEN
        elif found > rows:
            stride = max(1, stride // _WIDEN)
        at = behind


@dataclass(frozen=True)
class _Window:
    """Times `[start, end)`; None is open."""

    start: datetime | None
    end: datetime | None


@dataclass(frozen=True)
class _Reading:
    """One question on its way; `key` is the row behind which it begins."""

    engine: Engine
    view: View
    selection: Selection
    fields: tuple[str, ...]
    rows: int
    key: Key | None

    def edges(self) -> list[datetime]:
        """Times between which lie about as many rows as in a part, as if those of each file lay
        evenly between its first and its last.
        """
        spans = [
            (
                EARLIEST if file.min_timestamp is None else file.min_timestamp,
                LATEST if file.max_timestamp is None else file.max_timestamp,
                file.rows,
            )
            for file in self._files()
        ]
        tail = self.view.tail
        if tail is not None and (span := self.view.span(())) is not None:
            spans.append((to_us(span[0]), to_us(span[1]), tail.num_rows))
        start, end = self._times()
        low = EARLIEST if start is None else to_us(start)
        high = LATEST if end is None else to_us(end)
        return [from_us(edge) for edge in _edges(spans, low, high, self.rows)]

    def window(self, window: _Window) -> Iterator[pa.Table]:
        """The rows of a window, in parts."""
        files = reaching(self._files(), window.start, window.end)
        key = self.key
        while True:
            found = self._run(files, window, key)
            part = found.slice(0, self.rows)
            yield part.select(self.fields)
            if found.num_rows <= self.rows:
                return
            last = part.slice(part.num_rows - 1).select(self._order).to_pylist()[0]
            key = tuple(last.values())

    @property
    def _order(self) -> tuple[str, ...]:
        # Only in a topic that was made anew may two rows have the same place.
        return (*self.view.order, "log_id")

    def _times(self) -> tuple[datetime | None, datetime | None]:
        edge = bounds(self.selection, self.view.exchanges)
        if self.key is None:
            return edge.start, edge.end
        begin = self.key[0]
        assert isinstance(begin, datetime)
        return (begin if edge.start is None else max(edge.start, begin)), edge.end

    def _files(self) -> tuple[DataFileRef, ...]:
        return self.view.select(self.selection.symbols, times=self._times())

    def _run(self, files: Sequence[DataFileRef], window: _Window, key: Key | None) -> pa.Table:
        view, order = self.view, self._order
        made = predicate(self.selection, view.shown, view.time, view.exchanges)
        for edge, operator in ((window.start, ">="), (window.end, "<")):
            if edge is not None:
                made.add(f"{view.time} {operator} {made.bind(edge)}")
        if key is not None:
            bound = [made.bind(value) for value in key]
            made.add(f"{view.time} >= {bound[0]}")
            made.add(f"({', '.join(order[: len(key)])}) > ({', '.join(bound)})")
        columns = (*self.fields, *(name for name in order if name not in self.fields))
        return self.engine.run(
            statement(
                "records",
                {**made.values, "row_limit": self.rows + 1},
                columns=", ".join(quoted(name) for name in columns),
                predicate=made.text,
                order=", ".join(order),
            ),
            {"rows": view.source(files)},
        )


def _edges(spans: Sequence[tuple[int, int, int]], low: int, high: int, rows: int) -> list[int]:
    """Times (microseconds) that cut `[low, high)` into pieces of about so many rows of these spans,
    each `(first, last, rows)`.
    """
    if not spans:
        return []
    first, last, count = (np.array(of, np.float64) for of in zip(*spans, strict=True))
    slope = count / (last - first + 1)
    first, last = np.clip(first, low, high), np.clip(last + 1, low, high)
    points: npt.NDArray[np.float64] = np.concatenate([first, last])
    turns = np.concatenate([slope, -slope])
    ordered = np.argsort(points, kind="stable")
    points = points[ordered]
    rising = np.cumsum(turns[ordered])[:-1] * np.diff(points)
    # Rounding may leave a slope of next to nothing below zero, where none is.
    reached = np.concatenate([[0.0], np.cumsum(np.maximum(rising, 0.0))])
    wanted = np.arange(rows, reached[-1], rows, dtype=np.float64)
    edges = np.interp(wanted, reached, points)
    return sorted({int(edge) for edge in edges})
