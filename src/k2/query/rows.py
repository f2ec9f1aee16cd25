"""Rows of a table put in order, or found by a value, without an engine."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def in_order(table: pa.Table, names: Sequence[str]) -> pa.Table:
    """The rows, ascending by these columns; text by its bytes."""
    return table.take(pc.sort_indices(table, sort_keys=[(name, "ascending") for name in names]))


def taken(table: pa.Table, numbers: pa.Array) -> pa.Table:
    """The rows of these numbers, which ascend. Chunk by chunk: Arrow would join the chunks of whole
    columns first, and a tail may be long.
    """
    wanted, found, first = numbers.to_numpy(), [], 0
    for batch in table.to_batches():
        low, high = np.searchsorted(wanted, (first, first + batch.num_rows))
        if low < high:
            found.append(batch.take(pa.array(wanted[low:high] - first)))
        first += batch.num_rows
    return pa.Table.from_batches(found, table.schema)


def positions(column: pa.ChunkedArray, values: Sequence[str]) -> pa.Array:
    """Numbers of the rows, ascending, that have one of these values in a column of text, which may
    be coded by dictionaries.
    """
    found, first = [], 0
    wanted = pa.array(values, pa.string())
    for chunk in column.chunks:
        coded = pa.types.is_dictionary(chunk.type)
        texts = chunk.dictionary if coded else chunk
        hits = pc.indices_nonzero(pc.is_in(texts, value_set=wanted.cast(texts.type))).to_numpy()
        if coded and len(hits):
            codes = chunk.indices.to_numpy(zero_copy_only=False)
            hits = np.flatnonzero(codes == hits[0] if len(hits) == 1 else np.isin(codes, hits))
        found.append(hits + first)
        first += len(chunk)
    return pa.array(np.concatenate(found) if found else [], pa.int64())
