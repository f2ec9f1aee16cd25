"""Faults that a simulated market is asked for: gaps, duplicates, late and malformed records.

Comes in: a block and the share of each fault. Goes out: the rows as they come out, and for tests
the list of what was done to which record. A record has one fault at most.
"""

from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from k2.feeds.market import BLOCK, Block, Ints, Market, Parameters, draw_faults

FAULTS: Final = ("none", "gap", "duplicate", "late", "malformed")
_NONE, _GAP, _DUPLICATE, _LATE, _MALFORMED = range(5)

MALFORMED: Final = ("negative quantity", "price of zero", "timestamp ten years ahead")

_LEAST_DELAY: Final = 1_024
"""Records by which a late one is behind at the least; it stays within its block."""

_TEN_YEARS: Final = 3_650 * 86_400 * 1_000_000


@dataclass(frozen=True)
class Emitted:
    """What comes out of a block: row `rows[i]` in slot `slots[i]`; slots ascend.

    A slot is the record number within the block at whose turn the row comes. The other columns
    have a row for each of the block's records, malformed ones included.
    """

    rows: Ints
    slots: Ints
    times: Ints
    prices: tuple[Ints, Ints]
    quantities: tuple[Ints, Ints]


@dataclass(frozen=True)
class _Drawn:
    faults: npt.NDArray[Any]
    delays: Ints
    choices: Ints
    last: int


def emit(parameters: Parameters, block: Block) -> Emitted:
    """The block's rows with the faults that the parameters ask for."""
    rows = np.arange(BLOCK)
    plain = Emitted(rows, rows, block.times, block.prices, block.quantities)
    drawn = _draw(parameters, block.number)
    if drawn is None:
        return plain
    faults, last = drawn.faults, drawn.last
    there = rows[: last + 1]
    kept = there[faults[there] != _GAP]
    again = there[faults[there] == _DUPLICATE]
    late = np.where(faults[kept] == _LATE, drawn.delays[kept], 0)
    slots = np.concatenate((kept + late, again + 1 + drawn.delays[again] % 256))
    # What would come after the end of the block, or of the market, comes at its end.
    slots = np.minimum(slots, last)
    order = np.argsort(slots, kind="stable")
    malformed = faults == _MALFORMED
    return replace(
        plain,
        rows=np.concatenate((kept, again))[order],
        slots=slots[order],
        quantities=_changed(block.quantities, malformed & (drawn.choices == 0), -1),
        prices=_changed(block.prices, malformed & (drawn.choices == 1), 0),
        times=block.times + np.where(malformed & (drawn.choices == 2), _TEN_YEARS, 0),
    )


def injected(parameters: Parameters, first: int, end: int) -> pa.Table:
    """The faults among the records `first` to `end` (exclusive), in their order.

    Columns: number (of the record), kind, symbol, sequence (its trade_id or source_sequence),
    fault (gap, duplicate, late, malformed), detail (what is malformed, else null).
    """
    market = Market(parameters)
    end = min(end, parameters.count)
    parts = [
        _list(market, number, first - number * BLOCK, end - number * BLOCK)
        for number in range(first // BLOCK, -(-end // BLOCK))
    ]
    return pa.concat_tables(parts) if parts else _SCHEMA.empty_table()


_SCHEMA: Final = pa.schema(
    {
        "number": pa.int64(),
        "kind": pa.string(),
        "symbol": pa.string(),
        "sequence": pa.int64(),
        "fault": pa.string(),
        "detail": pa.string(),
    }
)


def _list(market: Market, number: int, first: int, end: int) -> pa.Table:
    drawn = _draw(market.parameters, number)
    if drawn is None:
        return _SCHEMA.empty_table()
    block = market.block(number)
    rows = np.flatnonzero(drawn.faults)
    rows = rows[(rows >= first) & (rows < end)]
    details = pa.array(MALFORMED).take(pa.array(drawn.choices[rows]))
    malformed = pa.array(drawn.faults[rows] == _MALFORMED)
    return pa.table(
        [
            pa.array(rows + number * BLOCK),
            pa.array(["trades", "quotes"]).take(pa.array(block.is_quote[rows].astype(np.int64))),
            pa.array(market.names).take(pa.array(block.symbols[rows])),
            pa.array(block.sequences[rows]),
            pa.array(FAULTS).take(pa.array(drawn.faults[rows])),
            pc.if_else(malformed, details, pa.scalar(None, pa.string())),
        ],
        schema=_SCHEMA,
    )


def _draw(parameters: Parameters, number: int) -> _Drawn | None:
    """The fault of each record of the block; None where none is asked for."""
    shares = (parameters.gaps, parameters.duplicates, parameters.late, parameters.malformed)
    if not any(shares):
        return None
    words = draw_faults(parameters, number)
    edges = np.cumsum(np.array(shares, dtype=np.uint64))
    # 0 … 3 for the four faults, 4 beyond all their shares.
    found = np.searchsorted(edges, words >> np.uint64(32), side="right")
    faults = np.array([_GAP, _DUPLICATE, _LATE, _MALFORMED, _NONE])[found]
    last = min(BLOCK, parameters.count - number * BLOCK) - 1
    # Those too near the end to be late stay as they are.
    faults[(faults == _LATE) & (np.arange(BLOCK) > last - _LEAST_DELAY)] = _NONE
    delays = _LEAST_DELAY + (words & np.uint64(16_383)).astype(np.int64)
    choices = ((words >> np.uint64(16)) & np.uint64(0xFFFF)).astype(np.int64) % len(MALFORMED)
    return _Drawn(faults, delays, choices, last)


def _changed(columns: tuple[Ints, Ints], rows: npt.NDArray[np.bool_], to: int) -> tuple[Ints, Ints]:
    """The first of two columns with another value (in 1e-8) in some rows."""
    return np.where(rows, to, columns[0]), columns[1]
