"""Ends of days, as lived: which commits get their names, once, and which days have none."""

import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from k2.errors import NotFound
from k2.lake import Commit, Lake, LakeTable, Offsets, TopicOffsets, open_lake, tag_closes
from k2.model import Exchange, exchange_dates
from tests.lake import make
from tests.query.rewriting import compact

ASX = Exchange("ASX", "equities", "Australia/Sydney")
SIM = Exchange("sim", "crypto", "UTC")
CME = Exchange("CME", "futures", "America/Chicago", timedelta(hours=7))
NOON = datetime(2026, 11, 20, 1, tzinfo=UTC)
"""Noon of the 20th in Sydney; the evening of the 19th in Chicago, where the 20th has begun."""
DAY = timedelta(days=1)


class Clock:
    now = NOON

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def lake(tmp_path: Path, clock: Clock) -> Iterator[Lake]:
    lake = open_lake(tmp_path / "lake", clock=clock)
    yield lake
    lake.close()


def day_of(when: datetime, exchange: Exchange) -> date:
    micros = np.array([int(when.timestamp()) * 1_000_000], np.int64)
    return date(1970, 1, 1) + int(exchange_dates(micros, exchange)[0]) * DAY


def bring(table: LakeTable, *records: tuple[datetime, Exchange], whole: bool = True) -> int:
    """Commit one record for each time and exchange, in a file a day; the commit's number."""
    head = table.snapshot()
    first = head.offsets[make.TOPIC].next_offset[0] if head.offsets else 0
    days: dict[date, list[tuple[datetime, Exchange]]] = {}
    for when, exchange in records:
        days.setdefault(day_of(when, exchange), []).append((when, exchange))
    files, offset = [], first
    for day, mine in days.items():
        rows = make.trades(len(mine), first_offset=offset, day=day)
        names = pa.array([of.name for _, of in mine]).dictionary_encode()
        times = pa.array([when for when, _ in mine], pa.timestamp("us", "UTC"))
        for name, column in (("exchange", names), ("timestamp", times)):
            rows = rows.set_column(rows.schema.get_field_index(name), name, column)
        files.append(table.write(_shaped(rows, table), day))
        offset += len(mine)
    end: Offsets = {make.TOPIC: TopicOffsets("log-1", {0: offset})}
    exchanges = tuple({of.name: of for _, of in records}.values())
    commit = Commit(tuple(files), head.offsets, end, exchanges=exchanges)
    return table.commit(commit).sequence


def _shaped(rows: pa.Table, table: LakeTable) -> pa.Table:
    schema = table.definition.arrow
    if table.name == "trades":
        return rows.cast(schema)
    filled = dict.fromkeys(
        ("bid_price", "ask_price", "bid_quantity", "ask_quantity"), rows["price"]
    )
    columns = [
        (rows[f.name] if f.name in rows.column_names else filled.get(f.name)) for f in schema
    ]
    return pa.table(
        [
            pa.nulls(rows.num_rows, f.type) if column is None else column.cast(f.type)
            for f, column in zip(schema, columns, strict=True)
        ],
        schema=schema,
    )


def tags(lake: Lake, kind: str = "trades") -> dict[str, int]:
    rows = lake.commits_of(kind).to_pylist()
    return {row["tag"]: row["commit"] for row in rows if row["operation"] == "tag"}


def close_of(exchange: Exchange, day: date) -> datetime:
    local = datetime.combine(day + DAY, datetime.min.time(), ZoneInfo(exchange.zone))
    return local - exchange.day_roll


def test_the_last_commit_of_the_day_is_its_close(lake: Lake, clock: Clock) -> None:
    table = lake.table("trades")
    bring(table, (NOON, ASX))
    clock.now += timedelta(hours=2)
    last = bring(table, (clock.now, ASX), (clock.now, SIM))
    close = close_of(ASX, date(2026, 11, 20))
    clock.now = close + timedelta(minutes=1)
    bring(table, (NOON, ASX))  # late: of the 20th, and it came after its end
    assert tag_closes(lake, clock.now) == []  # a commit may be under way yet
    clock.now = close + timedelta(minutes=5)
    assert tag_closes(lake, clock.now) == ["ASX-2026-11-20-close"]
    assert tags(lake) == {"ASX-2026-11-20-close": last}
    assert lake.resolve_as_of("trades", "ASX-2026-11-20-close") == last
    assert tag_closes(lake, clock.now) == []
    clock.now = close_of(SIM, date(2026, 11, 20)) + timedelta(hours=1)
    assert tag_closes(lake, clock.now) == ["sim-2026-11-20-close"]
    # By the end of the day in UTC the late record was there.
    assert tags(lake)["sim-2026-11-20-close"] == last + 1


def test_a_day_that_rolls_ends_when_it_rolls(lake: Lake, clock: Clock) -> None:
    table = lake.table("trades")
    commit = bring(table, (NOON, CME))
    close = close_of(CME, date(2026, 11, 20))
    assert close == datetime(2026, 11, 20, 23, tzinfo=UTC)
    clock.now = close + timedelta(minutes=4)
    assert tag_closes(lake, clock.now) == []
    clock.now += timedelta(minutes=1)
    assert tag_closes(lake, clock.now) == ["CME-2026-11-20-close"]
    assert tags(lake) == {"CME-2026-11-20-close": commit}


