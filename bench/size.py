"""Bytes a trade: settled files of K2 beside ClickHouse's measured figure, and other formats."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.csv as pc_csv
import pyarrow.parquet as pq

from bench.home import folder
from bench.market import rows
from bench.report import show
from k2.lake import bucket, definition, sort_rows
from k2.lake.files import write_parquet
from k2.model import encode, latest

ROWS, QUICK_ROWS = 2_000_000, 100_000
CLICKHOUSE: Final = 11.4
"""Bytes a trade of MergeTree on such data, as measured before K2 was written."""
PEERS: Final = (
    "symbol",
    "exchange",
    "timestamp",
    "price",
    "quantity",
    "trade_id",
    "side",
    "source_sequence",
)


def run(*, quick: bool = False) -> None:
    """Print bytes a trade, and how many times larger other formats are than K2's settled file."""
    count = QUICK_ROWS if quick else ROWS
    _, made = next(iter(rows("trades", count * 5)))
    every = definition("trades")
    with folder("size") as home:
        ours = _settled(home / "peers", made, PEERS)
        whole = _settled(home / "whole", made, every.names)
        plain = made.select(PEERS)
        pq.write_table(plain, home / "snappy.parquet", compression="snappy")
        pc_csv.write_csv(_texts(plain), home / "plain.csv")
        pl.DataFrame(pl.from_arrow(_texts(plain))).write_ndjson(home / "plain.ndjson")
        avro = encode(made.select(latest("trades").arrow.names).combine_chunks(), latest("trades"))
        wire = pa.compute.sum(pa.compute.binary_length(avro)).as_py() + 5 * count
        others = [
            ("Parquet with Snappy", (home / "snappy.parquet").stat().st_size / count),
            ("Avro on the wire, all fields", wire / count),
            ("CSV", (home / "plain.csv").stat().st_size / count),
            ("JSON lines", (home / "plain.ndjson").stat().st_size / count),
        ]
    show(
        f"Bytes a trade over {count:,} trades (base: settled, the columns that peers have)",
        ["", "bytes a trade", "over the base"],
        [
            ["settled, the columns that peers have", ours, 1.0],
            ["settled, all columns and lineage", whole, whole / ours],
            ["ClickHouse, as measured elsewhere", CLICKHOUSE, CLICKHOUSE / ours],
            *([name, size, size / ours] for name, size in others),
        ],
    )


def _settled(home: Path, made: pa.Table, names: Sequence[str]) -> float:
    """Bytes a trade of these columns, as compaction lays them out."""
    home.mkdir()
    every = definition("trades")
    of = replace(every, columns=tuple(c for c in every.columns if c.name in names))
    symbols = made["symbol"].combine_chunks()
    numbers = np.array([bucket(name) for name in symbols.dictionary.to_pylist()])
    mine = numbers[symbols.indices.to_numpy()]
    ids = {name: n for n, name in enumerate(of.names)}
    for number in np.unique(mine):
        part = sort_rows(made.filter(pa.array(mine == number)).combine_chunks())
        write_parquet(home / f"{number}.parquet", part.select(of.names), of, ids)
    return sum(path.stat().st_size for path in home.iterdir()) / made.num_rows


def _texts(table: pa.Table) -> pa.Table:
    """Dictionaries and decimals as the text that a file has."""
    kinds = [
        f.with_type(pa.string())
        if pa.types.is_dictionary(f.type) or pa.types.is_decimal(f.type)
        else f
        for f in table.schema
    ]
    return table.cast(pa.schema(kinds))
