"""Whether a record can be true: types hold already, here are ranges and clock sanity.

Comes in: columns of one kind from one exchange. Goes out: for each row that fails, which column and
why. A feed that reads a file asks, since it knows the line; the writer asks of every record.
Nothing here looks at a clock: a record is judged by its own ingestion_timestamp, so that the
verdict is the same whenever it is given.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from k2.model.columns import micros
from k2.model.exchange import Exchange

CLOCK_SKEW: Final = timedelta(minutes=5)
"""How far a timestamp may lie ahead of its record's ingestion_timestamp, unless a setting says."""
SYMBOL_BYTES_MAX: Final = 128
TIMESTAMP_MIN: Final = int(datetime(1900, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000
_US: Final = timedelta(microseconds=1)
_PLACE: Final = ("log_id", "partition", "offset")
# Spreads and energy have traded below zero; shares and coins cannot.
_BELOW_ZERO: Final = frozenset({"futures", "options"})


@dataclass(frozen=True)
class Failures:
    """Rows that cannot be, ascending; for each the column, its value as text, and what is wrong.

    Read one after the other, the three make a sentence: `quantity` `-100` `is not above zero`.
    """

    rows: npt.NDArray[np.int64]
    columns: pa.Array
    values: pa.Array
    wrongs: pa.Array


@dataclass(frozen=True)
class _Check:
    column: str
    bad: npt.NDArray[np.bool_]
    wrong: str


def validate(kind: str, table: pa.Table, exchange: Exchange, skew: timedelta) -> Failures | None:
    """Judge each row of `table`; None if all can be true.

    `skew` is how far a timestamp may lie ahead of the record's ingestion_timestamp. A row with
    several faults is named for the first.
    """
    verdict = np.zeros(table.num_rows, np.int16)
    checks = list(_checks(kind, table, exchange, skew))
    for number, check in enumerate(checks, 1):
        if check.bad.any():
            verdict[check.bad & (verdict == 0)] = number
    rows = np.flatnonzero(verdict)
    if not len(rows):
        return None
    codes = pa.array(verdict[rows] - 1, pa.int32())
    columns = pa.array([c.column for c in checks]).take(codes)
    wrongs = pa.array([c.wrong for c in checks]).take(codes)
    return Failures(rows, columns, _values(table.take(pa.array(rows)), columns), wrongs)


def _values(failed: pa.Table, columns: pa.Array) -> pa.Array:
    """The value of each row's failing column, as text, one take a column."""
    out = pa.nulls(failed.num_rows, pa.string())
    for name in pc.unique(columns).to_pylist():
        mask = pc.equal(columns, name)
        value = failed.column(name).combine_chunks()
        if pa.types.is_dictionary(value.type):
            value = value.dictionary_decode()
        text = value.cast(pa.string())
        if pa.types.is_decimal(value.type):
            # Arrow writes all 8 decimals, and 0 as 0E-8.
            text = pc.replace_substring_regex(text, r"^0E-\d+$|\.?0+$", "")
            text = pc.if_else(pc.equal(text, ""), "0", text)
        out = pc.if_else(mask, pc.fill_null(text, ""), out)
    return pc.utf8_slice_codeunits(out, 0, 80)


def _checks(kind: str, table: pa.Table, exchange: Exchange, skew: timedelta) -> Iterator[_Check]:
    if kind in ("rejects", "gaps"):
        return
    yield from _names(table, exchange)
    if "timestamp" in table.column_names:
        yield from _times(table, skew)
    yield from _RANGES[kind](table, exchange)


def _names(table: pa.Table, exchange: Exchange) -> Iterator[_Check]:
    yield _by_value(
        table, "symbol", lambda s: not s or not s.isprintable(), "is no symbol: nothing to print"
    )
    yield _by_value(
        table,
        "symbol",
        lambda s: len(s.encode()) > SYMBOL_BYTES_MAX,
        f"is no symbol: longer than {SYMBOL_BYTES_MAX} bytes",
    )
    yield _by_value(
        table,
        "exchange",
        lambda e: e != exchange.name,
        f"is not the exchange of this topic, {exchange.name}",
    )


def _times(table: pa.Table, skew: timedelta) -> Iterator[_Check]:
    timestamp = micros(table["timestamp"])
    ahead = int(skew / timedelta(microseconds=1))
    seconds = ahead // 1_000_000
    yield _Check(
        "timestamp",
        timestamp > micros(table["ingestion_timestamp"]) + ahead,
        f"lies more than {seconds} s after it was first seen: a date or a clock is wrong",
    )
    yield _Check("timestamp", timestamp < TIMESTAMP_MIN, "lies before 1900")
    if "timestamp_nanos" in table.column_names:
        nanos = table["timestamp_nanos"].to_numpy()
        yield _Check("timestamp_nanos", (nanos < 0) | (nanos > 999), "is not within 0 to 999")


def _trade_ranges(table: pa.Table, exchange: Exchange) -> Iterator[_Check]:
    if exchange.asset_class not in _BELOW_ZERO:
        yield _at_most_zero(table, "price")
    yield _at_most_zero(table, "quantity")


def _quote_ranges(table: pa.Table, exchange: Exchange) -> Iterator[_Check]:
    for side in ("bid", "ask"):
        if exchange.asset_class not in _BELOW_ZERO:
            yield _at_most_zero(table, f"{side}_price", " (an empty side has no price: null)")
        yield _below_zero(table, f"{side}_quantity")


def _instrument_ranges(table: pa.Table, exchange: Exchange) -> Iterator[_Check]:
    yield _at_most_zero(table, "tick_size")


def _dividend_ranges(table: pa.Table, exchange: Exchange) -> Iterator[_Check]:
    yield _below_zero(table, "net_amount")
    yield _below_zero(table, "gross_amount")


def _correction_ranges(table: pa.Table, exchange: Exchange) -> Iterator[_Check]:
    places = [table[f"target_{name}"].is_valid().to_numpy() for name in _PLACE]
    by_id = table["trade_id"].is_valid().to_numpy()
    some, whole = np.logical_or.reduce(places), np.logical_and.reduce(places)
    yield _Check("trade_id", ~by_id & ~some, "names no trade, and no place in the log does")
    yield _Check("trade_id", by_id & some, "stands beside a place in the log: either is enough")
    three = ", ".join(f"target_{name}" for name in _PLACE)
    yield _Check("target_offset", some & ~whole, f"is one of three that go together: {three}")
    when = pc.coalesce(table["target_timestamp"], table["timestamp"])
    ahead = micros(when) - micros(table["timestamp"])
    yield _Check("target_timestamp", ahead > CLOCK_SKEW // _US, "lies after its own correction")
    yield _Check("target_timestamp", micros(when) < TIMESTAMP_MIN, "lies before 1900")
    changes = pc.or_(table["price"].is_valid(), table["quantity"].is_valid())
    corrects = pc.equal(table["action"].cast(pa.string()), "CORRECT")
    nothing = pc.and_not(corrects, changes).to_numpy()
    yield _Check("action", nothing, "needs a new price, a new quantity or both")
    yield from _trade_ranges(table, exchange)


def _split_ranges(table: pa.Table, exchange: Exchange) -> Iterator[_Check]:
    yield _at_most_zero(table, "ratio")


_RANGES: Final[dict[str, Callable[[pa.Table, Exchange], Iterator[_Check]]]] = {
    "trades": _trade_ranges,
    "quotes": _quote_ranges,
    "instruments": _instrument_ranges,
    "dividends": _dividend_ranges,
    "splits": _split_ranges,
    "corrections": _correction_ranges,
}


def _at_most_zero(table: pa.Table, column: str, more: str = "") -> _Check:
    bad = pc.fill_null(pc.less_equal(table[column], pa.scalar(0, pa.int8())), False)
    return _Check(column, bad.to_numpy(), f"is not above zero{more}")


def _below_zero(table: pa.Table, column: str) -> _Check:
    bad = pc.fill_null(pc.less(table[column], pa.scalar(0, pa.int8())), False)
    return _Check(column, bad.to_numpy(), "is below zero")


def _by_value(table: pa.Table, column: str, is_bad: Callable[[str], bool], wrong: str) -> _Check:
    """Judge the distinct values of a dictionary column, then look each row's verdict up."""
    chunks = []
    for chunk in table[column].chunks:
        verdicts = np.array([is_bad(v) for v in chunk.dictionary.to_pylist()], np.bool_)
        codes = chunk.indices.to_numpy(zero_copy_only=False)
        chunks.append(verdicts[codes] if verdicts.any() else np.zeros(len(codes), np.bool_))
    return _Check(column, np.concatenate(chunks) if chunks else np.zeros(0, np.bool_), wrong)
