"""Audits that go on: the sums of whole ones, though each record is read once."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from k2.ingest import audit
from k2.ingest.auditing import WHOLE_EVERY, Auditing
from tests.query.make import random_trades
from tests.query.test_reader import Market


@pytest.fixture
def market(tmp_path: Path) -> Iterator[Market]:
    made = Market(tmp_path)
    yield made
    made.close()


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def some(market: Market, seed: int, r: np.random.Generator) -> None:
    """New records, and some that came before."""
    start = datetime(2024, 3, 4, int(r.integers(24)), tzinfo=UTC)
    market.append(
        random_trades(seed, int(r.integers(1, 40)), exchanges=("sim", "ASX"), start=start)
    )
    if r.integers(2):
        again = [dict(row) for row in market.appended[:: int(r.integers(2, 9))]]
        market.append_again(again)
    if r.integers(3) == 0:
        broken = random_trades(seed, 3, start=start)
        for row in broken:
            row["trade_id"], row["quantity"] = None, 0
        market.append_again(broken)


@pytest.mark.parametrize("seed", range(4))
def test_the_sums_are_those_of_whole_audits(market: Market, seed: int) -> None:
    r = np.random.default_rng(seed)
    auditing = Auditing(market.log, market.lake, Clock())
    for step in range(10):
        some(market, seed * 100 + step, r)
        if r.integers(2):
            market.commit()
        whole = audit(market.log, market.lake)
        assert whole.ok
        assert auditing.run() == whole
        assert auditing.run() == whole


def test_what_was_verified_is_read_once_a_day(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    opened = pq.ParquetFile

    def counted(path: Any, *given: Any, **more: Any) -> pq.ParquetFile:
        read.append(str(path))
        return opened(path, *given, **more)

    clock = Clock()
    auditing = Auditing(market.log, market.lake, clock)
    market.append(random_trades(1, 200))
    market.commit()
    auditing.run()
    market.append(random_trades(2, 50))
    market.commit()
    monkeypatch.setattr(pq, "ParquetFile", counted)
    found, once = auditing.run(), set(read)
    assert found.partitions == audit(market.log, market.lake).partitions
    index = market.lake.table("trades").snapshot().files
    old, new = ({f.path for f in index.select() if f.sequence == n} for n in (1, 2))
    assert not old & once
    assert new <= once
    read.clear()
    clock.now += WHOLE_EVERY.total_seconds() + 1
    auditing.run()
    assert old <= set(read)


def test_what_differs_is_told_until_it_does_no_more(market: Market) -> None:
    auditing = Auditing(market.log, market.lake, Clock())
    market.append(random_trades(1, 100))
    market.commit()
    assert auditing.run().ok
    market.append(random_trades(2, 100))
    market.commit()
    (file,) = (f for f in market.lake.table("trades").snapshot().files.select() if f.sequence == 2)
    away = Path(file.path).rename(file.path + ".away")
    for _ in range(2):
        found = auditing.run()
        assert not found.ok
        whole = audit(market.log, market.lake)
        assert [replace(p, problem="") for p in found.partitions] == [
            replace(p, problem="") for p in whole.partitions
        ]
    away.rename(file.path)
    assert auditing.run() == audit(market.log, market.lake)


def test_what_was_trimmed_since_still_counts(market: Market) -> None:
    auditing = Auditing(market.log, market.lake, Clock())

    def grow(*seeds: int) -> None:
        for seed in seeds:
            market.append(random_trades(seed, 100))
            market.commit()
        (topic,) = (name for name in market.log.topics() if ".trades." in name)
        market.log.trim(topic, 0, market.log.end_offset(topic, 0) - 1)
        assert market.log.start_offset(topic, 0) == market.log.end_offset(topic, 0) - 100

    def told() -> tuple[int, int, int]:
        found = auditing.run()
        assert found.ok
        return found.partitions[0].start_offset, found.partitions[0].end_offset, len(found.verified)

    grow(1)
    assert told() == (0, 100, 1)
    grow(2)
    assert told() == (0, 200, 1)
    # What nobody has looked at is gone: that is no longer one range.
    grow(3, 4)
    assert told() == (300, 400, 1)
    assert auditing.run() == audit(market.log, market.lake)
    grow(5)
    assert told() == (300, 500, 1)
