"""Compaction: fewer files, the same rows, and every past state as it was."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from pyiceberg.catalog.sql import SqlCatalog

from k2.errors import Broken, Refused, Unavailable
from k2.lake import (
    Bucket,
    Commit,
    Lake,
    LakeTable,
    bucket,
    definition,
    maintain,
    open_lake,
    sort_indices,
)
from k2.lake import compact as compacting
from k2.lake.compact import MERGE_AT, Job, compact, plan
from k2.model import Exchange
from tests.lake.make import DAY, append, at, rejected, stored, trades

SIM = Exchange("sim", "crypto", "UTC")
OVER = datetime(2026, 11, 21, 1, tzinfo=UTC)
"""An hour after the end of `DAY`."""


@pytest.fixture
def now() -> list[datetime]:
    return [datetime(2026, 11, 20, 12, tzinfo=UTC)]


@pytest.fixture
def lake(tmp_path: Path, now: list[datetime]) -> Iterator[Lake]:
    lake = open_lake(tmp_path / "lake", clock=lambda: now[0])
    yield lake
    lake.close()


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Days settle at a few rows already."""
    monkeypatch.setattr(compacting, "SMALL_DAY", 50)
    monkeypatch.setattr(compacting, "SETTLE_ROWS", 1000)


def declared(table: LakeTable) -> None:
    """A commit without rows that declares the exchange."""
    head = table.snapshot()
    table.commit(Commit((), head.offsets, head.offsets, exchanges=(SIM,)))


def as_of(table: LakeTable, commit: int) -> pa.Table:
    """Every row that was there by that commit, whole, in the order of the log."""
    found = []
    for file in table.snapshot().files.select(as_of=commit):
        rows = pq.ParquetFile(file.path).read()
        brought = pc.fill_null(rows["commit_sequence"], file.sequence)
        at_column = rows.schema.get_field_index("commit_sequence")
        rows = rows.set_column(at_column, "commit_sequence", brought)
        found.append(rows.filter(pc.less_equal(brought, commit)))
    order = [("log_partition", "ascending"), ("log_offset", "ascending")]
    return pa.concat_tables(found, promote_options="permissive").sort_by(order)


def jobs(table: LakeTable, when: datetime) -> list[Job]:
    snapshot = table.snapshot()
    exchanges = snapshot.exchanges.values()
    return list(plan(table.name, snapshot.files, table.buckets, exchanges, when))


# ----------------------------------------------------------------------- what is due


def test_a_day_that_grows_is_merged_sixteen_at_a_time(lake: Lake, now: list[datetime]) -> None:
    table = lake.table("trades")
    declared(table)
    for n in range(MERGE_AT):
        assert jobs(table, now[0]) == [], n
        append(table, 20)
    (job,) = jobs(table, now[0])
    assert (len(job.files), job.rows, job.day, job.bucket, job.settles) == (
        (MERGE_AT, 20 * MERGE_AT, DAY, None, 0)
    )
    done = compact(table, job)
    assert done is not None
    assert (done.files, done.commit) == (1, MERGE_AT + 2)
    assert jobs(table, now[0]) == []


def test_a_row_of_a_growing_day_is_written_few_times(lake: Lake, now: list[datetime]) -> None:
    table = lake.table("trades")
    declared(table)
    written = commits = 0
    for _ in range(300):
        append(table, 1)
        for job in jobs(table, now[0]):
            assert compact(table, job) is not None
            written, commits = written + job.rows, commits + 1
    # As many files as 300 has digits by sixteen, and of each size fewer than sixteen.
    assert len(table.snapshot().files) <= 3 * (MERGE_AT - 1)
    assert written <= 2 * 300
    assert commits <= 300 / MERGE_AT + 2
    assert [offset for _, offset in stored(lake)] == list(range(300))


