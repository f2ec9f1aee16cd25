"""Where the log lost what the table needs: noticed, told once, and gone past only when told to."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from k2.errors import BadInput, Broken, NotFound
from k2.feeds import open_feed
from k2.ingest import Tail, accept_loss, audit
from k2.ingest.follow import Follower
from k2.ingest.retention import committed_offsets
from k2.log import Append, Producer, open_log
from k2.model import Exchange
from tests.journeys.home import SKEW, Home, ledger, now, open_home

TRADES = "market.crypto.trades.simulated"


def records(rows: int, seed: int = 1) -> tuple[Exchange, pa.Table]:
    feed = open_feed(
        f"simulator:?rate=max&kinds=trades&symbols=8&chunk={rows}&seed={seed}", None, now
    )
    (found,) = feed.read()
    return feed.exchanges[0], found.table


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """200 trades committed, and 200 more in the log, in two partitions."""
    with open_home(tmp_path) as opened:
        exchange, trades = records(400)
        producer = Producer(opened.log, opened.registry, 2)
        producer.send(exchange, "trades", trades.slice(0, 200))
        opened.catch_up()
        producer.send(exchange, "trades", trades.slice(200))
        yield opened


def gaps(home: Home) -> list[dict[str, Any]]:
    return [row for path in ledger(home, "gaps") for row in pq.read_table(path).to_pylist()]


def test_what_was_deleted_before_it_was_committed(home: Home) -> None:
    committed = home.lake.table("trades").snapshot().offsets[TRADES].next_offset[0]
    start = home.log.trim(TRADES, 0, home.log.end_offset(TRADES, 0))
    lost = start - committed
    assert lost > 0
    found = audit(home.log, home.lake)
    assert [p.first_wrong_offset for p in found.partitions] == [committed, None]
    for _ in range(2):
        with pytest.raises(Broken, match="deleted before"):
            home.catch_up()
    # The other partition went on, and the loss is told once.
    first, second = audit(home.log, home.lake).partitions
    assert (first.in_flight, second.in_flight) == (0, 0)
    assert second.problem is None
    assert first.problem is not None
    (gap,) = gaps(home)
    assert (gap["cause"], gap["kind"]) == ("log loss", "trades")
    assert (gap["log_topic"], gap["log_partition"]) == (TRADES, 0)
    assert (gap["first_missing"], gap["last_missing"]) == (committed, start - 1)
    with pytest.raises(Broken):
        Tail(home.log, home.registry, home.lake, SKEW, 1000).pin("trades")
    accept_loss(home.log, home.lake, f"{TRADES}[0]", now())
    exchange, more = records(600)
    Producer(home.log, home.registry, 2).send(exchange, "trades", more.slice(400))
    home.catch_up()
    found = audit(home.log, home.lake)
    assert found.ok
    assert [(p.lost, p.in_flight) for p in found.partitions] == [(lost, 0), (0, 0)]
    for p in found.partitions:
        fates = p.committed + p.duplicate + p.rejected + p.absent + p.lost
        assert p.end_offset - p.start_offset == fates
    assert len(gaps(home)) == 1
    with pytest.raises(NotFound):
        accept_loss(home.log, home.lake, f"{TRADES}[0]", now())


def test_a_follower_whose_table_moved_meanwhile_goes_on(home: Home) -> None:
    """As it does when the writer commits other partitions after the loss was accepted."""
    table = home.lake.table("trades")
    home.log.trim(TRADES, 0, home.log.end_offset(TRADES, 0))
    follower = Follower("trades", home.log, home.registry, table, table.snapshot(), SKEW)
    follower.poll(1 << 20)
    assert [*follower.stopped] == [(TRADES, 0)]
    accept_loss(home.log, home.lake, f"{TRADES}[0]", now())
    exchange, more = records(600)
    Producer(home.log, home.registry, 2).send(exchange, "trades", more.slice(400))
    follower.advance(table.snapshot())
    assert not follower.stopped
    decided = follower.poll(1 << 20)
    assert {p for run in decided for p in run.next_offset} == {0, 1}


def test_what_was_lost_may_come_back_and_stays_lost(home: Home, tmp_path: Path) -> None:
    """A broker that crashes may forget what it deleted last."""
    with closing(sqlite3.connect(":memory:")) as before:
        with closing(sqlite3.connect(tmp_path / "log.db")) as log:
            log.backup(before)
        committed = home.lake.table("trades").snapshot().offsets[TRADES].next_offset[0]
        lost = home.log.trim(TRADES, 0, home.log.end_offset(TRADES, 0)) - committed
        accept_loss(home.log, home.lake, f"{TRADES}[0]", now())
        with closing(sqlite3.connect(tmp_path / "log.db")) as log:
            before.backup(log)
    with open_home(tmp_path) as again:
        again.catch_up()
        found = audit(again.log, again.lake)
        assert found.ok
        first, _ = found.partitions
        assert (first.start_offset, first.lost, first.in_flight) == (0, lost, 0)
        assert first.end_offset == first.committed + first.duplicate + first.rejected + lost


def test_a_loss_that_grows_and_is_accepted_before_a_writer_saw_it(home: Home) -> None:
    home.log.trim(TRADES, 0, home.log.end_offset(TRADES, 0))
    with pytest.raises(Broken):
        home.catch_up()
    exchange, more = records(600)
    Producer(home.log, home.registry, 2).send(exchange, "trades", more.slice(400))
    home.log.trim(TRADES, 0, home.log.end_offset(TRADES, 0))
    accept_loss(home.log, home.lake, f"{TRADES}[0]", now())
    home.catch_up()
    found = audit(home.log, home.lake)
    assert found.ok
    told = sorted((gap["first_missing"], gap["last_missing"]) for gap in gaps(home))
    assert told[0][1] + 1 == told[1][0]
    assert found.partitions[0].lost == told[1][1] + 1 - told[0][0]


def test_places_that_cannot_be_accepted(home: Home) -> None:
    with pytest.raises(BadInput):
        accept_loss(home.log, home.lake, TRADES, now())
    with pytest.raises(NotFound):
        accept_loss(home.log, home.lake, f"{TRADES}[0]", now())
    with pytest.raises(NotFound):
        accept_loss(home.log, home.lake, f"{TRADES}[7]", now())


def test_a_topic_made_anew(home: Home, tmp_path: Path) -> None:
    old = home.log.identity(TRADES)
    with sqlite3.connect(tmp_path / "log.db") as database:
        for table in ("batches", "partitions", "topics"):
            database.execute(f"DELETE FROM {table}")
    with open_home(tmp_path) as again:
        exchange, trades = records(400)
        Producer(again.log, again.registry, 1).send(exchange, "trades", trades.slice(100, 200))
        assert not audit(again.log, again.lake).ok
        assert committed_offsets(again.log, [again.lake.table("trades").snapshot().offsets]) == {}
        # What it says first is why it stopped for a moment.
        again.catch_up()
        found = audit(again.log, again.lake)
        assert found.ok
        (part,) = found.partitions
        # Half of them were committed from the old log: what a record is does not hang on its log.
        assert (part.committed, part.duplicate) == (100, 100)
        assert [(o.topic, o.log_id, o.rows) for o in found.other_logs] == [(TRADES, old, 200)]
        assert [gap["last_missing"] for gap in gaps(again)] == [None, None]
        again.catch_up()
        assert len(gaps(again)) == 2


def test_partitions_added_at_run_time(home: Home, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "log.db") as database:
        database.execute("INSERT INTO partitions (topic_id, number) SELECT id, 2 FROM topics")
    home.catch_up()
    # A symbol's records now go to another partition: the same ones are recognised there.
    (batch, *_) = home.log.read(TRADES, 0, 0, 1 << 20)
    home.log.append([Append(TRADES, 2, int(batch.schema_ids[0]), batch.values)])
    home.catch_up()
    found = audit(home.log, home.lake)
    assert found.ok
    assert found.partitions[2].duplicate == len(batch.values)


def test_a_log_shorter_than_the_table_stops_that_partition_alone(
    home: Home, tmp_path: Path
) -> None:
    home.catch_up()
    with sqlite3.connect(tmp_path / "log.db") as database:
        database.execute("DELETE FROM batches WHERE partition_id = 1 AND first_offset > 0")
        database.execute(
            "UPDATE partitions SET end_offset = (SELECT sum(messages) FROM batches "
            "WHERE partition_id = 1) WHERE id = 1"
        )
    other = open_log(tmp_path / "log.db")
    exchange, more = records(600)
    values = [t for t in (more.slice(400),) if t.num_rows]
    before = other.end_offset(TRADES, 1)
    Producer(other, home.registry, 2).send(exchange, "trades", values[0].slice(0, 20))
    assert other.end_offset(TRADES, 1) > before
    other.close()
    with pytest.raises(Broken, match="the log lost what the table holds"):
        home.catch_up()
    first, second = audit(home.log, home.lake).partitions
    assert first.problem is not None
    assert (second.problem, second.in_flight) == (None, 0)
