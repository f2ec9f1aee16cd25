"""Records in total order: all that match, the newest N, or a page.

Comes in: a view and a selection. Goes out: rows, read from as few files as can hold the answer.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import numpy as np
import pyarrow as pa

from k2.errors import BadInput
from k2.lake import DataFileRef
from k2.query.hot import ALL, KEPT_ROWS, is_answer, newest, source_of
from k2.query.page import NO_COMMIT, Page
from k2.query.port import Engine, Source
from k2.query.predicate import Predicate, bounds, predicate, quoted
from k2.query.selection import Past, Selection, check_count
from k2.query.slices import Cut, read_slices
from k2.query.statements import statement
from k2.query.view import View
from k2.query.zones import from_us, to_us

_WIDEN: Final = 32
"""How much wider the next window of time is, where one held too few rows."""

_HEADROOM: Final = 4
_PART: Final = 32
"""Rows that the first window should hold per row wanted, of all symbols and of one alone, which is
a small part of all rows.
"""

_LEAST_ROWS: Final = 4096
"""Rows that the first window should hold at least: narrower ones cost as much to read, and miss
what lies behind a pause.
"""


@dataclass(frozen=True)
class Wanted:
    """Which of the matching records, and which of their columns (empty: the kind's own)."""

    last: int | None = None
    limit: int | None = None
    fields: tuple[str, ...] = ()


def question(kind: str, selection: Selection, wanted: Wanted, past: Past) -> str:
    """Text that tells this question from others: page tokens belong to it. A page may have any
    size.
    """
    return repr((kind, selection, wanted.last, wanted.fields, past))


def fetch_records(
    engine: Engine,
    view: View,
    selection: Selection,
    wanted: Wanted,
    *,
    after: Page | None = None,
) -> tuple[pa.Table, Page | None]:
    """The rows and where the next page begins (None: there is none).

    Raises `BadInput` for unknown fields and conditions, a `last` or `limit` below 1, or both.
    """
    _check(wanted)
    return _Fetch(engine, view, selection, wanted, after).rows()


def _check(wanted: Wanted) -> None:
    for name, value in (("last", wanted.last), ("limit", wanted.limit)):
        if value is not None:
            check_count(name, value)
    if wanted.last is not None and wanted.limit is not None:
        raise BadInput("last and limit exclude each other", hint="last N are the newest, in order")


def own_columns(view: View, wanted: Sequence[str] = ()) -> tuple[str, ...]:
    """The columns that are wanted, each once; where none is, the kind's own.

    Raises `BadInput` for one that there is not.
    """
    names = view.shown.names
    unknown = [name for name in wanted if name not in names]
    if unknown:
        raise BadInput(f"there is no column {unknown[0]!r}", expected=", ".join(names))
    own = names[: names.index("exchange_date")] if "exchange_date" in names else names
    beside = names[len(view.columns) :]
    return tuple(dict.fromkeys(wanted)) or (*own, *beside)


@dataclass(frozen=True)
class _Fetch:
    """One question on its way."""

    engine: Engine
    view: View
    selection: Selection
    wanted: Wanted
    after: Page | None

    def rows(self) -> tuple[pa.Table, Page | None]:
        fields = own_columns(self.view, self.wanted.fields)
        limit = self.wanted.last or self.wanted.limit
        if limit is None:
            return self._read(_Window(self._files(), None, None), fields, None).select(fields), None
        if self.wanted.last is not None:
            hot = self._hot(fields, limit)
            if hot is not None:
                return hot, None
            found = self._nearest(fields, limit, backwards=True)
            return found.slice(0, limit).select(fields), None
        order = [name for name in self.view.order if name not in fields]
        found = self._nearest((*fields, *order), limit + 1, backwards=False)
        page = found.slice(0, limit)
        following = self._page_after(page) if found.num_rows > limit else None
        return page.select(fields), following

    def _hot(self, fields: tuple[str, ...], limit: int) -> pa.Table | None:
        """The newest rows of one symbol, or of all, from memory; None where it does not tell."""
        view, symbols = self.view, self.selection.symbols
        if view.hot is None or len(symbols) > 1 or limit > KEPT_ROWS // 2:
            return None
        if view.known_at is not None or view.history:
            return None

        def fetch(bare: View, count: int) -> pa.Table:
            wanted = Wanted(last=count, fields=tuple(bare.columns.names))
            only = Selection(symbols)
            return _Fetch(self.engine, bare, only, wanted, None).rows()[0]

        kept = view.hot.of(view, symbols[0] if symbols else ALL, fetch)
        if kept is None:
            return None
        start = bounds(self.selection, view.exchanges).start
        timed = tuple(dict.fromkeys((*fields, view.time)))
        found = newest(view, kept, self.selection, timed, limit)
        if found is None and view.has_long_tail:
            return None
        if found is None:
            found = self._run((), timed, limit, backwards=True, source=source_of(view, kept))
        if not is_answer(found, view.time, limit, kept, start):
            return None
        return found.select(fields)

    def _files(self) -> tuple[DataFileRef, ...]:
        edge = bounds(self.selection, self.view.exchanges)
        start = edge.start
        if self.after is not None:
            key = _to_instant(self.after.key[0])
            start = key if start is None else max(start, key)
        return self.view.select(self.selection.symbols, times=(start, edge.end))

    def _nearest(self, fields: Sequence[str], limit: int, *, backwards: bool) -> pa.Table:
        """The first `limit` rows from one end of time, returned ascending."""
        found: pa.Table | None = None
        for window in self._windows(limit, backwards=backwards):
            found = self._read(window, fields, limit, backwards=backwards)
            if found.num_rows == limit:
                break
        assert found is not None
        return found

    def _read(
        self,
        window: "_Window",
        fields: Sequence[str],
        limit: int | None,
        *,
        backwards: bool = False,
    ) -> pa.Table:
        """The rows of a window, the first `limit` from one end of time, ascending: from decoded
        copies where there are such, else by the engine.
        """
        if self.view.copies is not None:
            key = None if self.after is None else self.after.key
            cut = Cut(limit, backwards, key, window.start, window.end)
            found = read_slices(self.view, self.selection, window.files, fields, cut)
            if found is not None:
                return found
        return self._run(window.files, fields, limit, window=window, backwards=backwards)

    def _windows(self, limit: int, *, backwards: bool) -> "Iterator[_Window]":
        """Ever wider spans of time from one end, the last without an edge.

        Rows outside a window are all beyond those within it, so the first window that holds enough
        rows holds the answer.
        """
        files = self._files()
        span = self.view.span(files)
        tail_rows = 0 if self.view.tail is None else self.view.tail.num_rows
        total = sum(file.rows for file in files) + tail_rows
        edge = bounds(self.selection, self.view.exchanges)
        symbols = len(self.selection.symbols)
        headroom = max(_HEADROOM, _PART // symbols) if symbols else _HEADROOM
        rows = max(limit * headroom, _LEAST_ROWS)
        if span is not None and total > rows:
            low = max(span[0], edge.start) if edge.start else span[0]
            if self.after is not None:
                low = max(low, _to_instant(self.after.key[0]))
            high = min(span[1], edge.end) if edge.end else span[1]
            width = (span[1] - span[0]) * (rows / total) + timedelta(microseconds=1)
            while width < high - low:
                if backwards:
                    yield _Window(reaching(files, high - width, None), high - width, None)
                else:
                    yield _Window(reaching(files, None, low + width), None, low + width)
                width *= _WIDEN
        yield _Window(files, None, None)

    def _run(
        self,
        files: Sequence[DataFileRef],
        fields: Sequence[str],
        limit: int | None,
        *,
        window: "_Window | None" = None,
        backwards: bool = False,
        source: Source | None = None,
    ) -> pa.Table:
        view = self.view
        made = predicate(self.selection, view.shown, view.time, view.exchanges)
        if window is not None and window.start is not None:
            made.add(f"{view.time} >= {made.bind(window.start)}")
        if window is not None and window.end is not None:
            made.add(f"{view.time} < {made.bind(window.end)}")
        if self.after is not None:
            add_key(made, view.order, self.after.key)
        direction = " desc" if backwards else ""
        found = self.engine.run(
            statement(
                "records",
                {**made.values, "row_limit": limit},
                columns=", ".join(quoted(name) for name in fields),
                predicate=made.text,
                order=", ".join(name + direction for name in view.order),
            ),
            {"rows": source or view.source(files, self._times(window))},
        )
        return _reversed(found) if backwards else found

    def _times(self, window: "_Window | None") -> tuple[datetime | None, datetime | None]:
        """Between which times any row of the answer is, half-open; None is open."""
        edge = bounds(self.selection, self.view.exchanges)
        starts, ends = [edge.start], [edge.end]
        if window is not None:
            starts, ends = [edge.start, window.start], [edge.end, window.end]
        low = [start for start in starts if start is not None]
        high = [end for end in ends if end is not None]
        return max(low, default=None), min(high, default=None)

    def _page_after(self, page: pa.Table) -> Page:
        last = page.slice(page.num_rows - 1).select(self.view.order).to_pylist()[0]
        key = (to_us(v) if isinstance(v, datetime) else v for v in last.values())
        beside = self.view.corrections
        return Page(
            self.view.pinned,
            tuple(key),
            NO_COMMIT if beside is None else beside.pinned,
            None if self.view.known_at is None else to_us(self.view.known_at),
        )


@dataclass(frozen=True)
class _Window:
    """Files that may hold rows of `[start, end)`; None is open."""

    files: Sequence[DataFileRef]
    start: datetime | None
    end: datetime | None


def reaching(
    files: Sequence[DataFileRef], start: datetime | None, end: datetime | None
) -> list[DataFileRef]:
    """Those of the files that may hold rows of times `[start, end)`; None is open."""
    low = None if start is None else to_us(start)
    high = None if end is None else to_us(end)
    return [
        file
        for file in files
        if (low is None or file.max_timestamp is None or file.max_timestamp >= low)
        and (high is None or file.min_timestamp is None or file.min_timestamp < high)
    ]


def _reversed(table: pa.Table) -> pa.Table:
    return table.take(pa.array(np.arange(table.num_rows - 1, -1, -1)))


def _to_instant(key: int | str) -> datetime:
    if not isinstance(key, int):
        raise BadInput("this page token is none of K2's")
    return from_us(key)


def add_key(made: Predicate, order: Sequence[str], key: Sequence[int | str]) -> None:
    """Rows after the key in the total order; its time alone, once more, for the files' bounds."""
    values = [_to_instant(key[0]), *key[1:]]
    bound = [made.bind(value) for value in values]
    made.add(f"{order[0]} >= {bound[0]}")
    made.add(f"({', '.join(order)}) > ({', '.join(bound)})")