@pytest.mark.usefixtures("small")
def test_a_day_that_is_over_settles_into_buckets(lake: Lake, now: list[datetime]) -> None:
    table = lake.table("trades")
    declared(table)
    for _ in range(3):
        append(table, 100)
    assert jobs(table, now[0]) == []
    # To the second: an hour after midnight in the exchange's zone.
    assert jobs(table, OVER - timedelta(seconds=1)) == []
    (job,) = jobs(table, OVER)
    assert (job.settles, len(job.files)) == (16, 3)
    assert compact(table, job) is not None

    files = table.snapshot().files.select()
    names = {f"SYM{i:03d}" for i in range(20)}
    assert len(files) == len({bucket(name) for name in names})
    assert all(file.settled for file in files)
    for file in files:
        rows = pq.ParquetFile(file.path).read(["symbol", "timestamp"])
        assert len({bucket(name) for name in rows["symbol"].to_pylist()}) == 1
        keys = list(zip(*(column.to_pylist() for column in rows.columns), strict=True))
        assert keys == sorted(keys)
    # A symbol's query opens the file of its bucket alone.
    for name in names:
        assert len(table.snapshot().files.select(symbols=[name])) == 1
    assert jobs(table, OVER) == []


def test_the_last_of_several_exchanges_ends_the_day(lake: Lake) -> None:
    table = lake.table("trades")
    zones = ("Asia/Tokyo", "America/New_York")
    exchanges = [Exchange(f"x{n}", "equities", zone) for n, zone in enumerate(zones)]
    exchanges.append(Exchange("futures", "futures", "America/Chicago", timedelta(hours=7)))
    for _ in range(2):
        append(table, 10)
    index = table.snapshot().files
    # New York's midnight is at 5:00 UTC, the futures' day ends at 17:00 in Chicago.
    over = datetime(2026, 11, 21, 6, tzinfo=UTC)
    assert not list(plan("trades", index, 16, exchanges, over - timedelta(seconds=1)))
    assert list(plan("trades", index, 16, exchanges, over))
    # Nobody can say when a day ends that no exchange has.
    assert not list(plan("trades", index, 16, [], over + timedelta(days=99)))


def test_a_small_day_becomes_one_file_without_buckets(lake: Lake) -> None:
    table = lake.table("trades")
    declared(table)
    for rows in (5, 50, 3):
        append(table, rows)
    (job,) = jobs(table, OVER)
    assert (job.settles, job.rows) == (0, 58)
    compact(table, job)
    (file,) = table.snapshot().files.select()
    assert (file.rows, file.settled) == (58, False)
    # A few late rows are not worth writing all the others again.
    append(table, 7)
    assert jobs(table, OVER) == []
    append(table, 1)
    (job,) = jobs(table, OVER)
    assert job.rows == 66


@pytest.mark.usefixtures("small")
def test_a_large_day_settles_before_it_is_over(lake: Lake, now: list[datetime]) -> None:
    table = lake.table("trades")
    declared(table)
    append(table, 600)
    assert jobs(table, now[0]) == []
    append(table, 400)
    (job,) = jobs(table, now[0])
    assert job.settles


@pytest.mark.usefixtures("small")
def test_late_records_of_a_settled_day_stay_one_file_until_they_are_many(lake: Lake) -> None:
    table = lake.table("trades")
    declared(table)
    append(table, 900)
    compact(table, jobs(table, OVER)[0])
    settled = len(table.snapshot().files)
    append(table, 5)
    assert jobs(table, OVER) == []
    append(table, 5)
    (job,) = jobs(table, OVER)
    assert (job.settles, job.rows) == (0, 10)
    compact(table, job)
    assert len(table.snapshot().files) == settled + 1
    append(table, 60)
    (job,) = jobs(table, OVER)
    assert (job.settles, job.rows) == (16, 70)
    compact(table, job)
    # Each bucket has a large file and a small one now, and these are merged.
    for job in jobs(table, OVER):
        compact(table, job)
    assert all(file.settled for file in table.snapshot().files.select())
    assert [offset for _, offset in stored(lake)] == list(range(970))


