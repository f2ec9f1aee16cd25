"""An audit that goes on from an earlier one: finds what is wrong since, and reads only that."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from k2.feeds import open_feed
from k2.feeds.port import Feed
from k2.ingest import Audit, Verified, audit, keep_verified, read_verified
from k2.log import Producer
from tests.journeys.home import Home, now, open_home

TOPIC = "market.crypto.trades.simulated"


class Growing:
    """A home that grows by a hundred trades at a time, in two partitions."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self._producer = Producer(home.log, home.registry, 2)
        self._feed: Feed = open_feed(
            "simulator:?rate=max&kinds=trades&symbols=9&chunk=100&duplicates=0.1", None, now
        )

    def grow(self) -> None:
        (records,) = self._feed.read()
        self._producer.send(self._feed.exchanges[0], "trades", records.table)
        self.home.catch_up()

    def files(self) -> set[str]:
        return {f.path for f in self.home.lake.table("trades").snapshot().files.select()}

    def audit(self) -> Audit:
        """From where the last clean one ended."""
        found = audit(self.home.log, self.home.lake, verified=read_verified(self.home.lake))
        keep_verified(self.home.lake, found.verified)
        return found


@pytest.fixture
def growing(tmp_path: Path) -> Iterator[Growing]:
    with open_home(tmp_path) as home:
        yield Growing(home)


def fates(found: Audit) -> int:
    return sum(p.committed + p.duplicate + p.rejected for p in found.partitions)


def test_it_counts_only_what_came_since(growing: Growing) -> None:
    growing.grow()
    first = growing.audit()
    growing.grow()
    second, whole = growing.audit(), audit(growing.home.log, growing.home.lake)
    assert first.ok
    assert second.ok
    assert fates(first) + fates(second) == fates(whole) > 200
    starts = {(p.topic, p.partition): p.end_offset for p in first.partitions}
    assert {(p.topic, p.partition): p.start_offset for p in second.partitions} == starts
    assert fates(growing.audit()) == 0


def test_older_files_are_not_read_again(growing: Growing) -> None:
    growing.grow()
    growing.audit()
    old = growing.files()
    growing.grow()
    for path in old:
        Path(path).unlink()
    assert growing.audit().ok
    assert not audit(growing.home.log, growing.home.lake).ok


def test_what_is_wrong_since_is_found_and_not_passed_over_later(growing: Growing) -> None:
    growing.grow()
    growing.audit()
    old = growing.files()
    growing.grow()
    (new,) = growing.files() - old
    rows = pq.ParquetFile(new).read()
    pq.write_table(rows.slice(1), new)
    for _ in range(2):
        found = growing.audit()
        assert [bool(p.problem) for p in found.partitions].count(True) == 1
    assert "trades" not in found.verified


def test_a_topic_that_was_made_anew_is_audited_from_its_start(growing: Growing) -> None:
    growing.grow()
    growing.audit()
    marks = read_verified(growing.home.lake)
    of_another = {
        (topic, "another log", number): at
        for (topic, _, number), at in marks["trades"].offsets.items()
    }
    found = audit(
        growing.home.log,
        growing.home.lake,
        verified={"trades": Verified(0, of_another)},
    )
    assert found == audit(growing.home.log, growing.home.lake)


def test_one_partition_alone_keeps_no_mark(growing: Growing) -> None:
    growing.grow()
    whole = audit(growing.home.log, growing.home.lake)
    found = audit(growing.home.log, growing.home.lake, partitions=[(TOPIC, 1)])
    assert found.partitions == whole.partitions[1:]
    assert whole.verified
    assert not found.verified
