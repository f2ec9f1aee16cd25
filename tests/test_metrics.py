"""Metrics: what feeds and writers tell is what they did, and every figure is documented."""

import re
import shutil
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from k2.cli.reference import registries
from k2.errors import Unavailable
from k2.feeds import open_feed
from k2.feeds.live.feed import LiveFeed
from k2.feeds.run import run_feed
from k2.ingest import CommitLimits, Level, Writer, WriterOptions
from k2.log import Append, Producer
from k2.metrics import FeedMetrics, WriterMetrics, serving
from k2.venues import Fault, Trading, open_venue
from tests.journeys.home import SKEW, Home, now, open_home

TRADES = "market.crypto.trades.simulated"
Figures = dict[tuple[str, ...], float]


def scrape(url: str) -> Figures:
    """What a Prometheus sees: values by name and labels, these in the order of their names."""
    with urllib.request.urlopen(url, timeout=10) as answer:
        text = answer.read().decode()
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def figures(registry: CollectorRegistry) -> Figures:
    with serving(registry, "127.0.0.1", 0) as url:
        return scrape(url)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    with open_home(tmp_path) as opened:
        yield opened


def produce(home: Home, count: int, times: int = 1) -> None:
    feed = open_feed(f"simulator:?rate=max&kinds=trades&symbols=8&chunk={count}", None, now)
    (records,) = feed.read()
    for _ in range(times):
        Producer(home.log, home.registry, 2).send(feed.exchanges[0], "trades", records.table)


def test_a_writer_tells_what_became_of_each_message(home: Home) -> None:
    produce(home, 100, times=2)
    home.log.append([Append(TRADES, 0, 99, pa.array([b"nobody's schema"], pa.binary()))])
    metrics = WriterMetrics()
    options = WriterOptions(skew=SKEW, watch=metrics)
    Writer(home.log, home.registry, home.lake, options).run(lambda: False, until_caught_up=True)
    found = figures(metrics.registry)
    assert found["k2_ingest_messages_total", TRADES] == 201
    assert found["k2_ingest_rows_total", "trades"] == 100
    assert found["k2_ingest_duplicates_total", "trades"] == 100
    assert found["k2_ingest_rejected_total", "trades"] == 1
    commits = found["k2_ingest_commit_seconds_count", "trades"]
    assert commits >= 1
    assert found["k2_ingest_commit_rows_sum", "trades"] == 100
    assert found["k2_ingest_commit_rows_count", "trades"] == commits
    files = home.lake.table("trades").snapshot().files.since(0)
    written = sum(Path(file.path).stat().st_size for file in files)
    assert found["k2_ingest_commit_bytes_sum", "trades"] > written > 0
    assert 0 < found["k2_ingest_commit_seconds_sum", "trades"] < 60
    assert 0 <= found["k2_ingest_freshness_seconds_sum", "trades"] < 60
    assert found["k2_ingest_conflicts_total", "trades"] == 0


@pytest.mark.slow
def test_lag_is_of_what_is_not_committed(home: Home) -> None:
    produce(home, 100)
    metrics = WriterMetrics()
    limits = CommitLimits(interval=timedelta(hours=1))
    options = WriterOptions(limits, skew=SKEW, watch=metrics)
    began = time.monotonic()
    with _running(Writer(home.log, home.registry, home.lake, options)):
        lags = _until(metrics, lambda lags: sum(lags.values()) == 100)
        assert len(lags) == 2
        assert all(0 < count < 100 for count in lags.values())
        ages = _of(metrics, "k2_ingest_lag_seconds")
        assert ages.keys() == lags.keys()
        time.sleep(0.2)
        for place, age in _of(metrics, "k2_ingest_lag_seconds").items():
            # It grows by itself, with nobody counting.
            assert ages[place] + 0.2 <= age < 60 + time.monotonic() - began
    with _running(Writer(home.log, home.registry, home.lake, options)):
        _until(metrics, lambda lags: sum(lags.values()) == 0)
        assert set(_of(metrics, "k2_ingest_lag_seconds").values()) == {0.0}


@pytest.mark.slow
def test_an_overtaken_writer_and_a_stopped_partition_are_told(home: Home) -> None:
    produce(home, 100)
    metrics = WriterMetrics()
    limits = CommitLimits(interval=timedelta(hours=1))
    options = WriterOptions(limits, skew=SKEW, watch=metrics)
    with _running(Writer(home.log, home.registry, home.lake, options)):
        _until(metrics, lambda lags: sum(lags.values()) == 100)
        home.catch_up()
    found = figures(metrics.registry)
    assert found["k2_ingest_conflicts_total", "trades"] == 1
    assert found["k2_ingest_rows_total", "trades"] == 0
    assert found["k2_ingest_stopped_partitions", "trades"] == 0
    produce(home, 100)
    for partition in (0, 1):
        home.log.trim(TRADES, partition, home.log.end_offset(TRADES, partition))
    with _running(Writer(home.log, home.registry, home.lake, options)):
        _wait_for(
            metrics.registry, lambda found: found["k2_ingest_stopped_partitions", "trades"] == 2
        )


def test_what_was_never_counted_is_nought_before_it_is_counted() -> None:
    """Or else the first of anything is no increase to a Prometheus."""
    metrics = WriterMetrics()
    assert ("k2_ingest_conflicts_total", "trades") not in figures(metrics.registry)
    metrics.behind("trades", {}, stopped=0, shed=0)
    found = figures(metrics.registry)
    for name in ("conflicts", "rejected", "duplicates", "shed", "filled", "rows"):
        assert found[f"k2_ingest_{name}_total", "trades"] == 0
    for name in ("commit_seconds", "commit_rows", "commit_bytes", "freshness_seconds"):
        assert found[f"k2_ingest_{name}_count", "trades"] == 0
    levels = {key[1] for key in found if key[0] == "k2_ingest_level_changes_total"}
    assert levels == {level.name for level in Level}