def test_a_job_is_bounded_by_rows(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compacting, "ROWS_AT_ONCE", 250)
    table = lake.table("trades")
    declared(table)
    for _ in range(MERGE_AT):
        append(table, 100)
    assert [job.rows for job in jobs(table, OVER - timedelta(days=1))] == [200] * (MERGE_AT // 2)


# ----------------------------------------------------------------------- what is done


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.usefixtures("small")
def test_every_past_state_stays_whatever_is_compacted_when(lake: Lake, seed: int) -> None:
    random = np.random.default_rng(seed)
    table = lake.table("trades")
    declared(table)
    states: dict[int, pa.Table] = {}
    for _ in range(60):
        day = DAY + timedelta(days=int(random.integers(0, 3)))
        done = append(table, int(random.integers(1, 120)), day=day, symbols=7)
        states[done.sequence] = as_of(table, done.sequence)
        if random.random() < 0.3:
            due = jobs(table, OVER + timedelta(days=int(random.integers(-1, 3))))
            for job in due[: int(random.integers(0, len(due) + 1))]:
                assert compact(table, job) is not None
    maintain(lake, "trades")
    assert len(table.snapshot().files) < 60
    for commit, rows in states.items():
        assert as_of(table, commit).equals(rows), commit


@pytest.mark.usefixtures("small")
def test_other_engines_read_the_same_rows_and_one_bucket_for_a_symbol(lake: Lake) -> None:
    table = lake.table("trades")
    declared(table)
    for _ in range(5):
        append(table, 100)
    catalog = SqlCatalog("k2", uri=f"sqlite:///{lake.folder}/catalog.db", warehouse="file:///tmp")
    columns = ("symbol", "price", "quantity", "trade_id", "timestamp", "log_offset")

    def seen(**options: Any) -> pa.Table:
        scan = catalog.load_table("market.trades").scan(selected_fields=columns, **options)
        return scan.to_arrow().sort_by("log_offset")

    before = seen()
    compact(table, jobs(table, OVER)[0])
    assert seen().equals(before)
    one = catalog.load_table("market.trades").scan("symbol = 'SYM003'")
    assert len(list(one.plan_files())) == 1
    wanted = before.filter(pc.equal(before["symbol"], "SYM003"))
    assert seen(row_filter="symbol = 'SYM003'").equals(wanted)


def test_files_of_an_older_schema_lack_columns_and_stay_whole(
    tmp_path: Path, now: list[datetime]
) -> None:
    late = ("id_space", "occurrence", "price_forming")
    old = definition("trades")
    columns = tuple(c for c in old.columns if c.name not in late)
    older = type(old)(old.name, old.doc, columns, True)
    before = open_lake(tmp_path / "old", clock=lambda: now[0])
    table = before.table("trades", older)
    rows = trades(40).drop_columns(list(late))
    table.commit(
        Commit((table.write(rows, DAY),), {}, at(40), exchanges=(SIM,)),
    )
    before.close()
    lake = open_lake(tmp_path / "old", clock=lambda: now[0])
    table = lake.table("trades")
    append(table, 40)
    states = [as_of(table, 1).drop_columns("commit_sequence"), as_of(table, 2)]

    (job,) = jobs(table, OVER)
    compact(table, job)

    found = as_of(table, 1)
    assert all(found[name].null_count == 40 for name in late)
    assert found.select(states[0].column_names).equals(states[0])
    assert as_of(table, 2).select(states[1].column_names).equals(states[1])
    lake.close()


@pytest.mark.usefixtures("small")
def test_the_number_of_buckets_changes_and_old_files_answer_with_new_ones(lake: Lake) -> None:
    table = lake.table("trades")
    declared(table)
    other_day = DAY + timedelta(days=1)
    later = OVER + timedelta(days=1)
    append(table, 300)
    compact(table, jobs(table, OVER)[0])
    states = {table.snapshot().sequence: as_of(table, table.snapshot().sequence)}
    table.set_buckets(4)
    append(table, 300, day=other_day)
    append(table, 300)
    states[table.snapshot().sequence] = as_of(table, table.snapshot().sequence)
    maintain_at(table, later)

    assert table.buckets == 4
    names = [f"SYM{i:03d}" for i in range(20)]
    for name in names:
        mine = table.snapshot().files.select(symbols=[name])
        of_first = {f.path for f in mine if f.exchange_date == DAY}
        of_second = {f.path for f in mine if f.exchange_date == other_day}
        # The first day has files of sixteen buckets and, of what came late, of four.
        assert (len(of_first), len(of_second)) == (2, 1)
        found = pa.concat_tables([pq.read_table(f.path, columns=["symbol"]) for f in mine])
        whole = as_of(table, table.snapshot().sequence)
        wanted = pc.sum(pc.equal(whole["symbol"], name)).as_py()
        assert pc.sum(pc.equal(found["symbol"], name)).as_py() == wanted
    for commit, rows in states.items():
        assert as_of(table, commit).equals(rows)
    # Other engines plan by both.
    catalog = SqlCatalog("k2", uri=f"sqlite:///{lake.folder}/catalog.db", warehouse="file:///tmp")
    scan = catalog.load_table("market.trades").scan(f"symbol = '{names[0]}'")
    assert len(list(scan.plan_files())) == 3
    assert scan.to_arrow().num_rows == pc.sum(pc.equal(whole["symbol"], names[0])).as_py()
    # Back to sixteen: the spec that there was.
    table.set_buckets(16)
    assert len(table.head().metadata["partition-specs"]) == 3
    with pytest.raises(Refused):
        lake.table("gaps").set_buckets(4)


def maintain_at(table: LakeTable, when: datetime) -> None:
    while due := jobs(table, when):
        for job in due:
            assert compact(table, job) is not None


def test_ledgers_are_merged_too_and_times_are_still_found(lake: Lake, now: list[datetime]) -> None:
    table = lake.table("trades")
    commits: dict[int, datetime] = {}
    for n in range(2 * MERGE_AT):
        now[0] += timedelta(minutes=1)
        head = table.snapshot()
        file = table.write(trades(5, first_offset=6 * n), DAY)
        outbox = (rejected(lake, 6 * n + 5),)
        done = table.commit(Commit((file,), head.offsets, at(6 * n + 6), outbox=outbox))
        commits[done.sequence] = now[0]
        # Others' commits stand between: files of one size are then no neighbours.
        lake.absorb("trades")
        if n % 5 == 0:
            lake.tag("trades", f"tag-{n}")
    before = lake.commits_of("trades")
    for name in ("commits", "rejected"):
        assert maintain(lake, name).commits
    assert lake.commits_of("trades").equals(before)
    assert len(lake.ledger_files("rejected")) < MERGE_AT
    assert sum(file.rows for file in lake.ledger_files("rejected")) == 2 * MERGE_AT
    for commit, when in commits.items():
        assert lake.resolve_as_of("trades", when) == commit
        assert lake.resolve_as_of("trades", when + timedelta(seconds=30)) == commit


def test_what_others_commit_meanwhile_stays(lake: Lake, tmp_path: Path) -> None:
    table = lake.table("trades")
    declared(table)
    for _ in range(2):
        append(table, 50)
    other = open_lake(tmp_path / "lake")

    def step(name: str) -> None:
        if name == "commit":
            append(other.table("trades"), 30)

    assert compact(table, jobs(table, OVER)[0], step) is not None
    assert [offset for _, offset in stored(lake)] == list(range(130))
    other.close()


def test_files_that_somebody_else_compacted_are_left_to_them(lake: Lake, tmp_path: Path) -> None:
    table = lake.table("trades")
    declared(table)
    for _ in range(2):
        append(table, 50)
    (job,) = jobs(table, OVER)
    other = open_lake(tmp_path / "lake", clock=lambda: OVER)

    def step(name: str) -> None:
        if name == "commit":
            assert maintain(other, "trades").commits == 1

    assert compact(table, job, step) is None
    assert [offset for _, offset in stored(lake)] == list(range(100))
    # What was written in vain is gone.
    named = {file.path for file in (*job.files, *table.snapshot().files.select())}
    assert {str(p) for p in (lake.folder / "tables/trades").rglob("*.parquet")} == named
    other.close()


@pytest.mark.parametrize("step", ["read", "write", "commit", "answer"])
def test_killed_at_any_step_nothing_is_lost_or_doubled(lake: Lake, step: str) -> None:
    table = lake.table("trades")
    declared(table)
    for _ in range(3):
        append(table, 50)

    def die(name: str) -> None:
        if name == step:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compact(table, jobs(table, OVER)[0], die)
    assert [offset for _, offset in stored(lake)] == list(range(150))
    for job in jobs(table, OVER):
        compact(table, job)
    assert [offset for _, offset in stored(lake)] == list(range(150))
    assert len(table.snapshot().files) == 1


# ----------------------------------------------------------------------- what is checked


def test_a_sort_that_loses_a_row_is_noticed(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    table = lake.table("trades")
    declared(table)
    append(table, 50)
    append(table, 50)
    right = sort_indices

    def wrong(rows: pa.Table) -> Any:
        order = right(rows)
        order[7] = order[8]
        return order

    monkeypatch.setattr(compacting, "sort_indices", wrong)
    with pytest.raises(Broken, match="lost rows"):
        compact(table, jobs(table, OVER)[0])
    assert [offset for _, offset in stored(lake)] == list(range(100))


@pytest.mark.parametrize("column", ["price", "symbol", "trade_id", "commit_sequence", "source"])
def test_a_disk_that_gives_back_something_else_is_noticed(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, column: str
) -> None:
    table = lake.table("trades")
    declared(table)
    append(table, 50)
    append(table, 50)
    write = LakeTable.write

    def spoilt(
        self: LakeTable, rows: pa.Table, day: date | None, *, bucket: Bucket | None = None
    ) -> Any:
        values = rows[column].to_pylist()
        values[3] = next((value for value in values if value != values[3]), None)
        at_column = rows.schema.get_field_index(column)
        kind = rows.schema.field(column).type
        plain = kind.value_type if pa.types.is_dictionary(kind) else kind
        changed = pa.array(values, plain).cast(kind)
        try:
            return write(self, rows.set_column(at_column, rows.schema.field(column), changed), day)
        except Exception as error:
            raise AssertionError from error

    monkeypatch.setattr(LakeTable, "write", spoilt)
    with pytest.raises(Broken, match=column):
        compact(table, jobs(table, OVER)[0])
    assert [offset for _, offset in stored(lake)] == list(range(100))
    files = {str(p) for p in (lake.folder / "tables/trades").rglob("*.parquet")}
    assert files == {file.path for file in table.snapshot().files.select()}


def test_a_damaged_file_stops_its_own_job_with_a_way_out(lake: Lake) -> None:
    table = lake.table("trades")
    declared(table)
    append(table, 50)
    append(table, 50)
    path = table.snapshot().files.select()[0].path
    Path(path).write_bytes(b"PAR1 and no more")
    with pytest.raises(Broken, match="cannot be read") as caught:
        compact(table, jobs(table, OVER)[0])
    assert caught.value.place == path
    assert "k2 rebuild" in str(caught.value.hint)


def test_a_full_disk_changes_nothing(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    table = lake.table("trades")
    declared(table)
    append(table, 50)
    append(table, 50)

    def full(*_: Any, **__: Any) -> Any:
        raise Unavailable("no space is left on the disk")

    monkeypatch.setattr(LakeTable, "write", full)
    with pytest.raises(Unavailable):
        compact(table, jobs(table, OVER)[0])
    assert [offset for _, offset in stored(lake)] == list(range(100))
