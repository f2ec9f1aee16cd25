"""Gaps asked of the venues again: what they give by now comes in once, the rest stays a gap."""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from k2.feeds import open_feed
from k2.feeds.live.columns import Gap, Origin, gaps_table
from k2.feeds.run import run_feed
from k2.ingest import audit
from k2.ingest.backfill import Backfill, Backfilled, find_gaps
from k2.ingest.loss import CAUSE
from k2.log import Producer
from k2.model import Exchange
from k2.venues import Trading, open_venue
from tests.feeds.venue import Venue, opened
from tests.journeys.home import Home, ledger, now, open_home

SYMBOLS = {"binance": "BTCUSDT", "coinbase": "BTC-USD", "kraken": "BTC/USD"}


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    with open_home(tmp_path) as found:
        yield found


@pytest.fixture
def venue() -> Iterator[Venue]:
    with opened() as found:
        yield found


def follow(home: Home, venue: Venue, name: str, first: int, last: int) -> None:
    """Have the feed ask for these trades; what the venue does not have becomes a gap."""
    url = f"{name}:{SYMBOLS[name]}?{venue.options}&first={first}&last={last}"
    url += "&since=2026-01-05T08:00:00Z"
    feed = open_feed(url, None, now)
    run_feed(feed, Producer(home.log, home.registry, 2), home.log, lambda: False)
    feed.close()
    home.catch_up()


def backfill(
    home: Home, venue: Venue, *symbols: str, stop: Callable[[], bool] = lambda: False
) -> list[Backfilled]:
    gaps = find_gaps(home.lake, (), symbols)
    producer = Producer(home.log, home.registry, 2)
    rest = f"http://127.0.0.1:{venue.port}"
    done = Backfill(producer, gaps, rest, now).run(stop)
    home.catch_up()
    assert audit(home.log, home.lake).ok
    return done


def ids(home: Home) -> list[int]:
    files = home.lake.table("trades").snapshot().files.select()
    return sorted(int(i) for f in files for i in pq.read_table(f.path)["trade_id"].to_pylist())


