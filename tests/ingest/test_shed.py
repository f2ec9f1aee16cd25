"""Shedding: what is left in the log has its place in the ledger, and comes in later, once."""

from collections import Counter
from collections.abc import Collection
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from k2.feeds import open_feed
from k2.ingest import (
    PartitionAudit,
    Retention,
    Tail,
    WriterOptions,
    audit,
)
from k2.ingest import fill as filling
from k2.ingest.degradation import Level
from k2.ingest.line import Line
from k2.ingest.retention import trim_committed
from k2.ingest.shed import Shedding
from k2.ingest.tiers import TierFile
from k2.log import Append, Producer
from tests.journeys.home import SKEW, Home, ledger, now

TRADES = "market.crypto.trades.simulated"
FIRST = {"BTCUSDT", "ETHUSDT"}
TEXT = pa.schema([("symbol", pa.string()), ("trade_id", pa.string())])


def append(home: Home, records: int, seed: int = 1, leave_out: Collection[str] = ()) -> pa.Table:
    feed = open_feed(
        f"simulator:?rate=max&kinds=trades&symbols=8&chunk={records}&seed={seed}", None, now
    )
    (found,) = feed.read()
    left_out = pc.is_in(found.table["symbol"].cast(pa.string()), pa.array(leave_out, pa.string()))
    table = found.table.filter(pc.invert(left_out))
    Producer(home.log, home.registry, 2).send(feed.exchanges[0], "trades", table)
    return table


def line(home: Home) -> Line:
    options = WriterOptions(skew=SKEW)
    return Line("trades", home.log, home.registry, home.lake, options, lambda step: None)


def shedding(level: Level = Level.AGGRESSIVE, called: str = "one") -> Shedding:
    return Shedding(called, level, TierFile(None).tiers(), now())


def until_done(of: Line) -> None:
    while of.step(None, at_once=True) or not of.is_done():
        pass
    of.finish()


def work(home: Home, under: Shedding | None = None) -> None:
    """Decide and commit all that is in the log, and nothing of what was shed before."""
    of = line(home)
    try:
        while of.step(None, at_once=True, shedding=under):
            pass
        of.finish()
    finally:
        of.close()


def bring_in(home: Home) -> None:
    of = line(home)
    try:
        until_done(of)
    finally:
        of.close()


def sums(home: Home) -> PartitionAudit:
    """The sum over all partitions, proved."""
    found = audit(home.log, home.lake)
    assert found.ok, [part.problem for part in found.partitions]
    names = ("committed", "duplicate", "rejected", "shed", "in_flight")
    total = {n: sum(getattr(part, n) for part in found.partitions) for n in names}
    return replace(found.partitions[0], **total)


def entries_of(home: Home) -> list[dict[str, Any]]:
    return [entry for path in ledger(home, "shed") for entry in pq.read_table(path).to_pylist()]


def rows(home: Home) -> pa.Table:
    files = home.lake.table("trades").snapshot().files.select()
    columns = ["symbol", "trade_id"]
    return pa.concat_tables(
        pq.ParquetFile(file.path).read(columns=columns).cast(TEXT) for file in files
    )


def symbols(home: Home) -> Counter[str]:
    return Counter(rows(home)["symbol"].to_pylist())


def test_only_the_first_tier_is_committed_and_the_rest_comes_later(home: Home) -> None:
    wanted = Counter(append(home, 5_000)["symbol"].cast(pa.string()).to_pylist())
    work(home, shedding())
    assert symbols(home) == {name: wanted[name] for name in FIRST}
    total = sums(home)
    assert (total.committed, total.in_flight) == (sum(symbols(home).values()), 0)
    assert total.shed == 5_000 - total.committed
    entries = entries_of(home)
    assert sum(entry["records"] for entry in entries) == total.shed
    assert {symbol for e in entries for symbol in e["symbols"].split()} == wanted.keys() - FIRST
    assert {(e["event"], e["level"], e["tiers"]) for e in entries} == {("shed", 3, "3")}
    bring_in(home)
    assert symbols(home) == wanted
    assert sums(home).committed == 5_000
    assert home.lake.table("trades").snapshot().shed == ()
    filled = [e for e in entries_of(home) if e["event"] == "filled"]
    assert sum(entry["records"] for entry in filled) == total.shed


def test_the_backlog_is_shed_whole_and_comes_later(home: Home) -> None:
    append(home, 1_000)
    work(home)
    wanted = Counter(symbols(home))
    wanted += Counter(append(home, 3_000, seed=2)["symbol"].cast(pa.string()).to_pylist())
    of = line(home)
    of.skip(shedding(Level.AGGRESSIVE))
    of.close()
    total = sums(home)
    assert (total.committed, total.shed, total.in_flight) == (1_000, 3_000, 0)
    bring_in(home)
    assert symbols(home) == wanted
    assert sums(home).committed == 4_000


