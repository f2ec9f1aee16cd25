"""Figures of feeds and writers for Prometheus, each part's on a port of its own.

The parts tell what they did, once a batch, and know nothing of this module: the commands that run
them put it together. The server's own figures are in `k2.api.metrics`.
"""

import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from k2.errors import Unavailable

if TYPE_CHECKING:
    from k2.feeds.live.feed import Health
    from k2.feeds.run import Progress
    from k2.ingest import Change, CommitFigures, Lag

_SECONDS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_ROWS: Final = tuple(10.0**n for n in range(7))
_BYTES: Final = tuple(1024.0 * 4**n for n in range(10))
_NUMBERED: Final = ("trades", "quotes")
_STATUSES: Final = ("ok", "gap", "duplicate", "late", "reset", "unknown")
_SIZES: Final = ("small", "large")
_LEVELS: Final = ("NORMAL", "SOFT", "GRACEFUL", "AGGRESSIVE", "CIRCUIT_BREAK")
"""Names of the levels of degradation, by number: `k2.ingest.Level`, which takes long to load."""

_NO_FOLDERS: Final[Mapping[str, Path]] = MappingProxyType({})

_COUNTER, _GAUGE = CounterMetricFamily, GaugeMetricFamily
_Form = type[CounterMetricFamily] | type[GaugeMetricFamily]
_FEED: Final = ("feed",)

_OF_KINDS: Final = (
    ("feed_rejected", "rejects", "Messages that could not be read, and were kept"),
    ("feed_gaps", "gaps", "Holes that were noticed and cannot be filled"),
)
"""Figures that count the records of a kind."""

_OF_HEALTH: "Final[tuple[tuple[_Form, str, str, Callable[[Health], float | None]], ...]]" = (
    (_COUNTER, "feed_reconnects", "Connections that ended unasked", lambda h: h.reconnects),
    (_GAUGE, "feed_connections", "Connections that stand", lambda h: h.connected),
    (_GAUGE, "feed_open_holes", "Holes in trades, being filled", lambda h: h.open_holes),
    (
        _GAUGE,
        "feed_clock_ahead_seconds",
        "How far our clock is ahead of the venue's",
        lambda h: h.skew_seconds,
    ),
)
"""Figures that live feeds alone have."""


class FeedMetrics:
    """What the feeds of one process did. Any thread.

    `spool` tells how many records, and of how many bytes, wait on disk for the log, `spool_limit`
    how many bytes may; None: there is no waiting on disk.
    """

    def __init__(
        self,
        spool: Callable[[], tuple[int, int]] | None = None,
        spool_limit: int | None = None,
    ) -> None:
        self.registry = CollectorRegistry()
        self._progress: dict[str, Progress] = {}
        self._health: dict[str, Callable[[], Health]] = {}
        self._spool = spool
        self._spool_limit = spool_limit
        self.registry.register(_Asked(self._collect))

    def progressed(self, feed: str, progress: "Progress") -> None:
        """The feed of that name stands so."""
        self._progress[feed] = progress

    def follow(self, feed: str, health: "Callable[[], Health]") -> None:
        """Ask for the health of a live feed whenever somebody looks; it may be a feed anew."""
        self._health[feed] = health

    def _collect(self) -> Iterator[Metric]:
        # Copied whole: feeds' threads add to them meanwhile.
        progress = dict(self._progress)
        health = {(feed,): ask() for feed, ask in dict(self._health).items()}
        records = {
            (feed, exchange, kind): count
            for feed, each in progress.items()
            for (exchange, kind), count in each.records.items()
        }
        waiting = {(feed,): each.waiting is not None for feed, each in progress.items()}
        by = ("feed", "exchange", "kind")
        yield _family(
            _COUNTER, "feed_records", "Records produced into log or spool", by, records.items()
        )
        yield _family(
            _GAUGE, "feed_waiting", "1 if it waits for log or venue", _FEED, waiting.items()
        )
        for name, kind, meaning in _OF_KINDS:
            counts = dict.fromkeys(waiting, 0)
            for (feed, _, found), count in records.items():
                counts[feed,] += count if found == kind else 0
            yield _family(_COUNTER, name, meaning, _FEED, counts.items())
        for form, name, meaning, value in _OF_HEALTH:
            values = {key: value(each) for key, each in health.items()}
            yield _family(form, name, meaning, _FEED, values.items())
        count, size = (0, 0) if self._spool is None else self._spool()
        yield _family(_GAUGE, "spool_records", "Records that wait on disk", (), [((), count)])
        yield _family(
            _GAUGE, "spool_bytes", "Bytes that wait on disk for the log", (), [((), size)]
        )
        meaning = "Bytes that may wait there; without a server as log, none can"
        yield _family(_GAUGE, "spool_limit_bytes", meaning, (), [((), self._spool_limit)])


