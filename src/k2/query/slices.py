"""Records read from decoded copies: each symbol's between two times is a slice of its file's copy.

Comes in: a view whose files have copies, and a selection. Goes out: the rows in total order, as
the engine would give them, or None where only the engine can tell.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from k2.lake import DataFileRef
from k2.model import micros, plain_schema, plain_type
from k2.query.decoded import Copy
from k2.query.narrow import Span, tail_within
from k2.query.port import Source
from k2.query.predicate import edges_of, literal, predicate
from k2.query.selection import Condition, Selection
from k2.query.stopping import limits
from k2.query.view import View
from k2.query.zones import to_us

_MOST_SYMBOLS: Final = 100
"""Of more, the engine reads all at once."""

_MOST_ROWS: Final = 1_000_000
"""Of more, the engine can be stopped, and minds how much memory it takes."""

_COMPARED: Final = {
    "=": pc.equal,
    "!=": pc.not_equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}

Key = tuple[int | str, ...]
Longs = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Cut:
    """Which of the rows: the first `limit` (None: all) from one end of time, of those after the one
    of the key `after`, in total order, and of times `[start, end)`; None is open.
    """

    limit: int | None = None
    backwards: bool = False
    after: Key | None = None
    start: datetime | None = None
    end: datetime | None = None


def read_slices(
    view: View,
    selection: Selection,
    files: Sequence[DataFileRef],
    fields: Sequence[str],
    cut: Cut,
) -> pa.Table | None:
    """These columns of the rows that are asked for, ascending; `files` are those that may hold one.

    None where a file has no copy, or more is asked for than copies can tell. Raises `BadInput` for
    conditions that are none.
    """
    if view.copies is None or not 0 < len(selection.symbols) <= _MOST_SYMBOLS:
        return None
    # Even where it is not enough today: what is asked for again and again is to have copies.
    copies = view.copies.of(view, files)
    if len(copies) < len(files) or not _is_plain(view, selection, fields, cut):
        return None
    source = view.source(files)
    if source.partial:
        return None
    reading = _Reading.of(view, selection, source, cut)
    if reading is None or (view.standing is not None and not reading.is_untouched(source)):
        return None
    if limits().are_passed:
        raise limits().refusal()
    slices = reading.of_copies([copies[file.path] for file in files])
    if slices is None:
        return None
    if cut.limit is None and sum(piece.end - piece.begin for piece in slices) > _MOST_ROWS:
        return None
    tails = [] if reading.tail is None else [_Tail(reading.tail, view.time)]
    also = [of.column for of in selection.where]
    found = _joined([*slices, *tails], view, (*fields, *also), cut)
    for condition in selection.where:
        found = found.filter(_meets(found, condition, view.columns))
    return _cut(found, fields, cut)


def _is_plain(view: View, selection: Selection, fields: Sequence[str], cut: Cut) -> bool:
    """Whether rows come as they are."""
    if view.history or view.known_at is not None or view.beyond is not None:
        return False
    if selection.sessions is not None or not _are_compared(view, selection, cut):
        return False
    if not set(fields) <= set(view.columns.names):
        return False
    # A token of a kind that has another order is for the engine to refuse.
    return cut.after is None or (
        len(cut.after) == len(view.order)
        and all(isinstance(of, str) == (name == "log_topic") for of, name in _keyed(view, cut))
    )


def _are_compared(view: View, selection: Selection, cut: Cut) -> bool:
    """Whether the conditions can be looked at here. Raises `BadInput` for what is none."""
    if not selection.where:
        return True
    predicate(selection, view.columns, view.time, view.exchanges)
    kinds = {view.columns.field(of.column).type for of in selection.where}
    # Of the first so many that meet a condition nobody knows where they end.
    return cut.limit is None and pa.bool_() not in kinds


def _keyed(view: View, cut: Cut) -> list[tuple[int | str, str]]:
    return list(zip(cut.after or (), view.order, strict=False))


class _Piece(Protocol):
    """Rows by time."""

    def times(self) -> Longs:
        """Times, ascending, microseconds."""

    def rows(self, begin: int, end: int, names: Sequence[str]) -> pa.Table:
        """These columns of rows `[begin, end)`, without dictionaries."""

    @property
    def ordered(self) -> bool:
        """Whether they stand in total order."""


@dataclass(frozen=True)
class _Slice:
    """Rows `[begin, end)` of a copy, of one symbol."""

    copy: Copy
    begin: int
    end: int

    def times(self) -> Longs:
        return self.copy.times(self.begin, self.end)

    def rows(self, begin: int, end: int, names: Sequence[str]) -> pa.Table:
        return self.copy.rows(self.begin + begin, self.begin + end, names)

    @property
    def ordered(self) -> bool:
        return self.copy.ordered


@dataclass(frozen=True)
class _Tail:
    """Rows of the tail, by time."""

    table: pa.Table
    time: str
    ordered: bool = False

    def times(self) -> Longs:
        return micros(self.table[self.time])

    def rows(self, begin: int, end: int, names: Sequence[str]) -> pa.Table:
        return self.table.slice(begin, end - begin).select(list(names))


@dataclass(frozen=True)
class _Reading:
    """What is asked for; `tail` has the rows of the tail that are, complete and by time."""

    span: Span
    tail: pa.Table | None

    @classmethod
    def of(cls, view: View, selection: Selection, source: Source, cut: Cut) -> "_Reading | None":
        """None where exchanges have different times."""
        starts, ends = (set(edges) for edges in edges_of(selection, view.exchanges))
        if len(starts) > 1 or len(ends) > 1:
            return None
        lows = [to_us(edge) for edge in (*starts, cut.start) if edge is not None]
        highs = [to_us(edge) for edge in (*ends, cut.end) if edge is not None]
        if cut.after is not None:
            assert isinstance(cut.after[0], int)
            lows.append(cut.after[0])
        span = Span(
            tuple(dict.fromkeys(selection.symbols)),
            selection.exchanges,
            max(lows, default=None),
            min(highs, default=None),
        )
        tail = tail_within(source, view.time, span)
        return cls(span, None if tail is None else _complete(tail, source, view.time))

    def is_untouched(self, source: Source) -> bool:
        """Whether no row can have been corrected."""
        return self.tail is None and not (source.standing and source.standing.files)

    def of_copies(self, copies: Sequence[Copy]) -> list[_Slice] | None:
        """The rows in these copies; None where those of other exchanges stand between."""
        found = []
        wanted = frozenset(self.span.exchanges)
        for copy in copies:
            if wanted and not copy.exchanges & wanted:
                continue
            for symbol in self.span.symbols:
                begin, end = copy.span(symbol, self.span.start, self.span.end)
                if begin < end:
                    if wanted and not copy.exchanges <= wanted:
                        return None
                    found.append(_Slice(copy, begin, end))
        return found


def _complete(tail: pa.Table, source: Source, time: str) -> pa.Table:
    """The rows by time, with every column, as plain ones, defaults filled in."""
    order = pa.array(np.argsort(micros(tail[time]), kind="stable"))
    columns = {}
    for field in source.columns:
        kind = plain_type(field.type)
        if field.name in tail.schema.names:
            column = tail[field.name].cast(kind).take(order)
        else:
            column = pa.chunked_array([pa.nulls(tail.num_rows, kind)])
        if source.mixed and column.null_count and field.name in source.defaults:
            column = pc.fill_null(column, pa.scalar(source.defaults[field.name], kind))
        columns[field.name] = column
    return pa.table(columns)


def _joined(pieces: Sequence[_Piece], view: View, fields: Sequence[str], cut: Cut) -> pa.Table:
    """The rows of the pieces that may be of the first, in total order."""
    if not pieces:
        return plain_schema(view.columns).empty_table().select(list(dict.fromkeys(fields)))
    times = [piece.times() for piece in pieces]
    edges = _edges(times, cut)
    is_one = len(pieces) == 1 and pieces[0].ordered and cut.after is None
    names = tuple(dict.fromkeys(fields if is_one else (*fields, *view.order)))
    found = [
        piece.rows(begin, end, names)
        for piece, (begin, end) in zip(pieces, edges, strict=True)
        if begin < end
    ]
    if is_one:
        return found[0]
    joined = _in_order(pa.concat_tables(found), view.order)
    return joined if cut.after is None else joined.filter(_later(joined, _keyed(view, cut)))


def _edges(times: Sequence[Longs], cut: Cut) -> list[tuple[int, int]]:
    """Of each piece, the rows that may be among the first: all that are no later than the one
    which is the last of these by time alone, and so are at least as many.
    """
    whole = [(0, len(when)) for when in times]
    if cut.limit is None:
        return whole
    wanted = cut.limit
    if cut.after is not None:
        # Those of that very moment may be before it.
        wanted += sum(int(np.searchsorted(when, cut.after[0], side="right")) for when in times)
    if sum(len(when) for when in times) <= wanted:
        return whole
    if cut.backwards:
        near = np.concatenate([when[-wanted:] for when in times])
        last = np.partition(near, len(near) - wanted)[len(near) - wanted]
        return [(int(np.searchsorted(when, last, side="left")), len(when)) for when in times]
    near = np.concatenate([when[:wanted] for when in times])
    last = np.partition(near, wanted - 1)[wanted - 1]
    return [(0, int(np.searchsorted(when, last, side="right"))) for when in times]


def _meets(rows: pa.Table, condition: Condition, columns: pa.Schema) -> pa.ChunkedArray:
    """Which rows meet the condition; where there is no value, none does."""
    kind = plain_type(columns.field(condition.column).type)
    value = pa.scalar(literal(condition, kind), kind)
    return _COMPARED[condition.operator](rows[condition.column], value)


def _cut(rows: pa.Table, fields: Sequence[str], cut: Cut) -> pa.Table:
    if cut.limit is not None and rows.num_rows > cut.limit:
        rows = rows.slice(rows.num_rows - cut.limit if cut.backwards else 0, cut.limit)
    return rows.select(list(fields))


def _in_order(rows: pa.Table, order: Sequence[str]) -> pa.Table:
    """The rows in total order. Few are of one moment: only these are told apart by the rest."""
    times = micros(rows[order[0]])
    steps = np.diff(times)
    if (steps > 0).all():
        return rows
    indices = np.arange(len(times)) if (steps >= 0).all() else np.argsort(times, kind="stable")
    when = times[indices]
    alike = when[1:] == when[:-1]
    if alike.any():
        tied = np.zeros(len(when), np.bool_)
        tied[1:] |= alike
        tied[:-1] |= alike
        places = np.flatnonzero(tied)
        chosen = indices[places]
        few = rows.select(list(order[1:])).take(pa.array(chosen))
        keys = [_numbers(few[name]) for name in order[1:]]
        indices[places] = chosen[np.lexsort([*reversed(keys), when[places]])]
    if (np.diff(indices) == 1).all():
        return rows
    return rows.combine_chunks().take(pa.array(indices))


def _numbers(column: pa.ChunkedArray) -> npt.NDArray[Any]:
    """Numbers that are in order as the column's values are: of text, by its UTF-8 bytes."""
    if not pa.types.is_string(column.type):
        return column.to_numpy()
    coded = column.combine_chunks().dictionary_encode()
    values = coded.dictionary.to_pylist()
    ranks = {value: at for at, value in enumerate(sorted(values, key=str.encode))}
    return np.array([ranks[value] for value in values], np.int64)[coded.indices.to_numpy()]


def _later(rows: pa.Table, key: Sequence[tuple[int | str, str]]) -> pa.Array:
    """Which rows come after the key in the total order."""
    later = np.zeros(rows.num_rows, np.bool_)
    alike = np.ones(rows.num_rows, np.bool_)
    for value, name in key:
        column = rows[name]
        if isinstance(value, str):
            # Arrow compares text by its bytes, as the engine does.
            greater, equal = (
                of(column, pa.scalar(value)).to_numpy(zero_copy_only=False).astype(np.bool_)
                for of in (pc.greater, pc.equal)
            )
        else:
            numbers = micros(column) if pa.types.is_timestamp(column.type) else column.to_numpy()
            greater, equal = numbers > value, numbers == value
        later |= alike & greater
        alike &= equal
    return pa.array(later)
