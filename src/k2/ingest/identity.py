"""What makes a record the one it is: its id, or its content.

A record with an id is (exchange, id_space, symbol, id); one without is its whole content and its
ordinal among equal records (`occurrence`); one with neither, as in version 1, has no identity and
is never a duplicate.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from k2.ingest.marks import ID_COLUMN, Name, to_numbers
from k2.model import latest, micros, plain_schema

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Marked:
    """Rows of one way of identity in a batch: their groups and numbers (an id, or a timestamp).

    `rows`: their places in the batch. `numeric`: whether a row's id is a number. `names`: what each
    group stands for.
    """

    rows: Ints
    groups: npt.NDArray[np.int32]
    numbers: Ints
    numeric: Mask
    names: list[Name]


class Identity:
    """How the records of one kind are told apart. `id_column` is None where they have no ids."""

    def __init__(self, kind: str) -> None:
        self.id_column = ID_COLUMN.get(kind)
        self._schema = latest(kind)

    def marked(self, exchange: str, rows: pa.Table) -> Iterator[Marked]:
        """The rows (of one exchange) that have an identity, by the way they have it."""
        by_content, by_id = _ways(rows, self.id_column)
        if by_id.any() and self.id_column is not None:
            yield _mark_ids(exchange, rows, np.flatnonzero(by_id), self.id_column)
        if by_content.any():
            yield _mark_content(exchange, rows, np.flatnonzero(by_content))

    def keys(self, way: str, table: pa.Table) -> pa.Array:
        """One value a row, equal exactly where the identities (of one exchange) are."""
        if way == "content":
            return _content_keys(table, self._schema.arrow)
        assert self.id_column is not None
        parts = [plain_column(table[c]) for c in ("id_space", "symbol", self.id_column)]
        return pc.binary_join_element_wise(*parts, "\x1f").combine_chunks()

    def text(self, way: str, table: pa.Table) -> pa.Array:
        """The identity of each row in words, for ledgers."""
        parts: Sequence[str]
        if way == "content":
            parts = ["exchange", "symbol", "occurrence"]
            parts = [p for p in parts if p in table.column_names]
        else:
            assert self.id_column is not None
            parts = ["exchange", "id_space", "symbol", self.id_column]
        columns = [pc.fill_null(plain_column(table[p]), "") for p in parts]
        return pc.binary_join_element_wise(way, *columns, "/").combine_chunks()


def _ways(rows: pa.Table, id_column: str | None) -> tuple[Mask, Mask]:
    """Per row, whether its content is its identity, and whether its id is."""
    n = rows.num_rows
    if "occurrence" not in rows.column_names:
        return np.ones(n, np.bool_), np.zeros(n, np.bool_)
    by_content = _valid(rows["occurrence"])
    if id_column is None:
        return by_content, np.zeros(n, np.bool_)
    return by_content, _valid(rows[id_column]) & ~by_content


def _valid(column: pa.ChunkedArray) -> Mask:
    if column.null_count == 0:
        return np.ones(len(column), np.bool_)
    if column.null_count == len(column):
        return np.zeros(len(column), np.bool_)
    return column.is_valid().to_numpy()


def _mark_ids(exchange: str, rows: pa.Table, places: Ints, id_column: str) -> Marked:
    whole = len(places) == rows.num_rows
    taken = rows if whole else rows.take(pa.array(places))
    groups, names = groups_of(taken, ("symbol", "id_space"))
    numbers, numeric = to_numbers(taken[id_column])
    return Marked(places, groups, numbers, numeric, [("id", exchange, *name) for name in names])


def _mark_content(exchange: str, rows: pa.Table, places: Ints) -> Marked:
    taken = rows if len(places) == rows.num_rows else rows.take(pa.array(places))
    columns = [c for c in ("symbol",) if c in taken.column_names]
    groups, names = groups_of(taken, columns)
    numeric = np.ones(len(places), np.bool_)
    time = "timestamp" if "timestamp" in taken.column_names else None
    # Without an event time nothing proves a record new: all share one number.
    numbers = micros(taken[time]) if time else np.zeros(len(places), np.int64)
    padded = [("content", exchange, *(name or ("",))) for name in names]
    return Marked(places, groups, numbers, numeric, padded)


def groups_of(
    rows: pa.Table, columns: Sequence[str]
) -> tuple[npt.NDArray[np.int32], list[tuple[str, ...]]]:
    """A number for each row's combination of the dictionary columns, and what it stands for."""
    codes = np.zeros(rows.num_rows, np.int64)
    names: list[tuple[str, ...]] = [()]
    for column in columns:
        array = rows[column].combine_chunks()
        values = array.dictionary.to_pylist()
        codes = codes * max(len(values), 1) + array.indices.to_numpy(zero_copy_only=False)
        names = [(*name, value) for name in names for value in values]
    counts = np.bincount(codes, minlength=len(names))
    present = np.flatnonzero(counts)
    number = np.zeros(len(counts), np.int32)
    number[present] = np.arange(len(present))
    return number[codes], [names[p] for p in present]


def ascending(marked: Marked) -> Mask:
    """Per row, whether its number is above all earlier ones of its group in this batch."""
    n = len(marked.rows)
    if n < 2:
        return np.ones(n, np.bool_)
    small = len(marked.names) < 65536  # numpy sorts 16-bit codes by radix
    order = np.argsort(marked.groups.astype(np.uint16) if small else marked.groups, kind="stable")
    group, number = marked.groups[order], marked.numbers[order]
    first = np.ones(n, np.bool_)
    first[1:] = group[1:] != group[:-1]
    rising = first.copy()
    rising[1:] |= number[1:] > number[:-1]
    if not rising.all():
        # Ranks grow from group to group, so one running maximum serves all groups at once.
        _, rank = np.unique(number, return_inverse=True)
        dense = group.astype(np.int64) * n + rank
        highest = np.maximum.accumulate(dense)
        rising[1:] = first[1:] | (dense[1:] > highest[:-1])
    out = np.empty(n, np.bool_)
    out[order] = rising
    return out


def _content_keys(table: pa.Table, schema: pa.Schema) -> pa.Array:
    """A row's content as one value: every column but ingestion_timestamp, lengths told apart."""
    parts = []
    for field in schema:
        if field.name == "ingestion_timestamp":
            continue
        text = plain_column(table[field.name])
        length = pc.fill_null(pc.binary_length(text), -1).cast(pa.string())
        parts += [length.cast(pa.binary()), pc.fill_null(text.cast(pa.binary()), b"")]
    joined = pc.binary_join_element_wise(*parts, pa.scalar(b":"))
    return joined.combine_chunks() if isinstance(joined, pa.ChunkedArray) else joined


def plain_column(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """As text, the same for equal values."""
    if pa.types.is_dictionary(column.type):
        return column.cast(pa.string())
    if pa.types.is_timestamp(column.type) or pa.types.is_date32(column.type):
        column = column.cast(pa.int64() if pa.types.is_timestamp(column.type) else pa.int32())
    return column if pa.types.is_binary(column.type) else column.cast(pa.string())


def plain(table: pa.Table) -> pa.Table:
    """With plain strings where there were dictionaries."""
    return table.cast(plain_schema(table.schema))
