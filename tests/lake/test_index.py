"""The file index: never a file too few, as few as another engine's plan, cheap to keep."""

import random
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.table import Table

from k2.lake import (
    BUCKETS,
    Bucket,
    Commit,
    DataFileRef,
    Lake,
    LakeTable,
    bucket,
    open_lake,
)
from k2.lake.stage import MERGE_AT
from tests.lake.make import DAY, TOPIC, append, at, trades

SYMBOLS = 20
DAYS = 4
COMMITS = 2 * MERGE_AT + 6


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    """Fresh files of few symbols, then some settled files whose rows keep older commits."""
    lake = open_lake(tmp_path_factory.mktemp("lake"))
    chance = random.Random(7)
    table = lake.table("trades")
    for n in range(COMMITS):
        day = DAY + timedelta(days=n % DAYS)
        append(table, chance.randint(1, 8), day=day, symbols=chance.randint(1, SYMBOLS))
    for n in range(3):
        settle(table, [2 + n, None, 5 + n], DAY + timedelta(days=n))
    yield lake
    lake.close()


def settle(table: LakeTable, commits: list[int | None], day: date) -> None:
    """Add rows as compaction leaves them: one file a bucket, with the commits written out."""
    head = table.snapshot()
    first = head.offsets[TOPIC].next_offset[0]
    rows = trades(60, first_offset=first, seed=first, day=day)
    column = pa.array([commits[i % len(commits)] for i in range(60)], pa.int64())
    rows = rows.set_column(
        rows.schema.get_field_index("commit_sequence"), "commit_sequence", column
    )
    buckets = np.array([bucket(s) for s in rows["symbol"].to_pylist()])
    files = tuple(
        table.write(rows.filter(pa.array(buckets == b)), day, bucket=Bucket(int(b), BUCKETS))
        for b in np.unique(buckets)
    )
    table.commit(Commit(files, head.offsets, at(first + 60)))


@pytest.fixture(scope="module")
def iceberg(lake: Lake) -> Table:
    catalog = SqlCatalog("k2", uri=f"sqlite:///{lake.folder}/catalog.db", warehouse="file:///tmp")
    return catalog.load_table("market.trades")


symbols = st.lists(st.integers(0, SYMBOLS).map(lambda n: f"SYM{n:03d}"), min_size=1, max_size=3)
days = st.integers(-1, DAYS).map(lambda n: DAY + timedelta(days=n))
moments = st.integers(-3600, DAYS * 86400).map(
    lambda s: datetime(DAY.year, DAY.month, DAY.day, tzinfo=UTC) + timedelta(seconds=s)
)
ids = st.integers(0, 300).map(str)
selections = st.fixed_dictionaries(
    {},
    optional={
        "symbols": symbols,
        "dates": st.tuples(days, days).map(sorted).map(tuple),
        "times": st.tuples(moments, moments).map(sorted).map(tuple),
        "trade_ids": st.tuples(ids, ids).map(sorted).map(tuple),
        "as_of": st.integers(0, COMMITS + 4),
    },
)
quick = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@cache
def rows_of(path: str) -> pa.Table:
    return pq.ParquetFile(path).read()


def matching(file: DataFileRef, wanted: dict[str, Any]) -> pa.Table:
    rows = rows_of(file.path)
    commit = pc.coalesce(rows["commit_sequence"], pa.scalar(file.sequence, pa.int64()))
    mask = pa.array(np.ones(rows.num_rows, bool))
    if "symbols" in wanted:
        mask = pc.and_(mask, pc.is_in(rows["symbol"], pa.array(wanted["symbols"])))
    for name, column in (("dates", "exchange_date"), ("trade_ids", "trade_id")):
        if name in wanted:
            first, last = wanted[name]
            mask = pc.and_(mask, pc.greater_equal(rows[column], first))
            mask = pc.and_(mask, pc.less_equal(rows[column], last))
    if "times" in wanted:
        start, end = wanted["times"]
        mask = pc.and_(mask, pc.greater_equal(rows["timestamp"], start))
        mask = pc.and_(mask, pc.less(rows["timestamp"], end))
    if "as_of" in wanted:
        mask = pc.and_(mask, pc.less_equal(commit, wanted["as_of"]))
    return rows.filter(mask)


@quick
@given(wanted=selections)
def test_no_file_with_a_matching_row_is_left_out(lake: Lake, wanted: dict[str, Any]) -> None:
    files = lake.table("trades").snapshot().files
    chosen = set(files.select(**wanted))
    paths = {file.path for file in chosen}

    for file in files.select():
        if file.path not in paths:
            assert matching(file, wanted).num_rows == 0