def test_a_writer_that_stands_still_is_told(tmp_path: Path) -> None:
    at = datetime(2026, 1, 5, tzinfo=UTC)
    metrics = WriterMetrics(lambda: at, {"lake": tmp_path, "gone": tmp_path / "not" / "there"})
    metrics.behind("trades", {}, stopped=0, shed=0)
    at += timedelta(seconds=90)
    metrics.behind("quotes", {}, stopped=0, shed=0)
    found = figures(metrics.registry)
    assert found["k2_ingest_stalled_seconds", "trades"] == 90
    assert found["k2_ingest_stalled_seconds", "quotes"] == 0
    size = shutil.disk_usage(tmp_path).total
    assert found["k2_disk_size_bytes", "lake"] == size > found["k2_disk_free_bytes", "lake"] > 0
    assert ("k2_disk_free_bytes", "gone") not in found


@contextmanager
def _running(writer: Writer) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=writer.run, args=(stop.is_set,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _of(metrics: WriterMetrics, name: str) -> Figures:
    return {key[1:]: value for key, value in figures(metrics.registry).items() if key[0] == name}


def _until(metrics: WriterMetrics, what: Callable[[Figures], bool]) -> Figures:
    end = time.monotonic() + 30
    while not ((lags := _of(metrics, "k2_ingest_lag_messages")) and what(lags)):
        assert time.monotonic() < end, lags
        time.sleep(0.02)
    return lags


def test_a_feed_tells_what_it_produced(home: Home) -> None:
    metrics = FeedMetrics(lambda: (7, 700), 1000)
    feed = open_feed("simulator:?rate=max&symbols=3&count=500", None, now)
    producer = Producer(home.log, home.registry, 1)
    run_feed(feed, producer, home.log, lambda: False, lambda p: metrics.progressed(feed.name, p))
    found = figures(metrics.registry)
    produced = {key: value for key, value in found.items() if key[0] == "k2_feed_records_total"}
    for kind in ("trades", "quotes"):
        topic = f"market.crypto.{kind}.simulated"
        end = home.log.end_offset(topic, 0)
        assert produced.pop(("k2_feed_records_total", "simulated", feed.name, kind)) == end > 0
    assert not produced
    assert found["k2_feed_gaps_total", feed.name] == 0
    assert found["k2_feed_rejected_total", feed.name] == 0
    assert found["k2_feed_waiting", feed.name] == 0
    assert (found["k2_spool_records",], found["k2_spool_bytes",]) == (7, 700)
    assert found["k2_spool_limit_bytes",] == 1000


@pytest.mark.slow
def test_a_live_feed_tells_of_its_connections(home: Home) -> None:
    script = [Fault("disconnect", at=1.0, seconds=0.2), Fault("unknown", at=2.0, count=3)]
    metrics = FeedMetrics()
    stop = threading.Event()
    with open_venue("binance", Trading(("BTCUSDT",), rate=200), script) as venue:
        feed = open_feed(f"binance:BTCUSDT?ws={venue.ws}&rest={venue.rest}", None, now)
        assert isinstance(feed, LiveFeed)
        metrics.follow(feed.name, feed.health)
        producer = Producer(home.log, home.registry, 1)
        tell = partial(metrics.progressed, feed.name)
        thread = threading.Thread(
            target=run_feed, args=(feed, producer, home.log, stop.is_set, tell)
        )
        thread.start()
        try:
            _wait_for(
                metrics.registry,
                lambda found: (
                    found.get(("k2_feed_reconnects_total", feed.name)) == 1
                    and found.get(("k2_feed_connections", feed.name)) == 1
                    and found.get(("k2_feed_rejected_total", feed.name)) == 3
                    # Quotes that were missed, and that no venue gives again.
                    and found.get(("k2_feed_gaps_total", feed.name)) == 1
                    and found.get(("k2_feed_open_holes", feed.name)) == 0
                    and abs(found.get(("k2_feed_clock_ahead_seconds", feed.name), 9.0)) < 0.5
                ),
            )
        finally:
            stop.set()
            thread.join()
            feed.close()


def _wait_for(registry: CollectorRegistry, what: Callable[[Figures], bool]) -> None:
    end = time.monotonic() + 30
    while not what(found := figures(registry)):
        assert time.monotonic() < end, found


def test_the_page_has_what_is_exposed_and_nothing_else() -> None:
    page = (Path(__file__).parents[1] / "docs" / "metrics.md").read_text("utf-8")
    told = set(re.findall(r"^\| \w+ \| `(k2_\w+)` \|", page, re.MULTILINE))
    exposed = set()
    for registry in registries().values():
        with serving(registry, "127.0.0.1", 0) as url, urllib.request.urlopen(url) as answer:
            exposed |= set(re.findall(rb"^# TYPE (\S+)", answer.read(), re.MULTILINE))
    names = {name.decode() for name in exposed}
    # The client tells of each count when it began, by itself.
    assert {name for name in names if not name.endswith("_created")} == told


def test_a_port_that_is_taken_is_told_and_one_that_was_used_is_free_again() -> None:
    registry = FeedMetrics().registry
    with serving(registry, "127.0.0.1", 0) as url:
        port = int(url.rpartition(":")[2].partition("/")[0])
        with (
            pytest.raises(Unavailable, match="cannot be served") as caught,
            serving(registry, "127.0.0.1", port),
        ):
            pass
        assert caught.value.place == f"127.0.0.1:{port}"
        assert "--metrics-port" in (caught.value.hint or "")
    with serving(registry, "127.0.0.1", port) as again:
        assert again == url