class WriterMetrics:
    """What one writer did: a `k2.ingest.Watch`. `clock` gives the time, with a zone; `folders`
    are those, by name, of whose disks the room is told.
    """

    def __init__(
        self,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        folders: Mapping[str, Path] = _NO_FOLDERS,
    ) -> None:
        self.registry = CollectorRegistry()
        self._clock = clock
        self._folders = folders
        self._lock = threading.Lock()
        self._lags: dict[str, Mapping[tuple[str, int], Lag]] = {}
        self._stopped: dict[str, int] = {}
        self._open: dict[str, int] = {}
        self._looked: dict[str, datetime] = {}
        self._messages = self._counter(
            "messages", "Messages read from the log; those read again count anew", by="topic"
        )
        self._rows = self._counter("rows", "Rows committed")
        self._duplicates = self._counter("duplicates", "Records known already")
        self._rejected = self._counter("rejected", "Records that the writer rejected and kept")
        self._shed = self._counter("shed", "Records left in the log under overload")
        self._filled = self._counter("filled", "Records that were shed and brought in later")
        self._level = Gauge(
            "k2_ingest_level",
            "Level of degradation, from 0 (all is done) to 4 (nothing is)",
            registry=self.registry,
        )
        self._sequence = Counter(
            "k2_ingest_sequence",
            "Records by what they were to their streams' numbers, by table and status",
            ["table", "status"],
            registry=self.registry,
        )
        self._gaps = Counter(
            "k2_ingest_gaps",
            "Ranges of missing numbers told to the gap ledger, by table and size",
            ["table", "size"],
            registry=self.registry,
        )
        self._changes = self._counter("level_changes", "Changes of level", by="after")
        for level in _LEVELS:
            self._changes.labels(level)
        self._conflicts = self._counter("conflicts", "Times that another writer was faster")
        self._commit_seconds = self._histogram("commit_seconds", "Seconds of a commit", _SECONDS)
        self._commit_rows = self._histogram("commit_rows", "Rows of a commit", _ROWS)
        self._commit_bytes = self._histogram("commit_bytes", "Bytes of a commit's files", _BYTES)
        self._freshness = self._histogram(
            "freshness_seconds", "Seconds from a commit's oldest record to its rows", _SECONDS
        )
        self.registry.register(_Asked(self._collect))

    def read(self, topic: str, messages: int) -> None:
        """Count messages that were read."""
        self._messages.labels(topic).inc(messages)

    def committed(self, figures: "CommitFigures") -> None:
        """Count a commit."""
        table = figures.table
        self._rows.labels(table).inc(figures.rows)
        self._duplicates.labels(table).inc(figures.duplicates)
        self._rejected.labels(table).inc(figures.rejected)
        self._shed.labels(table).inc(figures.shed)
        self._filled.labels(table).inc(figures.filled)
        for status, count in figures.sequence.items():
            self._sequence.labels(table, status).inc(count)
        gaps = (figures.small_gaps, figures.large_gaps)
        for size, count in zip(_SIZES, gaps, strict=True):
            self._gaps.labels(table, size).inc(count)
        self._commit_seconds.labels(table).observe(figures.seconds)
        self._commit_rows.labels(table).observe(figures.rows)
        self._commit_bytes.labels(table).observe(figures.size_bytes)
        if figures.oldest is not None:
            age = (self._clock() - figures.oldest).total_seconds()
            # A feed's clock may be ahead of the writer's.
            self._freshness.labels(table).observe(max(0.0, age))

    def began_again(self, table: str) -> None:
        """Count a conflict."""
        self._conflicts.labels(table).inc()

    def behind(
        self, table: str, lags: "Mapping[tuple[str, int], Lag]", stopped: int, shed: int
    ) -> None:
        """Keep how the partitions stand, in place of what was said before."""
        with self._lock:
            if table not in self._looked:
                self._begin_at_nought(table)
            self._lags[table] = lags
            self._stopped[table] = stopped
            self._open[table] = shed
            self._looked[table] = self._clock()

    def _begin_at_nought(self, table: str) -> None:
        # Prometheus sees no increase where a count's first value is not 0.
        for counter in (self._rows, self._duplicates, self._rejected, self._shed, self._filled):
            counter.labels(table)
        self._conflicts.labels(table)
        for status in _STATUSES if table in _NUMBERED else ():
            self._sequence.labels(table, status)
        for size in _SIZES if table in _NUMBERED else ():
            self._gaps.labels(table, size)
        for histogram in (self._commit_seconds, self._commit_rows, self._commit_bytes):
            histogram.labels(table)
        self._freshness.labels(table)

    def stepped(self, change: "Change") -> None:
        """Count a change of level, and keep the new one."""
        self._level.set(change.after)
        self._changes.labels(change.after.name).inc()

    def _collect(self) -> Iterator[Metric]:
        with self._lock:
            lags = {place: lag for each in self._lags.values() for place, lag in each.items()}
            stopped, waiting = dict(self._stopped), dict(self._open)
            looked = dict(self._looked)
        now = self._clock()
        messages = {(topic, str(n)): lag.messages for (topic, n), lag in lags.items()}
        seconds = {
            (topic, str(n)): max(0.0, (now - (lag.since or now)).total_seconds())
            for (topic, n), lag in lags.items()
        }
        halted = {(table,): count for table, count in stopped.items()}
        by = ("topic", "partition")
        meaning = "Messages of the log that are not committed"
        yield _family(_GAUGE, "ingest_lag_messages", meaning, by, messages.items())
        meaning = "Age of the oldest message that is not committed"
        yield _family(_GAUGE, "ingest_lag_seconds", meaning, by, seconds.items())
        meaning = "Partitions that stopped, since log and table do not belong together"
        yield _family(_GAUGE, "ingest_stopped_partitions", meaning, ("table",), halted.items())
        meaning = "Records of a table that were shed, by any writer, and are not brought in yet"
        shed = {(table,): count for table, count in waiting.items()}
        yield _family(_GAUGE, "ingest_shed_waiting", meaning, ("table",), shed.items())
        meaning = "Seconds since the writer last looked how far it is"
        ages = {(table,): max(0.0, (now - at).total_seconds()) for table, at in looked.items()}
        yield _family(_GAUGE, "ingest_stalled_seconds", meaning, ("table",), ages.items())
        yield from self._disks()

    def _disks(self) -> Iterator[Metric]:
        free: dict[tuple[str], int] = {}
        size: dict[tuple[str], int] = {}
        for name, folder in self._folders.items():
            # A disk that is gone has no room to tell of; the writer says so itself.
            with suppress(OSError):
                usage = shutil.disk_usage(folder)
                free[name,], size[name,] = usage.free, usage.total
        meaning = "Bytes that are free on the disk of a folder"
        yield _family(_GAUGE, "disk_free_bytes", meaning, ("folder",), free.items())
        meaning = "Bytes that the disk of a folder has"
        yield _family(_GAUGE, "disk_size_bytes", meaning, ("folder",), size.items())

    def _counter(self, name: str, meaning: str, *, by: str = "table") -> Counter:
        return Counter(f"k2_ingest_{name}", f"{meaning}, by {by}", [by], registry=self.registry)

    def _histogram(self, name: str, meaning: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(
            f"k2_ingest_{name}",
            f"{meaning}, by table",
            ["table"],
            buckets=buckets,
            registry=self.registry,
        )


@contextmanager
def serving(registry: CollectorRegistry, host: str, port: int) -> Iterator[str]:
    """Serve the registry at `host` and `port` (0: any that is free) meanwhile; yields the URL.

    Raises `Unavailable` if it cannot listen there.
    """
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise Unavailable(
            f"the metrics cannot be served there: {error.strerror}",
            place=f"{host}:{port}",
            hint="--metrics-port names another port, and 0 any that is free",
        ) from error
    try:
        at = f"[{host}]" if ":" in host else host
        yield f"http://{at}:{server.server_port}/metrics"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Asked(Collector):
    """Figures that are looked up when somebody asks."""

    def __init__(self, collect: Callable[[], Iterator[Metric]]) -> None:
        self._collect = collect

    def collect(self) -> Iterator[Metric]:
        return self._collect()


def _family(
    form: _Form,
    name: str,
    meaning: str,
    by: tuple[str, ...],
    values: Iterable[tuple[tuple[str, ...], float | None]],
) -> Metric:
    """A figure with its values by those labels; None: it has none yet."""
    told = f"{meaning}, by {', '.join(by)}" if by else meaning
    family = form(f"k2_{name}", told, labels=by)
    for labels, value in values:
        if value is not None:
            family.add_metric(labels, float(value))
    return family
