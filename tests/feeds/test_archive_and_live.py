"""The same trades from a venue's archive and from its live feed, an hour of both: each once."""

import time
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from k2.feeds import Feed, open_feed
from k2.feeds.csv import open_file
from k2.feeds.run import run_feed
from k2.ingest import audit
from k2.log import Producer
from k2.venues import Venue
from k2.venues.pytest import OpenVenue, venue
from tests.journeys.home import Home, now, open_home

__all__ = ["venue"]

HOUR = 3_600 * 10**6
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TRADES = "market.crypto.trades.binance"


def micros(when: datetime) -> int:
    return (when - EPOCH) // timedelta(microseconds=1)


def write_archive(folder: Path, trades: list[dict[str, Any]]) -> Path:
    """These trades as data.binance.vision archives them."""
    name = "BTCUSDT-trades-2026-01-05"
    lines = (
        f"{t['number']},{t['price']:f},{t['quantity']:f},{t['price'] * t['quantity']:f},"
        f"{micros(t['time'])},{t['side'] == 'SELL'},True\n"
        for t in trades
    )
    path = folder / f"{name}.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(f"{name}.csv", "".join(lines))
    return path


def append(home: Home, feed: Feed, enough: int | None) -> None:
    """Bring a feed into the log: all of it, or until there were so many trades."""
    producer = Producer(home.log, home.registry, 2)
    sent, end = 0, time.monotonic() + 60

    def count(progress: Any) -> None:
        nonlocal sent
        sent = progress.records.get(("binance", "trades"), 0)

    def stop() -> bool:
        assert time.monotonic() < end, f"{sent:,} of {enough} trades came"
        return enough is not None and sent >= enough

    try:
        run_feed(feed, producer, home.log, stop, count)
    finally:
        feed.close()


def follow(home: Home, opened: Venue, before: dict[str, Any], trades: int) -> None:
    """Follow the venue from behind a trade, which the feed had before it was away."""
    position = f'{{"trades":{{"BTCUSDT":[{before["number"]},{micros(before["time"])}000]}}}}'
    url = f"binance:BTCUSDT?ws={opened.ws.removesuffix('/ws')}&rest={opened.rest}&kinds=trades"
    append(home, open_feed(url, position, now), trades)


def read(paths: list[str]) -> list[dict[str, Any]]:
    return pa.concat_tables([pq.read_table(path) for path in paths]).to_pylist() if paths else []


@pytest.mark.slow
@pytest.mark.parametrize("archive_first", [True, False])
@pytest.mark.parametrize("at_once", [True, False])
def test_an_hour_of_both(
    venue: OpenVenue, tmp_path: Path, archive_first: bool, at_once: bool
) -> None:
    start = micros(now()) - 2 * HOUR
    opened = venue("binance", symbols=["BTCUSDT"], rate=4, start=start)
    time.sleep(1)
    opened.stop_trading()
    truth = opened.truth.trades().to_pylist()
    archived = [t for t in truth if micros(t["time"]) < start + HOUR * 7 // 4]
    live = [t for t in truth if micros(t["time"]) >= start + HOUR * 3 // 4]
    both = {t["number"] for t in archived} & {t["number"] for t in live}
    assert len(both) > 1_000
    archive = write_archive(tmp_path, archived)
    with open_home(tmp_path) as home:
        opened.go_on_trading()
        for is_archive in (archive_first, not archive_first):
            if is_archive:
                append(home, open_file(archive, "binance", "trades", clock=now), None)
            else:
                follow(home, opened, truth[len(truth) - len(live) - 1], len(live))
            if not at_once:
                home.catch_up()
        home.catch_up()
        opened.stop_trading()
        truth = opened.truth.trades().to_pylist()
        rows = read([f.path for f in home.lake.table("trades").snapshot().files.select()])
        duplicates = read([f.path for f in home.lake.ledger_files("duplicates")])
        assert audit(home.log, home.lake).ok
    known = {t["number"]: t for t in truth}
    ids = [int(row["trade_id"]) for row in rows]
    assert len(ids) == len(set(ids))
    assert set(ids) >= {t["number"] for t in archived} | {t["number"] for t in live}
    for row in rows:
        told = known[int(row["trade_id"])]
        assert all(row[name] == told[name] for name in ("price", "quantity", "side", "symbol"))
        assert row["timestamp"] == told["time"]
    # What came second is the duplicate, of the row that came first.
    at = {(row["log_partition"], row["log_offset"]): row for row in rows}
    assert len(duplicates) == len(both)
    repeated = set()
    for duplicate in duplicates:
        original = at[duplicate["of_partition"], duplicate["of_offset"]]
        assert duplicate["of_topic"] == original["log_topic"] == TRADES
        assert (original["source_received_timestamp"] is None) == archive_first
        assert original["log_offset"] < duplicate["log_offset"]
        repeated.add(int(original["trade_id"]))
    assert repeated == both
