"""A live source into the log, until Ctrl-C or until it has no more."""

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

import click

from k2.cli.options import metrics_option, settings_option
from k2.cli.show import say
from k2.cli.stores import opened_log, spooled, stop_on_signals, told_metrics
from k2.settings import Settings

if TYPE_CHECKING:
    from k2.feeds import Feed
    from k2.feeds.run import Progress, Ran
    from k2.log import Log, Producer
    from k2.metrics import FeedMetrics


@click.command("feed")
@click.argument("url", nargs=-1, required=True)
@metrics_option("K2_FEED_METRICS_PORT")
@settings_option
def command(settings: Settings, url: tuple[str, ...], metrics_port: int | None) -> None:
    """Bring what the feeds at URL… tell into the log, from where each of them ended last.

    While the log's server is away, records wait in the home folder (see K2_LOG_SPOOL_BYTES).

    For example simulator:?symbols=50&rate=20000
    """
    from k2.log import Producer
    from k2.log.spool import Spooled
    from k2.metrics import FeedMetrics

    port = settings.metrics.feed_port if metrics_port is None else metrics_port
    with (
        stop_on_signals() as stop,
        opened_log(settings) as (opened, registry),
        spooled(settings, opened, stop) as log,
    ):
        metrics = FeedMetrics()
        if isinstance(log, Spooled):
            metrics = FeedMetrics(log.backlog, settings.log.spool_bytes)
        producer = Producer(log, registry, settings.log.partitions)
        with (
            told_metrics(metrics.registry, settings.metrics.host, port),
            ThreadPoolExecutor(len(url), thread_name_prefix="feed") as threads,
        ):
            failed = False
            runs = [
                threads.submit(_run, each, producer, log, lambda: failed or stop(), metrics)
                for each in url
            ]
            for one, run in zip(url, runs, strict=True):
                try:
                    _tell_end(one, run.result())
                except BaseException:
                    # The others must not go on unseen: this command ends as a whole.
                    failed = True
                    raise


def open_at_position(url: str, log: "Log", clock: Callable[[], datetime]) -> "Feed":
    """The feed at `url`, where its last run ended."""
    from k2.feeds import open_feed
    from k2.feeds.run import read_position

    feed = open_feed(url, None, clock)
    position = read_position(log, feed.name)
    if position is None:
        return feed
    feed.close()
    return open_feed(url, position, clock)


def _now() -> datetime:
    return datetime.now(UTC)


def _run(
    url: str, producer: "Producer", log: "Log", stop: Callable[[], bool], metrics: "FeedMetrics"
) -> "Ran":
    from k2.feeds import open_feed
    from k2.feeds.run import Pace, run_feed

    feed = open_at_position(url, log, _now)
    if (health := getattr(feed, "health", None)) is not None:
        # Only live feeds have one; they open their connections again by themselves.
        metrics.follow(feed.name, health)
    teller = _Teller(url)

    def progressed(progress: "Progress") -> None:
        teller(progress)
        metrics.progressed(feed.name, progress)

    try:
        pace = Pace(reopen=partial(_reopen, open_feed, url))
        return run_feed(feed, producer, log, stop, progressed, pace)
    finally:
        feed.close()


def _reopen(
    open_feed: "Callable[[str, str | None, Callable[[], datetime]], Feed]", url: str, position: str
) -> "Feed":
    return open_feed(url, position, _now)


class _Teller:
    """Tells once when a feed has to wait, and once when it goes on."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._waiting: str | None = None

    def __call__(self, progress: "Progress") -> None:
        if progress.waiting and not self._waiting:
            say(f"{self._url} waits: {progress.waiting}")
        elif self._waiting and not progress.waiting:
            say(f"{self._url} goes on")
        self._waiting = progress.waiting


def _tell_end(url: str, ran: "Ran") -> None:
    rows = ", ".join(f"{count:,} {kind}" for kind, count in sorted(ran.records.items()))
    say(f"{url}: {rows or 'nothing'} in {ran.seconds:,.1f} s", dim=sys.stderr.isatty())