def test_only_days_that_were_lived(lake: Lake, clock: Clock) -> None:
    table = lake.table("trades")
    bring(table, (NOON - 400 * DAY, ASX), (NOON - DAY, ASX), (NOON, SIM))
    clock.now += 10 * DAY
    bring(table, (NOON + 2 * DAY, ASX))
    # The past was loaded after it ended, and ASX had no row of the 20th.
    assert tag_closes(lake, clock.now) == ["sim-2026-11-20-close"]


def test_many_days_at_once_and_the_next_from_there_on(lake: Lake, clock: Clock) -> None:
    table = lake.table("trades")
    wanted = {}
    for day in range(5):
        clock.now = NOON + day * DAY
        commit = bring(table, (clock.now, ASX), (clock.now, SIM))
        for of in (ASX, SIM):
            wanted[f"{of.name}-{day_of(clock.now, of)}-close"] = commit
    clock.now += 2 * DAY
    assert tag_closes(lake, clock.now) == sorted(wanted)
    assert tags(lake) == wanted
    commits = lake.table("commits").snapshot().sequence
    clock.now += DAY
    bring(table, (clock.now - 4 * DAY, ASX))  # late, of a day that is decided
    clock.now += DAY
    assert tag_closes(lake, clock.now) == []
    lake.absorb("trades")
    assert lake.table("commits").snapshot().sequence == commits + 1


def test_compaction_hides_no_day_and_makes_none(lake: Lake, clock: Clock) -> None:
    table = lake.table("trades")
    early = bring(table, (NOON, SIM), (NOON + timedelta(hours=1), CME))
    close = close_of(SIM, date(2026, 11, 20))
    clock.now = close + timedelta(hours=2)
    bring(table, (NOON, ASX), (NOON, SIM))
    compact(table, buckets=False)
    (file,) = table.snapshot().files.select()
    assert pq.read_metadata(file.path).num_row_groups == 1  # so that statistics do not tell
    assert tag_closes(lake, close + DAY) == ["CME-2026-11-20-close", "sim-2026-11-20-close"]
    assert set(tags(lake).values()) == {early}


def test_quotes_and_corrections_are_tagged_besides(lake: Lake, clock: Clock) -> None:
    bring(lake.table("trades"), (NOON, SIM))
    clock.now += timedelta(hours=1)
    quotes = [bring(lake.table("quotes"), (NOON, ASX), (NOON, SIM)) for _ in range(3)]
    corrections = lake.table("corrections").commit(Commit((), {}, {})).sequence
    clock.now = close_of(SIM, date(2026, 11, 20)) + timedelta(hours=1)
    lake.table("corrections").commit(Commit((), {}, {}))
    assert tag_closes(lake, clock.now) == ["ASX-2026-11-20-close", "sim-2026-11-20-close"]
    assert tags(lake) == {"sim-2026-11-20-close": 1}
    names = ["ASX-2026-11-20-close", "sim-2026-11-20-close"]
    assert tags(lake, "quotes") == dict.fromkeys(names, quotes[-1])
    assert tags(lake, "corrections") == dict.fromkeys(names, corrections)
    # A table without that exchange is found by the time of the one that has it.
    assert lake.resolve_as_of("trades", "ASX-2026-11-20-close") == 1


def test_two_at_once_give_each_name_once(lake: Lake, clock: Clock) -> None:
    table = lake.table("trades")
    for day in range(6):
        clock.now = NOON + day * DAY
        bring(table, (clock.now, ASX), (clock.now, SIM))
    clock.now += 2 * DAY
    lakes = [open_lake(lake.folder, clock=clock) for _ in range(3)]
    given: list[str] = []

    def tag(each: Lake) -> None:
        given.extend(tag_closes(each, clock.now))

    threads = [threading.Thread(target=tag, args=(each,)) for each in lakes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for each in lakes:
        each.close()
    assert len(given) == len(set(given)) == 12
    rows = lake.commits_of("trades").to_pylist()
    found = [row["tag"] for row in rows if row["operation"] == "tag"]
    assert sorted(found) == sorted(given)


def test_a_lake_without_a_table_has_no_closes(lake: Lake, clock: Clock) -> None:
    assert tag_closes(lake, clock.now) == []
    assert not lake.has("trades")
    lake.table("trades")
    assert tag_closes(lake, clock.now) == []
    with pytest.raises(NotFound):
        lake.resolve_as_of("trades", "ASX-2026-11-20-close")


def test_doing_it_again_reads_no_file(
    lake: Lake, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = lake.table("trades")
    for day in range(4):
        clock.now = NOON + day * DAY
        bring(table, (clock.now, SIM))
    clock.now += 2 * DAY
    assert len(tag_closes(lake, clock.now)) == 4
    opened: list[str] = []

    class Counted(pq.ParquetFile):  # type: ignore[misc]
        def __init__(self, source: str, **options: object) -> None:
            opened.append(str(source))
            super().__init__(source, **options)

    monkeypatch.setattr("k2.lake.closes.pq.ParquetFile", Counted)
    assert tag_closes(lake, clock.now) == []
    assert [path for path in opened if "/trades/" in path] == []


def test_a_settled_file_of_one_exchange_tells_by_its_statistics(lake: Lake, clock: Clock) -> None:
    table = lake.table("trades")
    early = bring(table, (NOON, SIM))
    clock.now = close_of(SIM, date(2026, 11, 20)) + DAY
    bring(table, (NOON, SIM))
    bring(table, (clock.now, SIM))
    compact(table)
    assert tag_closes(lake, clock.now + 2 * DAY) == [
        "sim-2026-11-20-close", "sim-2026-11-22-close",
    ]  # fmt: skip
    assert tags(lake)["sim-2026-11-20-close"] == early