@quick
@given(as_of=st.integers(0, COMMITS + 4))
def test_whole_files_need_no_filter_as_of(lake: Lake, as_of: int) -> None:
    chosen = lake.table("trades").snapshot().files.select(as_of=as_of)

    for file in chosen:
        assert file.whole == (matching(file, {"as_of": as_of}).num_rows == file.rows)
        assert matching(file, {"as_of": as_of}).num_rows > 0


@quick
@given(wanted=selections.filter(lambda wanted: wanted and "as_of" not in wanted))
def test_the_plan_is_pyiceberg_s(lake: Lake, iceberg: Table, wanted: dict[str, Any]) -> None:
    terms = []
    if "symbols" in wanted:
        terms.append("(" + " or ".join(f"symbol = '{s}'" for s in wanted["symbols"]) + ")")
    if "dates" in wanted:
        first, last = wanted["dates"]
        terms.append(f"exchange_date >= '{first}' and exchange_date <= '{last}'")
    if "times" in wanted:
        start, end = wanted["times"]
        terms.append(f"timestamp >= '{start.isoformat()}' and timestamp < '{end.isoformat()}'")
    if "trade_ids" in wanted:
        low, high = wanted["trade_ids"]
        terms.append(f"trade_id >= '{low}' and trade_id <= '{high}'")
    planned = {
        task.file.file_path.removeprefix("file://")
        for task in iceberg.scan(" and ".join(terms)).plan_files()
    }

    chosen = {f.path for f in lake.table("trades").snapshot().files.select(**wanted)}

    assert chosen == planned


def test_the_index_kept_up_equals_the_one_read_anew(lake: Lake) -> None:
    kept = lake.table("trades").snapshot().files
    anew = open_lake(lake.folder, read_only=True)

    assert set(kept.select()) == set(anew.table("trades").snapshot().files.select())
    assert len(lake.table("trades").head().manifests) < 2 * MERGE_AT
    assert kept.rows == sum(file.rows for file in kept.select())
    anew.close()


def test_a_missing_bound_may_match(tmp_path: Path) -> None:
    lake = open_lake(tmp_path)
    table = lake.table("trades")
    file = table.write(trades(10), DAY)
    bare = {k: v for k, v in file.data_file.items() if not k.endswith(("_bounds", "_counts"))}
    object.__setattr__(file, "data_file", bare)
    done = table.commit(Commit((file,), {}, at(10))).files

    assert len(done.select(symbols=["ZZZ"], trade_ids=("a", "b"), as_of=1)) == 1
    assert len(done.select(times=(datetime(1999, 1, 1, tzinfo=UTC), None))) == 1
    assert done.select(as_of=1)[0].whole
    (partial,) = done.select(as_of=0)
    assert not partial.whole
    lake.close()


def test_symbols_order_as_bytes_do(tmp_path: Path) -> None:
    lake = open_lake(tmp_path)
    table = lake.table("trades")
    rows = trades(3, symbols=1)
    names = pa.array(["Z", "é", "株"]).dictionary_encode()
    file = table.write(rows.set_column(0, "symbol", names), DAY)
    files = table.commit(Commit((file,), {}, at(3))).files

    for symbol in ("Z", "a", "é", "株"):
        assert files.select(symbols=[symbol])
    for symbol in ("A", "", "𝄞"):
        assert not files.select(symbols=[symbol])
    (only,) = files.select()
    assert (only.min_symbol, only.max_symbol) == ("Z", "株")
    lake.close()


def test_times_are_half_open(tmp_path: Path) -> None:
    lake = open_lake(tmp_path)
    files = append(lake.table("trades"), 10).files
    (only,) = files.select()
    assert only.min_timestamp is not None
    assert only.max_timestamp is not None
    dawn = datetime(1970, 1, 1, tzinfo=UTC)
    first = dawn + timedelta(microseconds=only.min_timestamp)
    last = dawn + timedelta(microseconds=only.max_timestamp)

    assert files.select(times=(last, None)) == files.select(times=(first, last)) == (only,)
    assert files.select(times=(None, first)) == ()
    assert files.select(times=(last + timedelta(microseconds=1), None)) == ()
    lake.close()


def test_merged_manifests_tell_who_added_each_file(lake: Lake, iceberg: Table) -> None:
    snapshot = iceberg.current_snapshot()
    assert snapshot is not None
    manifests = snapshot.manifests(iceberg.io)
    assert any(m.existing_files_count for m in manifests)
    for manifest in manifests:
        entries = manifest.fetch_manifest_entry(iceberg.io)
        new = [e.snapshot_id == manifest.added_snapshot_id for e in entries]
        assert [e.status.name == "ADDED" for e in entries] == new
        assert sum(new) == manifest.added_files_count
        assert len(new) - sum(new) == manifest.existing_files_count
        assert manifest.min_sequence_number == min(e.sequence_number or 0 for e in entries)
