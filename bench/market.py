"""Rows for the query benchmarks: 200 symbols with Zipf volumes over 5 days, from one seed."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from k2.lake import definition

SYMBOLS: Final = [f"S{n:03d}USDT" for n in range(200)]
DAYS: Final = [date(2026, 1, 5) + timedelta(days=n) for n in range(5)]
EXCHANGE: Final = "bench"
_DAY_US: Final = 86_400_000_000
_TICK: Final = 1_000_000  # 0.01 in units of 1e-8


def rows(kind: str, count: int, seed: int = 7) -> Iterator[tuple[date, pa.Table]]:
    """`count` rows of trades or quotes, a table a day, in time order; offsets ascend."""
    random = np.random.default_rng([seed, len(kind)])
    weights = 1 / np.arange(1, len(SYMBOLS) + 1)
    weights /= weights.sum()
    per_day = count // len(DAYS)
    level = np.full(len(SYMBOLS), 10_000, np.int64)
    for number, day in enumerate(DAYS):
        codes = random.choice(len(SYMBOLS), per_day, p=weights).astype(np.int32)
        begin = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1_000_000
        times = begin + np.sort(random.integers(0, _DAY_US, per_day))
        steps = random.integers(-1, 2, per_day)
        ticks = np.empty(per_day, np.int64)
        order = np.argsort(codes, kind="stable")
        walked = np.cumsum(steps[order])
        starts = np.searchsorted(codes[order], np.arange(len(SYMBOLS)))
        before = np.concatenate([[0], walked])[starts]
        ticks[order] = level[codes[order]] + walked - before[codes[order]]
        ticks = np.maximum(ticks, 100)
        first = number * per_day
        yield day, _table(kind, day, codes, times, ticks, first, random)


def _table(
    kind: str,
    day: date,
    codes: npt.NDArray[np.int32],
    times: npt.NDArray[np.int64],
    ticks: npt.NDArray[np.int64],
    first: int,
    random: np.random.Generator,
) -> pa.Table:
    n = len(codes)
    offsets = np.arange(first, first + n)
    quantity = random.integers(1, 500, n) * 100_000
    columns: dict[str, pa.Array] = {
        "symbol": pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(SYMBOLS)),
        "exchange": _constant(EXCHANGE, n),
        "timestamp": _times(times),
        "ingestion_timestamp": _times(times + 5_000),
        "id_space": _constant("", n),
        "timestamp_nanos": pa.array(np.zeros(n, np.int32)),
        "currency": _constant("USDT", n),
        "asset_class": _constant("crypto", n),
        "source": _constant("bench", n),
        "exchange_date": pa.array([day]).take(pa.array(np.zeros(n, np.int8))),
        "log_topic": _constant(f"market.crypto.{kind}.{EXCHANGE}", n),
        "log_id": _constant("bench", n),
        "log_partition": pa.array(np.zeros(n, np.int32)),
        "log_offset": pa.array(offsets),
        "source_sequence": pa.array(offsets),
    }
    if kind == "trades":
        sides = pa.array(["BUY", "SELL"])
        picked = pa.array(random.integers(0, 2, n).astype(np.int32))
        columns |= {
            "price": _decimals(ticks * _TICK),
            "quantity": _decimals(quantity),
            "trade_id": pa.array(5_100_000_000 + offsets).cast(pa.string()),
            "side": pa.DictionaryArray.from_arrays(picked, sides),
            "price_forming": pa.array(np.ones(n, np.bool_)),
        }
    else:
        columns |= {
            "bid_price": _decimals((ticks - 1) * _TICK),
            "bid_quantity": _decimals(quantity),
            "ask_price": _decimals((ticks + 1) * _TICK),
            "ask_quantity": _decimals(quantity[::-1].copy()),
        }
    schema = definition(kind).arrow
    return pa.table(
        [columns[f.name] if f.name in columns else pa.nulls(n, f.type) for f in schema],
        schema=schema,
    )


def _decimals(unscaled: npt.NDArray[np.int64]) -> pa.Array:
    words = np.column_stack([unscaled, unscaled >> 63])
    buffer = pa.py_buffer(np.ascontiguousarray(words))
    return pa.Array.from_buffers(pa.decimal128(18, 8), len(unscaled), [None, buffer])


def _times(micros: npt.NDArray[np.int64]) -> pa.Array:
    return pa.array(micros).view(pa.timestamp("us", tz="UTC"))


def _constant(value: str, n: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(n, np.int32)), pa.array([value]))
