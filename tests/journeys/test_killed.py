"""Writers killed, or stopped while another takes over, at every step: nothing lost or doubled."""

import os
import random
import signal
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from k2.feeds import Feed, open_feed
from k2.ingest import audit, table_of
from k2.log import Producer
from k2.model import Topic
from tests.journeys.home import (
    STEPS,
    Blow,
    Home,
    ledger,
    now,
    open_home,
    overtaken,
    start_writer,
    wait_until_stopped,
)

FAULTY = "simulator:?rate=max&symbols=8&seed=11&duplicates=0.02&late=0.02&malformed=0.02"


Place = tuple[str, str, int, int]
"""Topic, the log's identity, partition, offset."""


def places_in_log(home: Home) -> Counter[Place]:
    """Every place that the log holds, read message by message."""
    places: Counter[Place] = Counter()
    for topic, partitions in home.log.topics().items():
        log_id = home.log.identity(topic)
        for partition in range(partitions):
            offset = home.log.start_offset(topic, partition)
            while batches := home.log.read(topic, partition, offset, 1 << 24):
                for batch in batches:
                    places.update((topic, log_id, partition, int(o)) for o in batch.offsets)
                    offset = batch.next_offset
    return places


def places_in_lake(home: Home) -> Counter[Place]:
    """Every place that a row or a ledger's entry cites, each time it does."""
    places: Counter[Place] = Counter()
    columns = ["log_topic", "log_id", "log_partition", "log_offset"]
    for name in home.log.topics():
        topic = Topic.parse(name)
        assert topic is not None
        snapshot = home.lake.table(table_of(topic.kind)).snapshot()
        paths = [file.path for file in snapshot.files.select()]
        for name_of_ledger in ("rejected", "duplicates"):
            paths += ledger(home, name_of_ledger)
        for path in paths:
            table = pq.read_table(path, columns=columns)
            rows = zip(*(table[c].to_pylist() for c in columns), strict=True)
            places.update(row for row in rows if row[0] == name)
    return places


def assert_exact(home: Home) -> None:
    found = audit(home.log, home.lake)
    assert found.ok, [p for p in found.partitions if p.problem]
    for part in found.partitions:
        fates = part.committed + part.duplicate + part.rejected + part.absent + part.lost
        assert part.end_offset - part.start_offset == fates + part.shed + part.in_flight


def feed_some(feed: Feed, producer: Producer, rows: int) -> None:
    (exchange,) = feed.exchanges
    sent = 0
    while sent < rows:
        for records in feed.read():
            part = records.table.slice(0, rows)
            producer.send(exchange, records.kind, part)
            sent += part.num_rows


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_200_kills_lose_and_double_nothing(tmp_path: Path) -> None:
    chance = random.Random(20261124)
    with open_home(tmp_path) as home:
        producer = Producer(home.log, home.registry, 3)
        feed = open_feed(FAULTY, None, now)
        hit: Counter[str] = Counter()
        for number in range(200):
            feed_some(feed, producer, chance.randrange(200, 6_000))
            step = STEPS[number % len(STEPS)]
            blow = Blow(step, chance.randrange(1, 4), signal.SIGKILL)
            writer = start_writer(tmp_path, blow, until_caught_up=True)
            if chance.random() < 0.3:
                # And at a moment that no step names.
                writer.join(chance.random() * 0.4)
                writer.kill()
            writer.join(60)
            assert writer.exitcode in (0, -signal.SIGKILL), (number, blow, writer.exitcode)
            hit[step] += writer.exitcode != 0
            if number % 10 == 9:
                # What is lost or doubled stays so: to look less often finds as much.
                assert_exact(home)
        assert min(hit[step] for step in STEPS) >= 10, hit
        home.catch_up()
        assert_exact(home)
        assert places_in_lake(home) == places_in_log(home)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_stopped_writer_that_wakes_up_changes_nothing(tmp_path: Path) -> None:
    chance = random.Random(7)
    with open_home(tmp_path) as home:
        producer = Producer(home.log, home.registry, 2)
        # One table, so that one thread commits: stopped at a step, it holds no lock. (Frozen within
        # SQLite's own lock it would keep the others waiting until it wakes, and nothing else.)
        feed = open_feed(f"{FAULTY}&kinds=trades", None, now)
        for number in range(25):
            feed_some(feed, producer, 4_000)
            blow = Blow(STEPS[number % len(STEPS)], chance.randrange(1, 3), signal.SIGSTOP)
            sleeper = start_writer(tmp_path, blow, until_caught_up=True)
            wait_until_stopped(sleeper)
            second = start_writer(tmp_path, None, until_caught_up=True)
            second.join(60)
            assert second.exitcode == 0
            assert_exact(home)
            if sleeper.is_alive():
                assert sleeper.pid is not None
                os.kill(sleeper.pid, signal.SIGCONT)
            sleeper.join(60)
            assert sleeper.exitcode == 0
            assert_exact(home)
        assert overtaken(tmp_path) > 5
        assert places_in_lake(home) == places_in_log(home)
