"""What every feed must keep: one suite over all adapters of the room, against the port alone.

An adapter is any module of the room that opens feeds. Beside this file stands `feed_<adapter>.py`,
which opens a feed of it that ends: `open_finite(folder, position, clock)`.
"""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import pyarrow as pa
import pytest

import k2.feeds
from k2.feeds import EndOfFeed, Feed
from k2.model import Exchange, kinds, latest

Clock = Callable[[], datetime]
Open = Callable[[str | None], Feed]

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)


def adapters() -> list[str]:
    """Modules of the room that open feeds."""
    names = [module.name for module in iter_modules(k2.feeds.__path__)]
    return [
        name
        for name in names
        if {"open_feed", "open_file"} & vars(import_module(f"k2.feeds.{name}")).keys()
    ]


@pytest.fixture(params=adapters())
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Opens the adapter's feed at a position; all are closed in the end."""
    adapter = import_module(f"tests.contracts.feed_{request.param}")
    feeds: list[Feed] = []

    def at(position: str | None) -> Feed:
        feeds.append(adapter.open_finite(tmp_path, position, lambda: NOON))
        return feeds[-1]

    yield at
    for feed in feeds:
        feed.close()


def rest_of(feed: Feed) -> dict[tuple[str, str], Any]:
    """All that is left in a feed, by exchange and kind."""
    found: dict[tuple[str, str], list[pa.Table]] = {}
    while True:
        try:
            records = feed.read()
        except EndOfFeed:
            return {lane: pa.concat_tables(tables).to_pylist() for lane, tables in found.items()}
        for each in records:
            found.setdefault((each.exchange, each.kind), []).append(each.table)


def test_records_have_the_model_s_columns_and_a_declared_exchange(opened: Open) -> None:
    feed = opened(None)
    declared = [exchange.name for exchange in feed.exchanges]
    assert all(isinstance(exchange, Exchange) for exchange in feed.exchanges)
    assert len(set(declared)) == len(declared) > 0
    reads = 0
    while True:
        try:
            found = feed.read()
        except EndOfFeed:
            break
        reads += 1
        for records in found:
            assert records.kind in kinds()
            assert records.exchange in declared
            assert records.table.num_rows > 0
            assert records.table.schema.equals(latest(records.kind).arrow)
            records.table.validate(full=True)
            for field in records.table.schema:
                assert field.nullable or records.table[field.name].null_count == 0
            assert set(records.table["exchange"].to_pylist()) == {records.exchange}
            assert set(records.table["ingestion_timestamp"].to_pylist()) == {NOON}
    assert reads > 2


def test_two_feeds_of_one_source_are_the_same(opened: Open) -> None:
    one, other = opened(None), opened(None)
    assert one.name == other.name
    assert one.name
    assert list(one.exchanges) == list(other.exchanges)
    assert rest_of(one) == rest_of(other)


def test_reading_goes_on_at_any_position(opened: Open) -> None:
    whole = rest_of(opened(None))
    feed = opened(None)
    before: dict[tuple[str, str], list[dict[str, object]]] = {}
    while True:
        position = feed.position()
        assert feed.position() == position  # asking changes nothing
        again = opened(position)
        assert again.position() == position
        after = rest_of(again)
        lanes = before.keys() | after.keys()
        assert {lane: before.get(lane, []) + after.get(lane, []) for lane in lanes} == whole
        try:
            found = feed.read()
        except EndOfFeed:
            break
        for each in found:
            before.setdefault((each.exchange, each.kind), []).extend(each.table.to_pylist())
    assert before == whole


def test_the_end_stays_the_end(opened: Open) -> None:
    feed = opened(None)
    rest_of(feed)
    position = feed.position()
    for _ in range(2):
        with pytest.raises(EndOfFeed):
            feed.read()
    assert feed.position() == position
    assert rest_of(opened(position)) == {}


def test_a_read_does_not_block(opened: Open) -> None:
    feed = opened(None)
    took = []
    try:
        while True:
            began = time.monotonic()
            feed.read()
            took.append(time.monotonic() - began)
    except EndOfFeed:
        pass
    # The port says 100 ms; one or the other read may meet a busy machine.
    assert sorted(took)[len(took) // 2] < 0.1
