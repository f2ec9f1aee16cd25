"""One kind's records of one state in total order, stretch by stretch of time, in bounded memory.

Comes in: a way to look at the state, and a selection. Goes out: tables of a bounded number of rows.
The state is looked at anew for each stretch, since files are compacted and deleted meanwhile.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from k2.lake import DataFileRef
from k2.query.port import Engine
from k2.query.position import Key
from k2.query.predicate import bounds, predicate, quoted
from k2.query.records import add_key
from k2.query.selection import Selection
from k2.query.statements import statement
from k2.query.view import View
from k2.query.zones import EARLIEST, LATEST, from_us, to_us

LINEAGE: Final = ("log_topic", "log_id", "log_partition", "log_offset")
"""Columns that say where in the log a record stands."""

_WIDEN: Final = 4
_LEAP: Final = 32
"""How much wider a stretch is after one with few rows, or with none."""

_SPARSE: Final = 8
"""A stretch with fewer rows than one in so many that it may have makes the next one wider."""

Times = npt.NDArray[np.int64]
Look = Callable[[Selection | None], View]
"""The state, with what corrections made of the trades of a selection (None: as they came)."""


def columns_of(view: View) -> tuple[str, ...]:
    """The kind's own columns, as `records` gives them."""
    names = view.columns.names
    return tuple(names[: names.index("exchange_date")])


def fetch(
    engine: Engine,
    view: View,
    selection: Selection,
    *,
    rows: int,
    columns: Sequence[str] = (),
    files: Sequence[DataFileRef] | None = None,
    within: tuple[datetime | None, datetime | None] = (None, None),
    after: Key | None = None,
) -> pa.Table:
    """The first `rows` records in total order, after the one of that key, with their lineage (or
    with these `columns`).

    `files` are those that may hold records `within` times, half-open; None: all that may.
    """
    made = predicate(selection, view.shown, view.time, view.exchanges)
    for edge, operator in zip(within, (">=", "<"), strict=True):
        if edge is not None:
            made.add(f"{view.time} {operator} {made.bind(edge)}")
    if after is not None:
        add_key(made, view.order, after)
    chosen = view.select(selection.symbols, times=within) if files is None else files
    return engine.run(
        statement(
            "records",
            {**made.values, "row_limit": rows},
            columns=", ".join(quoted(name) for name in columns or (*columns_of(view), *LINEAGE)),
            predicate=made.text,
            order=", ".join(view.order),
        ),
        {"rows": view.source(chosen)},
    )


def stretches(
    engine: Engine,
    look: Look,
    selection: Selection,
    *,
    rows: int,
    after: Key | None,
    columns: Sequence[str] = (),
) -> Iterator[pa.Table]:
    """All records after the one of that key (None: all), in total order, at most `rows` a table,
    with their lineage (or with these `columns`, those of the order among them).

    No table is empty. `rows` should be some thousands: even a stretch of one takes as long.
    """
    view = look(None)
    edge = bounds(selection, view.exchanges)
    spans = _Spans.of(view, view.select(selection.symbols, times=(edge.start, edge.end)))
    if not len(spans.starts):
        return
    low = max([int(spans.starts.min()), *_given(edge.start), *map(int, (after or ())[:1])])
    high = min([int(spans.ends.max()) + 1, *_given(edge.end)])
    width = max(1, (high - low) * (rows // 2) // spans.rows)
    while (begin := spans.first(low)) is not None and begin < high:
        end = min(begin + width, high)
        within = (from_us(begin), from_us(end))
        # Corrections of this stretch alone: of all of them, each stretch would pay for all.
        view = look(replace(selection, start=within[0], end=within[1]))
        found = fetch(
            engine, view, selection, rows=rows, columns=columns, within=within, after=after
        )
        if found.num_rows:
            yield found
            after = key_of(found, view.order, found.num_rows - 1)
        if found.num_rows == rows:
            # There may be more within: what follows is as dense, as far as is known.
            low = int(micros_of(found[view.time])[-1])
            width = max(1, low - begin)
        else:
            low = end
            if found.num_rows < max(1, rows // _SPARSE):
                width *= _WIDEN if found.num_rows else _LEAP


def key_of(table: pa.Table, order: Sequence[str], row: int) -> Key:
    """The order columns of a row, times as microseconds UTC."""
    (values,) = table.select(list(order)).slice(row, 1).to_pylist()
    return tuple(to_us(v) if isinstance(v, datetime) else v for v in values.values())


def micros_of(column: pa.ChunkedArray) -> Times:
    """Times as microseconds UTC."""
    return column.cast(pa.timestamp("us", "UTC")).cast(pa.int64()).to_numpy()


@dataclass(frozen=True)
class _Spans:
    """When there may be records: first and last time of each file, and each time of the tail, in
    microseconds. `rows` is how many there are at most.
    """

    starts: Times
    ends: Times
    rows: int

    @classmethod
    def of(cls, view: View, files: Sequence[DataFileRef]) -> "_Spans":
        tail = np.zeros(0, np.int64) if view.tail is None else micros_of(view.tail[view.time])
        starts = [EARLIEST if f.min_timestamp is None else f.min_timestamp for f in files]
        ends = [LATEST if f.max_timestamp is None else f.max_timestamp for f in files]
        return cls(
            np.concatenate([np.array(starts, np.int64), tail]),
            np.concatenate([np.array(ends, np.int64), tail]),
            max(1, sum(file.rows for file in files) + len(tail)),
        )

    def first(self, low: int) -> int | None:
        """The earliest time from `low` on at which a record may be; None: there is none."""
        left = self.starts[self.ends >= low]
        return max(low, int(left.min())) if len(left) else None


def _given(edge: datetime | None) -> list[int]:
    return [] if edge is None else [to_us(edge)]