def gaps(home: Home) -> list[tuple[int, int, str]]:
    names = ("first_missing", "last_missing", "cause")
    tables = [pq.read_table(path) for path in ledger(home, "gaps")]
    return sorted(
        row for t in tables for row in zip(*(t[n].to_pylist() for n in names), strict=True)
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", SYMBOLS)
def test_what_the_venue_has_by_now_comes_in_once(home: Home, venue: Venue, name: str) -> None:
    symbol = SYMBOLS[name]
    past = venue.past[symbol] = [*range(1, 41), *range(61, 101)]
    follow(home, venue, name, 1, 100)
    assert [(first, last) for first, last, _ in gaps(home)] == [(41, 60)]

    past += [n for n in range(41, 61) if not 45 <= n <= 50]
    venue.requests.clear()
    assert backfill(home, venue) == [Backfilled(name, symbol, missing=20, given=14, lacking=6)]
    assert ids(home) == sorted(past)
    assert [(first, last) for first, last, _ in gaps(home)] == [(41, 60), (45, 50)]
    assert len({cause for _, _, cause in gaps(home)}) == 1

    # Nothing new there: nothing is appended, and nothing told again.
    end = sum(home.log.end_offset(topic, 0) for topic in home.log.topics())
    assert backfill(home, venue) == [Backfilled(name, symbol, missing=6, given=0, lacking=6)]
    assert sum(home.log.end_offset(topic, 0) for topic in home.log.topics()) == end
    past.append(47)
    assert backfill(home, venue) == [Backfilled(name, symbol, missing=6, given=1, lacking=5)]
    assert ids(home) == sorted(past)
    assert [(first, last) for first, last, _ in gaps(home)][1:] == [(45, 46), (45, 50), (48, 50)]
    assert all(part.duplicate == 0 for part in audit(home.log, home.lake).partitions)
    past += [45, 46, 48, 49, 50]
    assert backfill(home, venue) == [Backfilled(name, symbol, missing=5, given=5)]
    assert ids(home) == list(range(1, 101))
    assert backfill(home, venue) == []


@pytest.mark.slow
def test_only_what_is_asked_for_and_no_more_than_is_missing(home: Home, venue: Venue) -> None:
    past = venue.past["BTCUSDT"] = [1, 2, 3, 8, 9]
    follow(home, venue, "binance", 1, 9)
    past += [4, 5, 6, 7]
    # A feed that was started again has brought some of it meanwhile.
    follow(home, venue, "binance", 5, 6)
    found = find_gaps(home.lake, (), ()).missing
    assert [(m.range.first, m.range.last) for m in found] == [(4, 4), (7, 7)]
    assert find_gaps(home.lake, ["kraken"], ()).missing == []
    assert backfill(home, venue, "ETHUSDT") == []
    assert backfill(home, venue, stop=lambda: True)[0].given == 0
    assert backfill(home, venue, "BTCUSDT")[0].given == 2
    assert ids(home) == list(range(1, 10))
    assert all(part.duplicate == 0 for part in audit(home.log, home.lake).partitions)


def test_gaps_that_nobody_can_be_asked_about(home: Home, venue: Venue) -> None:
    exchange = Exchange("elsewhere", "crypto", "UTC")
    told = [
        Gap("A", "trades", 5, 9, None, None, "disconnect"),
        Gap("A", "trades", 8, 12, None, None, "disconnect"),
        Gap("A", "trades", None, None, None, None, "disconnect"),
        Gap("A", "quotes", 5, 9, None, None, "disconnect"),
        Gap("", "trades", 0, 99, None, None, CAUSE),
    ]
    table = gaps_table(told, 1_767_600_000_000_000, Origin("elsewhere", "elsewhere"))
    Producer(home.log, home.registry, 1).send(exchange, "gaps", table)
    home.catch_up()
    assert backfill(home, venue) == [Backfilled("elsewhere", "A", missing=8, has_history=False)]
    assert venue.requests == []


@pytest.mark.parametrize("name", SYMBOLS)
def test_what_comes_in_is_what_the_venue_did(home: Home, name: str) -> None:
    """Against the shipped venues: a feed gave up a stretch that the venue has by now."""
    symbol = SYMBOLS[name]
    began = time.time_ns() // 1_000 - 60_000_000
    trading = Trading((symbol,), rate=100, start=began, seconds=50)
    with open_venue(name, trading) as venue:
        made = venue.truth.trades()
        numbers = made["number"].to_pylist()
        low, high = numbers[len(numbers) // 3], numbers[2 * len(numbers) // 3]
        since = datetime.fromtimestamp(began / 1e6 - 1, UTC).isoformat()
        for first, last in ((numbers[0], low - 1), (high + 1, numbers[-1])):
            url = f"{name}:{symbol}?rest={venue.rest}&first={first}&last={last}"
            feed = open_feed(f"{url}&since={since.replace('+00:00', 'Z')}", None, now)
            run_feed(feed, Producer(home.log, home.registry, 2), home.log, lambda: False)
            feed.close()
        gap = Gap(symbol, "trades", low, high, None, None, "disconnect")
        table = gaps_table([gap], began, Origin(name, name))
        (exchange,) = feed.exchanges
        producer = Producer(home.log, home.registry, 2)
        producer.send(exchange, "gaps", table)
        home.catch_up()
        assert len(ids(home)) == len(numbers) - (high - low + 1)
        run = Backfill(producer, find_gaps(home.lake, (), ()), venue.rest, now)
        (told,) = run.run(lambda: False)
    assert (told.missing, told.given, told.lacking) == (high - low + 1, high - low + 1, 0)
    home.catch_up()
    files = home.lake.table("trades").snapshot().files.select()
    rows = [row for file in files for row in pq.read_table(file.path).to_pylist()]
    names = ("trade_id", "price", "quantity", "side", "timestamp")
    held = sorted((int(row["trade_id"]), *(row[n] for n in names[1:])) for row in rows)
    columns = ("number", "price", "quantity", "side", "time")
    did = zip(*(made[c].to_pylist() for c in columns), strict=True)
    assert held == sorted(did)
    assert all(part.duplicate == 0 for part in audit(home.log, home.lake).partitions)
