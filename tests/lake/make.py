"""Rows to put into tables."""

from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from k2.lake import (
    Commit,
    Lake,
    LakeTable,
    Offsets,
    Snapshot,
    TopicOffsets,
    WrittenFile,
    definition,
    sort_rows,
)
from k2.model import DICTIONARY_TYPE

TOPIC = "market.crypto.trades.sim"
DAY = date(2026, 11, 20)
START = datetime(2026, 11, 20, tzinfo=UTC)


def trades(
    rows: int,
    *,
    seed: int = 0,
    first_offset: int = 0,
    partition: int = 0,
    day: date = DAY,
    symbols: int = 20,
) -> pa.Table:
    """Trades in time order, all columns filled, offsets counted up from `first_offset`."""
    random = np.random.default_rng(seed)
    midnight = int(np.datetime64(day, "us").astype(np.int64))
    times = midnight + np.sort(random.integers(0, 86_400_000_000, rows))
    names = [f"SYM{i:03d}" for i in range(symbols)]
    offsets = np.arange(first_offset, first_offset + rows)
    values: Mapping[str, Any] = {
        "symbol": of_codes(random.integers(0, symbols, rows), names),
        "exchange": constant("sim", rows),
        "timestamp": pa.array(times, pa.timestamp("us", tz="UTC")),
        "price": decimals(random.integers(10**8, 10**12, rows)),
        "quantity": decimals(random.integers(1, 1000, rows) * 10**6),
        "ingestion_timestamp": pa.array(times + 500, pa.timestamp("us", tz="UTC")),
        "trade_id": pa.array([str(n) for n in offsets.tolist()], pa.string()),
        "side": of_codes(random.integers(0, 2, rows), ["BUY", "SELL"]),
        "price_forming": pa.array(np.ones(rows, bool)),
        "id_space": constant("", rows),
        "source": constant("simulator", rows),
        "source_sequence": pa.array(offsets, pa.int64()),
        "timestamp_nanos": pa.array(np.zeros(rows), pa.int32()),
        "exchange_date": pa.array([day] * rows, pa.date32()),
        "log_topic": constant(TOPIC, rows),
        "log_id": constant("log-1", rows),
        "log_partition": pa.array(np.full(rows, partition), pa.int32()),
        "log_offset": pa.array(offsets, pa.int64()),
    }
    schema = definition("trades").arrow
    table = pa.table({f.name: values.get(f.name, pa.nulls(rows, f.type)) for f in schema}).cast(
        schema
    )
    return sort_rows(table)


def constant(value: str, rows: int) -> pa.DictionaryArray:
    return of_codes(np.zeros(rows, np.int32), [value])


def of_codes(codes: Any, names: list[str]) -> pa.DictionaryArray:
    indices = pa.array(codes, pa.int32())
    return pa.DictionaryArray.from_arrays(indices, pa.array(names)).cast(DICTIONARY_TYPE)


def decimals(unscaled: Any) -> pa.Array:
    words = np.column_stack([unscaled, unscaled >> 63]).astype("<i8").tobytes()
    kind = pa.decimal128(18, 8)
    return pa.Array.from_buffers(kind, len(unscaled), [None, pa.py_buffer(words)])


def at(offset: int, partition: int = 0, others: Offsets | None = None) -> Offsets:
    """The offsets document of one topic, with one partition at `offset`."""
    before = dict(others[TOPIC].next_offset) if others and TOPIC in others else {}
    return {TOPIC: TopicOffsets("log-1", before | {partition: offset})}


def append(table: LakeTable, rows: int, **options: Any) -> Snapshot:
    """Commit that many trades behind those that are there."""
    head = table.snapshot()
    first = head.offsets[TOPIC].next_offset.get(0, 0) if TOPIC in head.offsets else 0
    file = table.write(
        trades(rows, first_offset=first, seed=first, **options), options.get("day", DAY)
    )
    return table.commit(Commit((file,), head.offsets, at(first + rows, others=head.offsets)))


def stored(lake: Lake, name: str = "trades") -> list[tuple[int, int]]:
    """Partition and offset of every row in the table's files, sorted, read as a stranger would."""
    found: list[tuple[int, int]] = []
    for file in lake.table(name).snapshot().files.select():
        rows = pq.ParquetFile(file.path).read(["log_partition", "log_offset"])
        found += zip(*(column.to_pylist() for column in rows.columns), strict=True)
    return sorted(found)


def rejected(lake: Lake, offset: int) -> WrittenFile:
    """A ledger's file with one rejected record."""
    row = {
        "kind": "trades",
        "reason": f"bad {offset}",
        "raw": b"x",
        "log_topic": TOPIC,
        "log_id": "log-1",
        "log_partition": 0,
        "log_offset": offset,
    }
    return lake.table("rejected").write(to_table("rejected", [row]), None)


def to_table(name: str, rows: list[dict[str, object]]) -> pa.Table:
    schema = definition(name).arrow
    plain = [f.with_type(pa.string()) if pa.types.is_dictionary(f.type) else f for f in schema]
    return pa.Table.from_pylist(rows, schema=pa.schema(plain)).cast(schema)
