"""Other engines read the tables without K2 and see the same; and may write to them."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.table import StaticTable
from pyiceberg.transforms import BucketTransform
from pyiceberg.types import StringType

from k2.errors import Refused
from k2.lake import BUCKETS, Bucket, Commit, Lake, bucket, definition, open_lake, sort_rows
from k2.lake.tables import of_kind
from k2.model import versions
from tests.lake.make import DAY, TOPIC, append, at, stored, trades


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lake]:
    lake = open_lake(tmp_path / "a lake")
    yield lake
    lake.close()


def catalog(lake: Lake) -> SqlCatalog:
    uri = f"sqlite:///{lake.folder}/catalog.db"
    return SqlCatalog("k2", uri=uri, warehouse=f"file://{lake.folder}/tables")


def settle(lake: Lake, rows: int) -> None:
    """Commit that many trades as settled files, one a bucket."""
    table = lake.table("trades")
    head = table.snapshot()
    first = head.offsets[TOPIC].next_offset[0] if head.offsets else 0
    batch = trades(rows, first_offset=first)
    buckets = pa.array([bucket(s) for s in batch["symbol"].to_pylist()])
    files = tuple(
        table.write(batch.filter(pc.equal(buckets, b)), DAY, bucket=Bucket(b, BUCKETS))
        for b in sorted(set(buckets.to_pylist()))
    )
    table.commit(Commit(files, head.offsets, at(first + rows)))


def plain(table: pa.Table) -> pa.Table:
    """Text as text, rows in the log's order."""
    fields = [
        f.with_type(pa.string())
        if pa.types.is_dictionary(f.type) or pa.types.is_large_string(f.type)
        else f
        for f in table.schema.remove_metadata()
    ]
    bare = [pa.field(f.name, f.type) for f in fields]
    return table.cast(pa.schema(bare)).sort_by("log_offset")


def test_pyiceberg_polars_and_duckdb_read_the_same_rows(lake: Lake) -> None:
    append(lake.table("trades"), 300)
    settle(lake, 300)
    written = plain(pa.concat_tables([trades(300), trades(300, first_offset=300)]))
    head = lake.table("trades").head()
    paths = [file.path for file in head.snapshot.files.select()]

    by_catalog = catalog(lake).load_table("market.trades").scan().to_arrow()
    by_document = StaticTable.from_metadata(head.location).scan().to_arrow()
    by_polars = pl.read_parquet(paths, hive_partitioning=False).to_arrow()
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone='UTC'")
        reading = connection.sql(
            "FROM read_parquet($paths, hive_partitioning = false)", params={"paths": paths}
        )
        by_duckdb = reading.to_arrow_table()

    assert len(paths) > 10
    for found in (by_catalog, by_document, by_polars, by_duckdb):
        assert plain(found.select(written.schema.names)).equals(written)


def test_pyiceberg_prunes_by_day_symbol_and_time(lake: Lake) -> None:
    append(lake.table("trades"), 300)
    settle(lake, 300)
    append(lake.table("trades"), 300, day=DAY + timedelta(days=1))
    table = catalog(lake).load_table("market.trades")

    def planned(where: str) -> int:
        return len(list(table.scan(where).plan_files()))

    assert planned(f"exchange_date = '{DAY + timedelta(days=1)}'") == 1
    assert planned("symbol = 'SYM003'") == 3
    assert planned("timestamp < '2026-11-20T00:00:00+00:00'") == 0
    assert planned("log_offset >= 600") == 1
    assert planned("log_partition = 7") == 0
    assert planned("trade_id = '599'") > 0


@pytest.mark.parametrize("symbol", ["BTCUSDT", "", "BTC/USD", "ABCDE", "é", "株式会社", "x" * 99])
def test_buckets_are_iceberg_s(symbol: str) -> None:
    assert bucket(symbol) == BucketTransform(16).transform(StringType())(symbol)


def test_every_table_opens_in_pyiceberg_with_its_documents(lake: Lake) -> None:
    for name in ("trades", "quotes", "instruments", "dividends", "splits", "gaps", "commits"):
        lake.table(name)
        schema = catalog(lake).load_table(f"market.{name}").schema()
        assert tuple(f.name for f in schema.fields) == definition(name).names
        assert all(f.doc for f in schema.fields)


