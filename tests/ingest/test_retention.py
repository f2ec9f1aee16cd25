"""Retention by a turned clock, on every log: 90 days stay, and whatever is not committed."""

import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from k2.feeds import open_feed
from k2.ingest import Retention, WriterOptions, audit
from k2.ingest.retention import committed_offsets
from k2.lake import open_lake
from k2.log import Producer, Trimmed, open_log, open_registry, retain
from k2.model import Exchange
from tests.journeys.home import SKEW, Home, now
from tests.log.adapters import adapters, fresh

TRADES = "market.crypto.trades.simulated"
KEPT = Retention().max_age
DAY = timedelta(days=1)


@pytest.fixture(params=adapters("open_log"))
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Home]:
    url = fresh(request, request.param, tmp_path)
    with (
        closing(open_log(url)) as log,
        closing(open_registry(tmp_path / "registry.db")) as registry,
        closing(open_lake(tmp_path / "lake")) as lake,
    ):
        yield Home(tmp_path, log, registry, lake)


def trades(count: int) -> tuple[Exchange, Sequence[pa.Table]]:
    """Three times so many trades."""
    url = f"simulator:?rate=max&kinds=trades&symbols=8&chunk={3 * count}"
    feed = open_feed(url, None, now)
    (records,) = feed.read()
    return feed.exchanges[0], [records.table.slice(n * count, count) for n in range(3)]


def moment() -> datetime:
    """A time that lies between what was appended before and what is appended after it."""
    time.sleep(0.05)
    found = now()
    time.sleep(0.05)
    return found


def turned(home: Home, clock: datetime) -> list[Trimmed]:
    """What goes when the clock says that."""
    safe = committed_offsets(home.log, [home.lake.table("trades").snapshot().offsets])
    return retain(home.log, safe, max_age=KEPT, max_bytes=None, now=clock)


def ends(home: Home) -> list[int]:
    return [home.log.end_offset(TRADES, p) for p in (0, 1)]


def starts(home: Home) -> list[int]:
    return [home.log.start_offset(TRADES, p) for p in (0, 1)]


def rows(home: Home) -> int:
    return home.lake.table("trades").snapshot().files.rows


def test_ninety_days_stay_and_what_is_not_committed(home: Home) -> None:
    exchange, (first, second, third) = trades(100)
    producer = Producer(home.log, home.registry, 2)
    before = moment()
    producer.send(exchange, "trades", first)
    after_first, at_first = moment(), ends(home)
    producer.send(exchange, "trades", second)
    home.catch_up()
    after_second, at_second = moment(), ends(home)
    producer.send(exchange, "trades", third)

    assert KEPT == 90 * DAY
    assert turned(home, before + KEPT) == []
    assert starts(home) == [0, 0]
    assert turned(home, after_first + KEPT) == [
        Trimmed(TRADES, partition, 0, end) for partition, end in enumerate(at_first)
    ]
    assert starts(home) == at_first
    assert turned(home, after_first + KEPT) == []
    # However old: the third part is in no table yet.
    turned(home, after_second + 10 * 365 * DAY)
    assert starts(home) == at_second
    assert audit(home.log, home.lake).ok

    home.catch_up()
    assert rows(home) == 300
    turned(home, now() + KEPT + DAY)
    assert starts(home) == ends(home)
    found = audit(home.log, home.lake)
    assert found.ok
    assert [p.in_flight for p in found.partitions] == [0, 0]
    # What was trimmed is still known: the same trades again are duplicates.
    producer.send(exchange, "trades", first)
    home.catch_up()
    assert rows(home) == 300
    assert sum(p.duplicate for p in audit(home.log, home.lake).partitions) == 100


def test_a_table_that_has_nothing_yet_keeps_all(home: Home) -> None:
    exchange, (first, _, _) = trades(50)
    Producer(home.log, home.registry, 2).send(exchange, "trades", first)
    assert turned(home, now() + 1000 * DAY) == []
    home.catch_up()
    assert rows(home) == 50


def test_a_writer_trims_what_it_has_committed(home: Home) -> None:
    exchange, (first, second, _) = trades(100)
    producer = Producer(home.log, home.registry, 2)
    producer.send(exchange, "trades", first)
    home.catch_up()
    committed = ends(home)
    producer.send(exchange, "trades", second)
    moment()
    # It looks as soon as it starts, and by then the second part is not committed.
    options = WriterOptions(skew=SKEW, retention=Retention(timedelta(milliseconds=1)))
    home.writer(options).run(lambda: False, until_caught_up=True)
    assert rows(home) == 200
    kept = starts(home)
    assert all(start >= least for start, least in zip(kept, committed, strict=True))
    assert all(start <= end for start, end in zip(kept, ends(home), strict=True))
    assert audit(home.log, home.lake).ok
