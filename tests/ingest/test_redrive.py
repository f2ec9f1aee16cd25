"""Rejected records that can be read now go back into the log, each once, whatever interrupts."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from k2.feeds import open_feed
from k2.ingest import audit, redrive
from k2.log import Append, Log, Producer
from k2.log.wire import partition_of
from k2.model import Topic, encode, latest
from tests.journeys.home import SKEW, Home, now, open_home

TRADES = "market.crypto.trades.simulated"


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """100 good trades, and 40 behind them whose schema the registry does not know yet."""
    with open_home(tmp_path) as opened:
        feed = open_feed("simulator:?rate=max&kinds=trades&symbols=8&chunk=140", None, now)
        (records,) = feed.read()
        producer = Producer(opened.log, opened.registry, 3)
        producer.send(feed.exchanges[0], "trades", records.table.slice(0, 100))
        unknown = encode(records.table.slice(100), latest("trades"))
        # As by a producer of another registry, under the id that comes next here.
        opened.log.append([Append(TRADES, 0, 2, unknown)])
        opened.catch_up()
        yield opened


def counts(home: Home) -> tuple[int, int, int]:
    home.catch_up()
    found = audit(home.log, home.lake)
    assert found.ok
    parts = found.partitions
    return (
        sum(p.committed for p in parts),
        sum(p.duplicate for p in parts),
        sum(p.rejected for p in parts),
    )


def make_readable(home: Home) -> None:
    known = home.registry.versions(Topic.parse(TRADES).subject)  # type: ignore[union-attr]
    schema = dict(known[0].schema)
    assert home.registry.register("another-value", {**schema, "name": "another"}) == 2


def test_records_go_back_once(home: Home) -> None:
    assert counts(home) == (100, 0, 40)
    done = redrive(home.log, home.registry, home.lake, SKEW)
    assert (done.appended, done.before, done.unreadable) == (0, 0, 40)
    make_readable(home)
    done = redrive(home.log, home.registry, home.lake, SKEW)
    assert (done.appended, done.before, done.unreadable) == (40, 0, 0)
    assert counts(home) == (140, 0, 40)
    done = redrive(home.log, home.registry, home.lake, SKEW)
    assert (done.appended, done.before, done.unreadable) == (0, 40, 0)
    assert counts(home) == (140, 0, 40)
    # Each stands where its symbol's other records do.
    for file in home.lake.table("trades").snapshot().files.select():
        rows = pq.read_table(file.path, columns=["symbol", "log_partition"]).to_pylist()
        assert all(partition_of(r["symbol"], 3) == r["log_partition"] for r in rows)


class Stopping:
    """A log that stops before or after it has appended, or while the places are noted."""

    def __init__(self, log: Log, at: str) -> None:
        self._log = log
        self._at = at
        self._puts = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    def append(self, appends: Sequence[Append]) -> object:
        if self._at == "before":
            raise KeyboardInterrupt
        if self._at == "within":
            self._log.append(appends[:1])
            raise KeyboardInterrupt
        offsets = self._log.append(appends)
        if self._at == "after":
            raise KeyboardInterrupt
        return offsets

    def put(self, topic: str, key: str, value: str) -> None:
        self._puts += 1
        if self._at == "noting" and self._puts == 3:
            raise KeyboardInterrupt
        self._log.put(topic, key, value)


@pytest.mark.parametrize("at", ["before", "within", "after", "noting"])
def test_stopped_anywhere_it_goes_on(home: Home, at: str) -> None:
    make_readable(home)
    with pytest.raises(KeyboardInterrupt):
        redrive(Stopping(home.log, at), home.registry, home.lake, SKEW)  # type: ignore[arg-type]
    done = redrive(home.log, home.registry, home.lake, SKEW)
    assert done.appended + done.before == 40
    assert (done.appended == 40) == (at == "before")
    # Not one was doubled, or it would be a duplicate.
    assert counts(home) == (140, 0, 40)
