"""Rows of a venue to tables of the model: exact decimals from text, constants once.

A row whose decimals cannot be read becomes a reject beside its frame; the others go on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from k2.feeds.live.venue import Frame, Quote, Reject, Trade
from k2.feeds.mapped.records import constant
from k2.feeds.mapped.values import to_decimals
from k2.model import DICTIONARY_TYPE, TIMESTAMP_TYPE, latest

Mask = npt.NDArray[np.bool_]

REASON_LENGTH: Final = 500
"""So much is told of what is wrong with a record; the record itself is kept whole."""
_ONE: Final = Decimal(1)


@dataclass(frozen=True)
class Origin:
    """What all rows of a feed share; `now` (microseconds UTC) is when a batch is brought in."""

    exchange: str
    source: str


@dataclass(frozen=True)
class Gap:
    """A hole that stays: numbers inclusive, times in nanoseconds UTC, None where not known."""

    symbol: str
    kind: str
    first: int | None
    last: int | None
    before: int | None
    after: int | None
    cause: str


def trades_table(
    rows: Sequence[Trade], frames: Sequence[Frame], origin: Origin, rejects: list[Reject]
) -> pa.Table:
    """The trades that can be read, each with the receive time of its frame; others to `rejects`."""
    symbols, ids, times, prices, quantities, sides, sequences, vendors = zip(*rows, strict=True)
    good = np.ones(len(rows), np.bool_)
    whole = partial(_whole, kind="trades", frames=frames, good=good, rejects=rejects)
    columns = _shared(symbols, whole("timestamp", times), frames, origin, vendors)
    columns["price"] = _decimals("price", prices, "trades", frames, good, rejects)
    columns["quantity"] = _decimals("quantity", quantities, "trades", frames, good, rejects)
    columns["trade_id"] = whole("trade_id", ids).cast(pa.string())
    columns["side"] = _dictionary(sides)
    columns["source_sequence"] = whole("source_sequence", sequences)
    columns["price_forming"] = pa.repeat(pa.scalar(True), len(rows))
    return _table("trades", columns, good)


def quotes_table(
    rows: Sequence[Quote], frames: Sequence[Frame], origin: Origin, rejects: list[Reject]
) -> pa.Table:
    """The quotes that can be read, as `trades_table` does."""
    symbols, times, *sides, sequences, occurrences, vendors = zip(*rows, strict=True)
    good = np.ones(len(rows), np.bool_)
    whole = partial(_whole, kind="quotes", frames=frames, good=good, rejects=rejects)
    columns = _shared(symbols, whole("timestamp", times), frames, origin, vendors)
    names = ("bid_price", "bid_quantity", "ask_price", "ask_quantity")
    for name, texts in zip(names, sides, strict=True):
        columns[name] = _decimals(name, texts, "quotes", frames, good, rejects)
    columns["source_sequence"] = whole("source_sequence", sequences)
    columns["occurrence"] = pa.array(occurrences, pa.int32())
    return _table("quotes", columns, good)


def rejects_table(rejects: Sequence[Reject], origin: Origin) -> pa.Table:
    """What could not be read, whole."""
    n = len(rejects)
    return _table(
        "rejects",
        {
            "exchange": constant(origin.exchange, n),
            "source": constant(origin.source, n),
            "kind": pa.array([r.kind for r in rejects], pa.string()),
            "reason": pa.array([_clean(r.reason) for r in rejects], pa.string()),
            "raw": pa.array([r.frame.text for r in rejects], pa.binary()),
            "ingestion_timestamp": _micros([r.frame.received for r in rejects]),
        },
    )


def gaps_table(gaps: Sequence[Gap], now: int, origin: Origin) -> pa.Table:
    """Holes that stay, noticed `now` (microseconds UTC)."""
    n = len(gaps)
    return _table(
        "gaps",
        {
            "exchange": constant(origin.exchange, n),
            "source": constant(origin.source, n),
            "symbol": pa.array([g.symbol for g in gaps], pa.string()),
            "kind": pa.array([g.kind for g in gaps], pa.string()),
            "first_missing": pa.array([g.first for g in gaps], pa.int64()),
            "last_missing": pa.array([g.last for g in gaps], pa.int64()),
            "from_timestamp": _micros([_thousandth(g.before) for g in gaps]),
            "to_timestamp": _micros([_thousandth(g.after) for g in gaps]),
            "cause": pa.array([g.cause for g in gaps], pa.string()),
            "ingestion_timestamp": _micros([now] * n),
        },
    )


def _shared(
    symbols: Sequence[str],
    times: pa.Array,
    frames: Sequence[Frame],
    origin: Origin,
    vendors: Sequence[str | None],
) -> dict[str, pa.Array]:
    n = len(symbols)
    nanos = times.to_numpy()
    received = _micros([frame.received for frame in frames])
    currency = {symbol: _currency(symbol) for symbol in set(symbols)}
    return {
        "symbol": _dictionary(symbols),
        "exchange": constant(origin.exchange, n),
        "source": constant(origin.source, n),
        "asset_class": constant("crypto", n),
        "id_space": constant("", n),
        "currency": _dictionary([currency[symbol] for symbol in symbols]),
        "timestamp": pa.array(nanos // 1000).cast(TIMESTAMP_TYPE),
        "timestamp_nanos": pa.array((nanos % 1000).astype(np.int32)),
        "source_received_timestamp": received,
        "ingestion_timestamp": received,
        "vendor_data": pa.array(vendors, pa.string()),
    }


def _currency(symbol: str) -> str | None:
    """What a symbol such as BTC-USD or BTC/USD is priced in; None where it does not say."""
    for mark in "-/":
        if mark in symbol:
            return symbol.rpartition(mark)[2]
    return None


def _whole(
    name: str,
    numbers: Sequence[int | None],
    *,
    kind: str,
    frames: Sequence[Frame],
    good: Mask,
    rejects: list[Reject],
) -> pa.Array:
    """Numbers of 64 bits; rows with longer ones are no longer `good`, and rejected once."""
    try:
        return pa.array(numbers, pa.int64())
    except OverflowError:
        fitting = [number is None or abs(number) < 2**63 for number in numbers]
    for row in [row for row, fits in enumerate(fitting) if not fits]:
        if good[row]:
            good[row] = False
            rejects.append(Reject(frames[row], kind, f"{name} {numbers[row]} is too large"))
    return pa.array(
        [n if fits else 0 for n, fits in zip(numbers, fitting, strict=True)], pa.int64()
    )


def _decimals(
    name: str,
    texts: Sequence[str | None],
    kind: str,
    frames: Sequence[Frame],
    good: Mask,
    rejects: list[Reject],
) -> pa.Array:
    """Exact decimals; rows that are none are no longer `good`, and rejected once."""
    column = pa.array(texts, pa.string())
    absent = column.is_null().to_numpy(zero_copy_only=False)
    if column.null_count:
        column = column.fill_null("")
    values, faults = to_decimals(column, absent, name, _ONE)
    for fault in faults:
        if good[fault.row]:
            good[fault.row] = False
            rejects.append(Reject(frames[fault.row], kind, fault.reason))
    return values


def _dictionary(texts: Sequence[str | None]) -> pa.Array:
    return pa.array(texts, pa.string()).dictionary_encode()


def _micros(times: Sequence[int | None]) -> pa.Array:
    return pa.array(times, pa.int64()).cast(TIMESTAMP_TYPE)


def _thousandth(nanos: int | None) -> int | None:
    return None if nanos is None else nanos // 1000


def _clean(reason: str) -> str:
    """Short, and without what cannot be encoded: a reason may quote half a character."""
    return reason[:REASON_LENGTH].encode("utf-8", "replace").decode()


def _table(kind: str, columns: dict[str, Any], good: Mask | None = None) -> pa.Table:
    """The kind's columns, those that are not given null; only the rows that are `good`."""
    schema = latest(kind).arrow
    n = len(next(iter(columns.values())))
    arrays = []
    for field in schema:
        column = columns.get(field.name)
        if column is None:
            column = pa.nulls(n, field.type)
        elif column.type != field.type:
            column = _as(column, field.type)
        arrays.append(column)
    table = pa.Table.from_arrays(arrays, schema=schema)
    return table if good is None or good.all() else table.filter(pa.array(good))


def _as(column: pa.Array, kind: pa.DataType) -> pa.Array:
    if kind == DICTIONARY_TYPE and not pa.types.is_dictionary(column.type):
        return column.dictionary_encode()
    return column.cast(kind)
