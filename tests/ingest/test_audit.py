"""The audit names the first offset that is wrong, whatever was done behind the writer's back."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pyarrow.parquet as pq
import pytest

from k2.feeds import open_feed
from k2.ingest import Audit, PartitionAudit, audit
from k2.lake.commit import Change
from k2.log import Producer
from tests.journeys.home import Home, now, open_home

TRADES = "market.crypto.trades.simulated"


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """Three commits of about 100 trades each, and 50 more in the log."""
    with open_home(tmp_path) as opened:
        producer = Producer(opened.log, opened.registry, 1)
        feed = open_feed("simulator:?rate=max&kinds=trades&symbols=3&chunk=100", None, now)
        for number in range(4):
            (records,) = feed.read()
            producer.send(
                feed.exchanges[0], "trades", records.table.slice(0, 100 - 50 * (number == 3))
            )
            if number < 3:
                opened.catch_up()
        yield opened


def only(found: Audit) -> PartitionAudit:
    (partition,) = found.partitions
    return partition


def test_a_sound_home(home: Home) -> None:
    found = audit(home.log, home.lake)
    part = only(found)
    assert found.ok
    assert (part.start_offset, part.end_offset) == (0, 350)
    assert (part.committed, part.in_flight, part.absent, part.lost) == (300, 50, 0, 0)


def test_a_data_file_that_is_gone(home: Home) -> None:
    second = home.lake.table("trades").snapshot().files.select()[1]
    Path(second.path).unlink()
    found = audit(home.log, home.lake)
    assert not found.ok
    assert only(found).first_wrong_offset == 100
    assert f"{second.path} is gone (`k2 rebuild`" in str(only(found).problem)


def test_a_file_that_counts_twice(home: Home) -> None:
    table = home.lake.table("trades")
    third = table.snapshot().files.select()[2]
    rows = pq.ParquetFile(third.path).read().cast(table.definition.arrow)
    again = table.write(rows, third.exchange_date)
    table.apply(Change(uuid4().hex, (again,), lambda head, sequence: {}, {}))
    found = audit(home.log, home.lake)
    assert only(found).first_wrong_offset == 200
    assert "2 fates" in str(only(found).problem)


def test_a_log_that_lost_its_end(home: Home, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "log.db") as database:
        database.execute("DELETE FROM batches WHERE first_offset >= 200")
        database.execute("UPDATE partitions SET end_offset = 200")
    found = audit(home.log, home.lake)
    assert not found.ok
    assert only(found).first_wrong_offset == 200
    assert "ends" in str(only(found).problem)
