"""The loop that brings a feed into the log: read, append, then store the position.

Comes in: a feed and the log's producer. Goes out: its records in the log, and its position under
its name in `k2.positions`. A feed killed at any moment repeats records and never loses one.
"""

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from random import Random
from typing import Final

import pyarrow as pa

from k2.errors import Broken, Unavailable
from k2.feeds.port import EndOfFeed, Feed, FeedInterrupted, Records
from k2.log import Log, Producer

POSITIONS: Final = "k2.positions"
"""The compacted topic that holds each feed's position, the feed's name being the key."""

_LOOK_SECONDS: Final = 0.05
"""Every wait looks this often whether it shall stop."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pace:
    """How much is appended at once, and how a feed or log that is away is waited for.

    Records are appended once there are `rows` of them or the last append is `hold_seconds` ago:
    few large appends at high rates, at low rates each record at once. Waits double from
    `first_wait_seconds` to `longest_wait_seconds`, each longer by up to a half drawn from
    `random`, and never end by themselves. `reopen` opens an interrupted feed anew at a position;
    without it the same feed is read again.
    """

    rows: int = 50_000
    hold_seconds: float = 0.03
    first_wait_seconds: float = 0.25
    longest_wait_seconds: float = 30.0
    random: Random = field(default_factory=Random)
    reopen: Callable[[str], Feed] | None = None


@dataclass(frozen=True)
class Progress:
    """Where a feed stands: records appended so far by exchange and kind, the position stored last
    (None: none yet), and what is waited for (None: nothing).
    """

    records: Mapping[tuple[str, str], int]
    position: str | None
    waiting: str | None = None


@dataclass(frozen=True)
class Ran:
    """What a run appended, by kind, and how long it took.

    `unsent` counts records that were read but not appended when the run was stopped: the position
    stored lies before them, so the next run reads them again.
    """

    records: Mapping[str, int]
    seconds: float
    unsent: int = 0


def read_position(log: Log, name: str) -> str | None:
    """The position stored for the feed `name`, to open it at; None if it never ran."""
    return log.latest(POSITIONS).get(name)


def run_feed(
    feed: Feed,
    producer: Producer,
    log: Log,
    stop: Callable[[], bool],
    on_progress: Callable[[Progress], None] | None = None,
    pace: Pace | None = None,
) -> Ran:
    """Append what `feed` reads until it ends or `stop()` says so; what is held is appended first.

    Waits for a log or a venue that is away, for as long as it takes. The caller closes `feed`;
    feeds opened by `pace.reopen` are closed here. Raises what waiting cannot mend, such as
    `Refused` for an exchange that is declared otherwise; nothing is lost then either.
    """
    run = _Run(feed, producer, log, stop, on_progress or (lambda _: None), pace or Pace())
    began = time.monotonic()
    try:
        run.until_end()
    finally:
        run.close()
    records: dict[str, int] = {}
    for (_, kind), count in run.sent.items():
        records[kind] = records.get(kind, 0) + count
    return Ran(records, time.monotonic() - began, run.held_rows)


class _Run:
    """One run: the records held between reading and appending, and how often waiting failed."""

    def __init__(
        self,
        feed: Feed,
        producer: Producer,
        log: Log,
        stop: Callable[[], bool],
        on_progress: Callable[[Progress], None],
        pace: Pace,
    ) -> None:
        self.sent: dict[tuple[str, str], int] = {}
        self.held_rows = 0
        self._feed = feed
        self._opened: Feed | None = None
        self._producer = producer
        self._log = log
        self._stop = stop
        self._on_progress = on_progress
        self._pace = pace
        self._exchanges = {exchange.name: exchange for exchange in feed.exchanges}
        self._held: dict[tuple[str, str], list[pa.Table]] = {}
        self._last_append = -math.inf
        self._stored: str | None = None
        self._failures = 0

    def until_end(self) -> None:
        for exchange in self._exchanges.values():
            if not self._insist(partial(self._producer.declare, exchange)):
                return
        while not self._stop():
            try:
                found = self._feed.read()
            except EndOfFeed:
                break
            except (FeedInterrupted, Unavailable) as error:
                self._flush()
                self._interrupted(error)
                continue
            for records in found:
                self._hold(records)
            if found:
                self._failures = 0
            elif not self.held_rows:
                # A feed that answers "none yet" at once must not make this a busy loop.
                time.sleep(0.001)
            if self._is_due() and not self._flush():
                return
        self._flush()

    def close(self) -> None:
        """Close what was opened here."""
        if self._opened is not None:
            self._opened.close()

    def _hold(self, records: Records) -> None:
        self._held.setdefault((records.exchange, records.kind), []).append(records.table)
        self.held_rows += records.table.num_rows

    def _is_due(self) -> bool:
        waited = time.monotonic() - self._last_append
        return self.held_rows > 0 and (
            self.held_rows >= self._pace.rows or waited >= self._pace.hold_seconds
        )

    def _flush(self) -> bool:
        """Append what is held, then store the position; False if stopped before that."""
        position = self._feed.position()
        while self._held:
            (exchange, kind), tables = next(iter(self._held.items()))
            if exchange not in self._exchanges:
                raise Broken(
                    f"the feed {self._feed.name} has records of an exchange it does not declare",
                    found=exchange,
                    expected=", ".join(self._exchanges),
                )
            table = _joined(tables)
            send = partial(self._producer.send, self._exchanges[exchange], kind, table)
            if not self._insist(send):
                return False
            # Only now: an append that failed is repeated, and one that was made is not.
            del self._held[exchange, kind]
            self.held_rows -= table.num_rows
            self.sent[exchange, kind] = self.sent.get((exchange, kind), 0) + table.num_rows
        if position != self._stored:
            if not self._insist(partial(self._log.put, POSITIONS, self._feed.name, position)):
                return False
            self._stored = position
        self._last_append = time.monotonic()
        self._tell(None)
        return True

    def _insist(self, write: Callable[[], object]) -> bool:
        """Write to the log, waiting as long as it is away; False if stopped while waiting."""
        failures = 0
        while True:
            try:
                write()
            except Unavailable as error:
                _logger.warning("the log is away, records are kept: %s", error)
                self._tell(f"the log is away: {error}")
                if not self._wait(error.retry_after or 0.0, failures):
                    return False
                failures += 1
            else:
                return True

    def _interrupted(self, error: FeedInterrupted | Unavailable) -> None:
        """Wait for the venue until the feed is open again just after what was read, or stopped."""
        while True:
            _logger.warning("the feed %s was interrupted: %s", self._feed.name, error)
            self._tell(f"the feed was interrupted: {error}")
            after = error.retry_after
            seconds = after.total_seconds() if isinstance(after, timedelta) else after or 0.0
            if not self._wait(seconds, self._failures) or self._pace.reopen is None:
                self._failures += 1
                return
            self._failures += 1
            try:
                opened = self._pace.reopen(self._feed.position())
            except (FeedInterrupted, Unavailable) as again:
                error = again
                continue
            self.close()
            self._feed = self._opened = opened
            return

    def _wait(self, least: float, failures: int) -> bool:
        """Wait `least` seconds or longer after many failures; False if stopped meanwhile."""
        pace = self._pace
        doubled = pace.first_wait_seconds * 2.0 ** min(failures, 30)
        seconds = max(least, min(doubled, pace.longest_wait_seconds))
        end = time.monotonic() + seconds * (1 + pace.random.random() / 2)
        while (left := end - time.monotonic()) > 0:
            if self._stop():
                return False
            time.sleep(min(left, _LOOK_SECONDS))
        return not self._stop()

    def _tell(self, waiting: str | None) -> None:
        self._on_progress(Progress(dict(self.sent), self._stored, waiting))


def _joined(tables: list[pa.Table]) -> pa.Table:
    """One table of many small ones, in one chunk: encoding costs by the chunk."""
    if len(tables) == 1:
        return tables[0]
    return pa.concat_tables(tables).unify_dictionaries().combine_chunks()
