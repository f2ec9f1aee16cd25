"""The loop feed → log over the real SQLite log; stand-ins exist only to inject a fault."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pytest

from k2 import model
from k2.errors import Broken, Refused, Unavailable
from k2.feeds import EndOfFeed, FeedInterrupted, Records, open_feed
from k2.feeds.run import Pace, Progress, read_position, run_feed
from k2.log import Append, Log, Producer, Registry, open_log, open_registry
from k2.model import Exchange, latest

URL = "simulator:?rate=max&symbols=9&seed=5&chunk=3000&count=40000"
QUICK = Pace(rows=5_000, first_wait_seconds=0.001, longest_wait_seconds=0.002, random=Random(1))


def now() -> datetime:
    return datetime.now(UTC)


def never() -> bool:
    return False


@dataclass(frozen=True)
class Home:
    log: Log
    registry: Registry

    def run(self, feed: Any, **given: Any) -> Any:
        producer = Producer(given.pop("log", self.log), self.registry, 3)
        options: dict[str, Any] = {"log": self.log, "stop": never, "pace": QUICK} | given
        return run_feed(feed, producer, **options)

    def records(self, kind: str) -> pa.Table:
        """All records of a kind in the log: partition by partition, in the order of offsets."""
        topic = f"market.crypto.{kind}.simulated"
        tables = []
        for partition in range(self.log.topics()[topic]):
            offset = self.log.start_offset(topic, partition)
            while batches := self.log.read(topic, partition, offset, 1 << 20):
                for batch in batches:
                    writer = self.registry.schema(int(batch.schema_ids[0]))
                    tables.append(model.decode(batch.values, writer, latest(kind)).table)
                    offset = batch.next_offset
        return pa.concat_tables(tables)

    def numbers(self) -> Counter[tuple[str, str, int]]:
        """How often each record is in the log, by kind, symbol and its number."""
        found: Counter[tuple[str, str, int]] = Counter()
        for kind, column in (("trades", "trade_id"), ("quotes", "source_sequence")):
            table = self.records(kind)
            numbers = map(int, table[column].to_pylist())
            found.update(
                (kind, *pair) for pair in zip(table["symbol"].to_pylist(), numbers, strict=True)
            )
        return found


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    log, registry = open_log(tmp_path / "log.db"), open_registry(tmp_path / "registry.db")
    yield Home(log, registry)
    log.close()
    registry.close()


def expected(url: str = URL) -> dict[tuple[str, str], list[int]]:
    """Each symbol's numbers in the order in which the feed has them."""
    feed = open_feed(url, None, now)
    found: dict[tuple[str, str], list[int]] = {}
    while True:
        try:
            for records in feed.read():
                column = "trade_id" if records.kind == "trades" else "source_sequence"
                for symbol, number in zip(
                    records.table["symbol"].to_pylist(),
                    records.table[column].to_pylist(),
                    strict=True,
                ):
                    found.setdefault((records.kind, symbol), []).append(int(number))
        except EndOfFeed:
            return found


def once(found: Mapping[tuple[str, str], Sequence[int]]) -> Counter[tuple[str, str, int]]:
    return Counter((*lane, number) for lane, numbers in found.items() for number in numbers)


def test_all_records_are_in_the_log_in_each_symbol_s_order(home: Home) -> None:
    feed = open_feed(URL, None, now)
    ran = home.run(feed)
    assert sum(ran.records.values()) == 40_000
    assert ran.unsent == 0
    found: dict[tuple[str, str], list[int]] = {}
    for kind, column in (("trades", "trade_id"), ("quotes", "source_sequence")):
        table = home.records(kind)
        assert table.num_rows == ran.records[kind]
        for symbol, number in zip(
            table["symbol"].to_pylist(), table[column].to_pylist(), strict=True
        ):
            found.setdefault((kind, symbol), []).append(int(number))
    assert found == expected()


def test_values_come_back_as_they_were_read(home: Home) -> None:
    url = "simulator:?rate=max&symbols=1&count=500&malformed=0.1"
    feed = open_feed(url, None, lambda: datetime(2026, 1, 1, tzinfo=UTC))
    read = {records.kind: records.table for records in feed.read()}
    home.run(open_feed(url, None, lambda: datetime(2026, 1, 1, tzinfo=UTC)))
    for kind, table in read.items():
        assert home.records(kind).to_pylist() == table.to_pylist()