def test_a_commit_of_another_engine_keeps_offsets_and_commits_go_on(lake: Lake) -> None:
    append(lake.table("trades"), 100)
    foreign = catalog(lake).load_table("market.trades")
    rows = foreign.scan(limit=10).to_arrow()
    foreign.append(rows)

    assert lake.table("trades").snapshot().files.rows == 110
    done = append(lake.table("trades"), 100)

    assert (done.sequence, done.files.rows, done.offsets) == (3, 210, at(200))
    assert catalog(lake).load_table("market.trades").scan().to_arrow().num_rows == 210
    lake.absorb("trades")
    assert lake.commits_of("trades")["rows"].to_pylist() == [100, 10, 100]


def test_a_snapshot_that_another_engine_tagged_is_kept(tmp_path: Path) -> None:
    lake = open_lake(tmp_path, keep_snapshots=2)
    first = append(lake.table("trades"), 10)
    assert first.snapshot_id is not None
    foreign = catalog(lake).load_table("market.trades")
    foreign.manage_snapshots().create_tag(first.snapshot_id, "kept").commit()
    for _ in range(5):
        append(lake.table("trades"), 10)
        lake.absorb("trades")

    assert len(lake.table("trades").head().metadata["snapshots"]) == 3
    foreign = catalog(lake).load_table("market.trades")
    assert foreign.scan().use_ref("kept").to_arrow().num_rows == 10
    lake.close()


def test_a_table_of_the_first_version_gets_the_new_columns_without_a_rewrite(
    tmp_path: Path,
) -> None:
    first = of_kind(versions("trades")[0])
    old = open_lake(tmp_path)
    table = old.table("trades", first)
    batch = trades(50).select(first.names)
    table.commit(Commit((table.write(batch, DAY),), {}, at(50)))
    (before,) = table.snapshot().files.select()
    old.close()

    lake = open_lake(tmp_path)
    done = append(lake.table("trades"), 50)

    assert before in done.files.select()
    assert lake.table("trades").head().metadata["current-schema-id"] == 1
    ids = done.field_ids
    assert [ids[n] for n in first.names] == list(range(1, len(first.names) + 1))
    assert tuple(ids) == definition("trades").names
    found = catalog(lake).load_table("market.trades").scan().to_arrow().sort_by("log_offset")
    assert found["trade_id"].to_pylist() == [None] * 50 + [str(n) for n in range(50, 100)]
    assert plain(found.slice(0, 50).select(first.names)).equals(plain(batch))
    assert stored(lake) == [(0, n) for n in range(100)]
    lake.close()


def test_a_version_that_does_not_know_a_column_does_not_write(tmp_path: Path) -> None:
    open_lake(tmp_path).table("trades")
    first = of_kind(versions("trades")[0])
    table = open_lake(tmp_path).table("trades", first)

    assert table.snapshot().sequence == 0
    with pytest.raises(Refused, match="does not know: trade_id") as caught:
        table.write(trades(5).select(first.names), DAY)
    assert caught.value.hint == "upgrade K2 before it writes to this table"


def test_a_column_cannot_change_its_type(tmp_path: Path) -> None:
    open_lake(tmp_path).table("trades")
    wanted = definition("trades")
    price = next(c for c in wanted.columns if c.name == "price")
    columns = tuple(
        replace(c, arrow=pa.decimal128(18, 6)) if c is price else c for c in wanted.columns
    )
    with pytest.raises(Refused, match="price cannot change"):
        open_lake(tmp_path).table("trades", replace(wanted, columns=columns))


def test_files_are_laid_out_as_measured(lake: Lake) -> None:
    table = lake.table("trades")
    footer = pq.read_metadata(table.write(sort_rows(trades(1000)), DAY).path)
    columns: dict[str, Any] = {
        footer.row_group(0).column(i).path_in_schema: footer.row_group(0).column(i)
        for i in range(footer.num_columns)
    }

    assert footer.schema.column(3).name == "price"
    assert str(columns["price"].physical_type) == "INT64"
    for name in ("timestamp", "price", "log_offset", "source_sequence"):
        assert "DELTA_BINARY_PACKED" in columns[name].encodings
    assert "RLE_DICTIONARY" in columns["symbol"].encodings
    assert "DELTA_LENGTH_BYTE_ARRAY" in columns["trade_id"].encodings
    assert {c.compression for c in columns.values()} == {"ZSTD"}
    assert columns["symbol"].statistics.max == "SYM019"
    # What is constant is left out by the engine, which knows it from these.
    assert columns["timestamp_nanos"].statistics.max == 0
    assert columns["price_forming"].statistics.min is True
    assert columns["quantity"].statistics.has_min_max
    ids = {f.name: int(f.metadata[b"PARQUET:field_id"]) for f in footer.schema.to_arrow_schema()}
    assert ids == table.snapshot().field_ids
