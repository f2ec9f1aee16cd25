"""Weighted means of groups, exactly: from exact sums, rounded half-even to eight decimals."""

from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from k2.model import PRICE_TYPE
from k2.query.port import Engine
from k2.query.statements import statement

SUM_TYPE: Final = pa.decimal128(38, 8)
_VALUE_TYPE: Final = pa.decimal128(20, 8)


def weighted_means(
    engine: Engine,
    number: npt.NDArray[np.int64],
    values: pa.Array | pa.ChunkedArray,
    weights: pa.Array | pa.ChunkedArray,
    *,
    groups: int,
    divisor: int = 1,
) -> pa.Table:
    """Of each group 0 to `groups`: how many values it has (`count`), the sum of their weights
    (`weight`, decimal(38, 8)), and their weighted mean by `divisor` (`mean`, decimal(18, 8)).

    `number` tells each value's group. Values that are null and weights of zero do not count; a
    group without any has a count of 0 and no mean.
    """
    samples = pa.table(
        {
            "number": pa.array(number),
            "value": values.cast(_VALUE_TYPE),
            "weight": weights.cast(PRICE_TYPE),
        }
    )
    found = engine.run(statement("means", {"divisor": divisor}), {"samples": samples})
    place = np.full(groups, -1, np.int64)
    place[found["number"].to_numpy()] = np.arange(found.num_rows)
    spread = found.drop_columns("number").take(pa.array(place, mask=place < 0))
    return spread.set_column(0, "count", spread["count"].fill_null(0))


def to_decimals(unscaled: npt.NDArray[np.int64]) -> pa.Array:
    """Numbers of 1e-8 as decimal(18, 8)."""
    words = np.column_stack([unscaled, unscaled >> 63])
    buffer = pa.py_buffer(np.ascontiguousarray(words))
    return pa.Array.from_buffers(PRICE_TYPE, len(unscaled), [None, buffer])