def test_the_position_is_stored_and_a_second_run_goes_on_there(home: Home) -> None:
    feed = open_feed(URL, None, now)
    assert read_position(home.log, feed.name) is None
    home.run(feed)
    assert read_position(home.log, feed.name) == "40000"
    longer = URL.replace("40000", "50000")
    ran = home.run(open_feed(longer, read_position(home.log, feed.name), now))
    assert sum(ran.records.values()) == 10_000
    assert home.numbers() == once(expected(longer))


def test_what_is_held_when_it_stops_is_appended(home: Home) -> None:
    feed = open_feed(URL, None, now)
    answers = iter([False, False, True, True, True])
    ran = home.run(feed, stop=lambda: next(answers), pace=Pace(rows=10**6, hold_seconds=100))
    assert sum(ran.records.values()) == 6_000
    assert read_position(home.log, feed.name) == feed.position() == "6000"


def test_small_reads_become_few_appends(home: Home) -> None:
    log = CountingLog(home.log)
    feed = open_feed("simulator:?rate=20000&kinds=trades", None, now)
    began = time.monotonic()
    ran = home.run(feed, log=log, pace=Pace(), stop=lambda: time.monotonic() > began + 0.6)
    assert sum(ran.records.values()) > 3_000
    assert log.appends <= ran.seconds / Pace().hold_seconds + 2


def test_large_reads_are_appended_as_they_come(home: Home) -> None:
    log = CountingLog(home.log)
    home.run(open_feed(URL, None, now), log=log, pace=Pace(rows=10_000, hold_seconds=100))
    # The first at once, then 12,000 at a time and the rest: two kinds each.
    assert log.appends == 2 * (1 + 3 + 1)


