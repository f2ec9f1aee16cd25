"""Records of several kinds as one: common columns, and one order over all of them.

Comes in: tables of each kind, in total order. Goes out: tables with a column `kind`, the columns
of all kinds (null where a kind has none), and at their end those that the order needs.
"""

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from k2.lake import definition
from k2.model import plain_type
from k2.query.position import Key
from k2.query.rows import in_order
from k2.query.stretch import LINEAGE, key_of

ORDER: Final = ("timestamp", "timestamp_nanos", "log_topic", "log_partition", "log_offset")
"""The columns of the total order, which every kind that can be replayed has."""

_ARRIVAL: Final = ("arrived", "log_topic", "log_partition", "log_offset")


def common_columns(kinds: tuple[str, ...]) -> pa.Schema:
    """The columns of records of these kinds as one: `kind`, then each kind's own."""
    found = {"kind": pa.field("kind", pa.string())}
    for kind in kinds:
        for field in definition(kind).arrow:
            if field.name == "exchange_date":
                break
            found.setdefault(field.name, pa.field(field.name, plain_type(field.type)))
    return pa.schema(found.values())


def shaped(kind: str, table: pa.Table, columns: pa.Schema) -> pa.Table:
    """A kind's records with these columns and their lineage."""
    made: list[pa.Array | pa.ChunkedArray] = []
    for field in columns:
        if field.name == "kind":
            made.append(pa.repeat(kind, table.num_rows))
        elif field.name in table.column_names:
            made.append(table[field.name].cast(field.type))
        else:
            made.append(pa.nulls(table.num_rows, field.type))
    names = [*columns.names, *LINEAGE]
    return pa.table([*made, *(table[name] for name in LINEAGE)], names=names)


def merged(parts: Mapping[str, Iterator[pa.Table]], columns: pa.Schema) -> Iterator[pa.Table]:
    """The records of all kinds in total order. What is held is one table of each kind."""
    open_parts, held = dict(parts), dict[str, pa.Table]()
    while True:
        for kind in [kind for kind in open_parts if kind not in held]:
            table = next(open_parts[kind], None)
            if table is None:
                del open_parts[kind]
            else:
                held[kind] = shaped(kind, table, columns)
        if not held:
            return
        if len(held) == 1:
            yield held.popitem()[1]
            continue
        joined = in_order(pa.concat_tables(held.values()), ORDER)
        cut = 1 + min(_last(joined, kind) for kind in held)
        yield joined.slice(0, cut)
        rest = joined.slice(cut)
        split = {kind: rest.filter(pc.equal(rest["kind"], kind)) for kind in held}
        held = {kind: table for kind, table in split.items() if table.num_rows}


def arrived(tables: Mapping[str, pa.Table], columns: pa.Schema) -> pa.Table:
    """The records of all kinds as they arrived: those of each partition in its own order."""
    joined = pa.concat_tables([shaped(kind, table, columns) for kind, table in tables.items()])
    joined = in_order(joined, ("log_topic", "log_partition", "log_offset"))
    when = joined["ingestion_timestamp"].cast(pa.int64()).to_numpy().copy()
    for first, end in _runs(joined):
        # A clock that goes back must not put a record before one that stands before it.
        when[first:end] = np.maximum.accumulate(when[first:end])
    return in_order(joined.append_column("arrived", pa.array(when)), _ARRIVAL).drop_columns(
        "arrived"
    )


def key_at(table: pa.Table, row: int) -> Key:
    """Where in the total order a row stands."""
    return key_of(table, ORDER, row)


def _runs(table: pa.Table) -> Iterator[tuple[int, int]]:
    """Where each partition's rows begin and end, in a table that is sorted by them."""
    topics = table["log_topic"].combine_chunks()
    differs = pc.not_equal(topics[1:], topics[:-1]).to_numpy(zero_copy_only=False)
    borders = np.flatnonzero(differs | (np.diff(table["log_partition"].to_numpy()) != 0)) + 1
    edges = [0, *borders.tolist(), table.num_rows]
    yield from pairwise(edges)


def _last(table: pa.Table, kind: str) -> int:
    return int(np.flatnonzero(pc.equal(table["kind"], kind).to_numpy())[-1])