def test_of_what_was_shed_whole_the_first_tier_comes_first(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filling, "_RECORDS", 300)
    monkeypatch.setattr(filling, "_OFFSETS", 500)
    monkeypatch.setattr(filling, "_READ_BYTES", 20_000)
    made = [append(home, 3_000), append(home, 2_000, seed=2)]
    wanted = Counter(pa.concat_tables(made)["symbol"].cast(pa.string()).to_pylist())
    of = line(home)
    of.skip(shedding())
    seen = [Counter[str]()]
    while of.step(None, at_once=True) or not of.is_done():
        of._wait()
        seen.append(symbols(home))
        assert sums(home).shed == 5_000 - seen[-1].total()
    of.finish()
    of.close()
    assert seen[-1] == wanted
    first = {name: wanted[name] for name in FIRST}
    whole = [found for found in seen if found.keys() <= FIRST]
    assert whole[-1] == first, "before any other"
    assert len({found.total() for found in whole}) > 3, "in parts"
    entries = entries_of(home)
    count = Counter[str]()
    for entry in entries:
        count[entry["event"]] += entry["records"]
    assert count["shed"] == count["filled"] == 5_000 + 5_000 - sum(first.values())


def test_stopped_and_started_anew_each_record_comes_once(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filling, "_RECORDS", 300)
    monkeypatch.setattr(filling, "_READ_BYTES", 20_000)
    for number in range(3):
        append(home, 2_000, seed=number)
        work(home, shedding(called=f"time {number}"))
    shed = sums(home).shed
    assert len(home.lake.table("trades").snapshot().shed) == 6  # two partitions, three times
    while sums(home).shed:
        of = line(home)
        for _ in range(3):
            of.step(None, at_once=True)
        of.finish()
        of.close()
        left = sums(home).shed
        assert left < shed
        shed = left
    assert sums(home).committed == 6_000


def test_what_was_shed_and_came_again_is_one(home: Home) -> None:
    append(home, 1_000)
    work(home, shedding())
    kept = sums(home).committed
    # All of it comes once more, and is committed before what was shed.
    for partition in range(2):
        for batch in home.log.read(TRADES, partition, 0, 1 << 24):
            home.log.append([Append(TRADES, partition, int(batch.schema_ids[0]), batch.values)])
    tail = Tail(home.log, home.registry, home.lake, SKEW, 10_000)
    assert tail.pin("trades").rows.num_rows == 1_000 - kept
    work(home, shedding(Level.SOFT))
    bring_in(home)
    total = sums(home)
    assert (total.committed, total.duplicate, total.shed) == (1_000, 1_000, 0)
    assert tail.pin("trades").rows.num_rows == 0
    ids = rows(home).group_by(["symbol", "trade_id"]).aggregate([([], "count_all")])
    assert pc.max(ids["count_all"]).as_py() == 1


def test_a_tail_decides_again_when_shed_records_come_in(home: Home) -> None:
    append(home, 1_000)
    work(home, shedding())
    tail = Tail(home.log, home.registry, home.lake, SKEW, 10_000)
    for batch in home.log.read(TRADES, 0, 0, 1 << 24):
        home.log.append([Append(TRADES, 0, int(batch.schema_ids[0]), batch.values)])
    assert tail.pin("trades").rows.num_rows
    of = line(home)
    # Brought in before what waits in the log is committed.
    of._follower.meet(None)
    assert of._fill()
    of._wait()
    of.close()
    pinned = tail.pin("trades")
    assert pinned.rows.num_rows == 0, "all that waited repeats what came in"
    held = rows(home).select(["symbol", "trade_id"])
    both = pa.concat_tables([held, pinned.rows.select(["symbol", "trade_id"]).cast(TEXT)])
    counted = both.group_by(["symbol", "trade_id"]).aggregate([([], "count_all")])
    assert pc.max(counted["count_all"]).as_py() == 1


def test_the_log_keeps_what_was_shed(home: Home) -> None:
    append(home, 2_000)
    work(home, shedding())
    keep = Retention(max_age=timedelta(0))
    trim_committed(home.log, [home.lake.table("trades").snapshot()], keep, now())
    firsts = {s.partition: s.first_offset for s in home.lake.table("trades").snapshot().shed}
    assert all(home.log.start_offset(TRADES, p) <= first for p, first in firsts.items())
    bring_in(home)
    assert sums(home).shed == 0
    trim_committed(home.log, [home.lake.table("trades").snapshot()], keep, now())
    assert home.log.start_offset(TRADES, 0) == home.log.end_offset(TRADES, 0)