class CountingLog:
    """Counts appends; all else is the log's."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self.appends = 0

    def append(self, appends: Sequence[Append]) -> list[Any]:
        self.appends += 1
        return self._log.append(appends)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)


class FalteringLog(CountingLog):
    """Away for every third append and third other write; the answer lost, if `after`."""

    def __init__(self, log: Log, *, after: bool) -> None:
        super().__init__(log)
        self._after = after
        self._puts = 0

    def append(self, appends: Sequence[Append]) -> list[Any]:
        self.appends += 1
        if self.appends % 3:
            return self._log.append(appends)
        if self._after:
            self._log.append(appends)
        raise Unavailable("the disk is full", retry_after=0.001)

    def put(self, topic: str, key: str, value: str) -> None:
        self._puts += 1
        if self._puts % 3 == 1:
            raise Unavailable("the log is locked")
        self._log.put(topic, key, value)


def test_a_log_that_is_away_is_waited_for_and_said(home: Home) -> None:
    told: list[Progress] = []
    log = FalteringLog(home.log, after=False)
    feed = open_feed(URL, None, now)
    ran = home.run(feed, log=log, on_progress=told.append)
    assert sum(ran.records.values()) == 40_000
    # What the log refused was kept, and what it took was not repeated.
    assert home.numbers() == once(expected())
    assert any(p.waiting and "the disk is full" in p.waiting for p in told)
    by_exchange = {("simulated", kind): count for kind, count in ran.records.items()}
    assert told[-1] == Progress(by_exchange, "40000", None)


def test_an_answer_that_was_lost_repeats_and_never_loses(home: Home) -> None:
    home.run(open_feed(URL, None, now), log=FalteringLog(home.log, after=True))
    found = home.numbers()
    assert found.keys() == once(expected()).keys()
    assert max(found.values()) > 1


def test_stopped_while_the_log_is_away_it_says_what_it_did_not_append(home: Home) -> None:
    class Away(CountingLog):
        def append(self, appends: Sequence[Append]) -> list[int]:
            raise Unavailable("the disk is full", retry_after=100)

    waiting: list[str] = []
    feed = open_feed(URL, None, now)

    def note(progress: Progress) -> None:
        if progress.waiting:
            waiting.append(progress.waiting)

    ran = home.run(feed, log=Away(home.log), on_progress=note, stop=lambda: bool(waiting))
    assert (ran.unsent, ran.records) == (3_000, {})
    assert read_position(home.log, feed.name) is None


class BreakingFeed:
    """A simulator that hangs up after every few reads until it is opened again."""

    def __init__(self, url: str, position: str | None, reads: int) -> None:
        self._feed = open_feed(url, position, now)
        self.name, self.exchanges = self._feed.name, self._feed.exchanges
        self._left = reads
        self.closed = False

    def read(self) -> Sequence[Records]:
        if self._left == 0:
            raise FeedInterrupted("the venue hung up", timedelta(milliseconds=1))
        self._left -= 1
        return self._feed.read()

    def position(self) -> str:
        return self._feed.position()

    def close(self) -> None:
        self.closed = True


def test_an_interrupted_feed_is_opened_again_where_it_was(home: Home) -> None:
    opened: list[BreakingFeed] = []
    tries = 0

    def reopen(position: str) -> BreakingFeed:
        nonlocal tries
        tries += 1
        if tries % 2:
            raise Unavailable("no route to the venue")
        opened.append(BreakingFeed(URL, position, 2))
        return opened[-1]

    first = BreakingFeed(URL, None, 2)
    told: list[Progress] = []
    pace = Pace(5_000, 0, 0.001, 0.002, Random(1), reopen)
    ran = home.run(first, pace=pace, on_progress=told.append)
    assert sum(ran.records.values()) == 40_000
    assert home.numbers() == once(expected())
    assert len(opened) > 3
    assert all(feed.closed for feed in opened)
    assert not first.closed  # whoever opened it closes it
    reasons = [p.waiting for p in told if p.waiting]
    assert any("hung up" in reason for reason in reasons)
    assert any("no route" in reason for reason in reasons)


def test_an_interrupted_feed_waits_ever_longer_without_a_last_try(home: Home) -> None:
    waits: list[float] = []
    last = time.monotonic()

    def reopen(position: str) -> BreakingFeed:
        nonlocal last
        waits.append(time.monotonic() - last)
        last = time.monotonic()
        return BreakingFeed(URL, position, 0)

    pace = Pace(first_wait_seconds=0.01, longest_wait_seconds=0.08, random=Random(1), reopen=reopen)
    home.run(BreakingFeed(URL, None, 0), pace=pace, stop=lambda: len(waits) >= 8)
    for n, wait in enumerate(waits):
        assert wait >= 0.01 * 2 ** min(n, 3)


def test_records_of_an_exchange_that_is_not_declared_stop_it(home: Home) -> None:
    feed = BreakingFeed(URL, None, 5)
    feed.exchanges = (Exchange("other", "crypto", "UTC"),)
    with pytest.raises(Broken, match="does not declare"):
        home.run(feed)
    assert read_position(home.log, feed.name) is None


def test_an_exchange_declared_otherwise_is_refused_before_anything_is_read(home: Home) -> None:
    Producer(home.log, home.registry, 1).declare(Exchange("simulated", "crypto", "Asia/Tokyo"))
    feed = open_feed(URL, None, now)
    with pytest.raises(Refused):
        home.run(feed)
    assert feed.position() == "0"


RUN = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from k2.feeds import open_feed
from k2.feeds.run import Pace, read_position, run_feed
from k2.log import Producer, open_log, open_registry

home, url = Path(sys.argv[1]), sys.argv[2]
log, registry = open_log(home / "log.db"), open_registry(home / "registry.db")
clock = lambda: datetime.now(UTC)
name = open_feed(url, None, clock).name
feed = open_feed(url, read_position(log, name), clock)
print("ready", flush=True)
run_feed(feed, Producer(log, registry, 3), log, lambda: False, pace=Pace(rows=1))
"""


def test_killed_at_any_moment_it_repeats_and_never_loses(tmp_path: Path) -> None:
    url = "simulator:?rate=max&symbols=9&seed=6&chunk=500&count=20000"
    random, kills = Random(11), 0
    while True:
        process = subprocess.Popen(
            [sys.executable, "-c", RUN, str(tmp_path), url], stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        process.stdout.readline()
        try:
            code = process.wait(random.uniform(0.02, 0.2) if kills < 3 else 60)
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
        else:
            assert code == 0
            break
        finally:
            process.stdout.close()
    assert kills > 0
    log, registry = open_log(tmp_path / "log.db"), open_registry(tmp_path / "registry.db")
    found = Home(log, registry).numbers()
    log.close()
    registry.close()
    assert found.keys() == once(expected(url)).keys()
    # A kill repeats at most the records of one round, of 500.
    assert sum(found.values()) - len(found) <= kills * 500
