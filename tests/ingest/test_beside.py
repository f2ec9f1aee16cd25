"""Commits of several writers beside each other: as if one writer had decided all of it."""

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from k2.feeds import open_feed
from k2.ingest import CommitLimits, Writer, WriterOptions, audit
from k2.ingest.marks import symbols_in, symbols_of
from k2.log import Append, Producer
from tests.journeys.home import SKEW, Home, now, open_home

TRADES = "market.crypto.trades.simulated"


@dataclass(frozen=True)
class Fixed:
    """A membership whose partitions are given."""

    given: Mapping[str, frozenset[int]]

    def partitions(self) -> Mapping[str, frozenset[int]]:
        return self.given

    def leave(self) -> None:
        """There is nobody to leave."""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """400 trades in two partitions, none committed."""
    with open_home(tmp_path) as opened:
        feed = open_feed("simulator:?rate=max&kinds=trades&symbols=8&chunk=400", None, now)
        (records,) = feed.read()
        Producer(opened.log, opened.registry, 2).send(feed.exchanges[0], "trades", records.table)
        yield opened


def writer(
    home: Home, partition: int, on_step: Callable[[str], None] = lambda step: None
) -> Writer:
    member = Fixed({TRADES: frozenset({partition})})
    options = WriterOptions(skew=SKEW)
    return Writer(home.log, home.registry, home.lake, options, on_step, member)


def catch_up(home: Home, partition: int) -> None:
    writer(home, partition).run(lambda: False, until_caught_up=True)


def copy(home: Home, partition: int, to: int) -> int:
    """Append a partition's messages to another one, as no producer of K2's would."""
    batches = home.log.read(TRADES, partition, 0, 1 << 24)
    for batch in batches:
        home.log.append([Append(TRADES, to, int(batch.schema_ids[0]), batch.values)])
    return sum(len(batch.values) for batch in batches)


def fates(home: Home) -> list[tuple[int, int, int]]:
    found = audit(home.log, home.lake)
    assert found.ok
    return [(p.committed, p.duplicate, p.in_flight) for p in found.partitions]


def once(step: str, act: Callable[[], None]) -> Callable[[str], None]:
    """Do this before the first step of that name."""
    acted: list[bool] = []

    def on_step(name: str) -> None:
        if name == step and not acted:
            acted.append(True)
            act()

    return on_step


def test_a_writer_reads_its_own_partitions_alone(home: Home) -> None:
    end = [home.log.end_offset(TRADES, p) for p in (0, 1)]
    catch_up(home, 1)
    assert fates(home) == [(0, 0, end[0]), (end[1], 0, 0)]
    catch_up(home, 0)
    assert fates(home) == [(end[0], 0, 0), (end[1], 0, 0)]


def test_other_symbols_committed_meanwhile_are_no_conflict(
    home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    end = [home.log.end_offset(TRADES, p) for p in (0, 1)]
    between = once("commit", lambda: catch_up(home, 1))
    with caplog.at_level(logging.WARNING):
        writer(home, 0, between).run(lambda: False, until_caught_up=True)
    assert fates(home) == [(end[0], 0, 0), (end[1], 0, 0)]
    assert "reading again" not in caplog.text
    # Two commits, and the later one's summary has the whole document.
    offsets = home.lake.commits_of("trades")["offsets"].to_pylist()
    assert len(offsets) == 2
    assert f'"0":{end[0]},"1":{end[1]}' in offsets[1]


def test_the_same_records_committed_meanwhile_are_decided_again(
    home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    own = home.log.end_offset(TRADES, 1)
    n = copy(home, 0, to=1)
    between = once("commit", lambda: catch_up(home, 1))
    with caplog.at_level(logging.WARNING):
        writer(home, 0, between).run(lambda: False, until_caught_up=True)
    assert "reading again" in caplog.text
    assert fates(home) == [(0, n, 0), (own + n, 0, 0)]


def test_what_another_committed_is_known_later(home: Home) -> None:
    """A writer that was running all the while recognises it in a partition of its own."""
    copied: list[int] = []
    sequence = home.lake.table("trades").snapshot().sequence

    def stop() -> bool:
        done = home.lake.table("trades").snapshot()
        offsets = done.offsets.get(TRADES)
        if done.sequence > sequence and not copied:
            catch_up(home, 1)
            copied.append(copy(home, 1, to=0))
        reached = offsets.next_offset.get(0) if offsets else None
        return bool(copied) and reached == home.log.end_offset(TRADES, 0)

    own = home.log.end_offset(TRADES, 0)
    writer(home, 0).run(stop)
    assert fates(home) == [(own, copied[0], 0), (copied[0], 0, 0)]


def test_one_that_was_overtaken_goes_on(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    end = [home.log.end_offset(TRADES, p) for p in (0, 1)]
    between = once("commit", lambda: catch_up(home, 0))
    with caplog.at_level(logging.WARNING):
        writer(home, 0, between).run(lambda: False, until_caught_up=True)
    assert "reading again" in caplog.text
    assert fates(home) == [(end[0], 0, 0), (0, 0, end[1])]


def test_partitions_move_while_a_writer_runs(home: Home) -> None:
    """It gives one up with what it gathered, takes the other, and later has both."""
    given = [{TRADES: frozenset({0})}]

    class Moving(Fixed):
        def partitions(self) -> Mapping[str, frozenset[int]]:
            return given[-1]

    def stop() -> bool:
        offsets = home.lake.table("trades").snapshot().offsets.get(TRADES)
        reached = offsets.next_offset if offsets else {}
        if 0 in reached and len(given) == 1:
            catch_up(home, 1)
            copy(home, 0, to=1)
            given.append({TRADES: frozenset({1})})
        elif len(given) == 2 and reached.get(1) == home.log.end_offset(TRADES, 1):
            copy(home, 1, to=0)
            given.append({TRADES: frozenset({0, 1})})
        return len(given) == 3 and reached.get(0) == home.log.end_offset(TRADES, 0)

    own = [home.log.end_offset(TRADES, p) for p in (0, 1)]
    options = WriterOptions(skew=SKEW)
    moving = Moving({})
    Writer(home.log, home.registry, home.lake, options, membership=moving).run(stop)
    assert fates(home) == [(own[0], own[0] + own[1], 0), (own[1], own[0], 0)]


def test_symbols_are_told_apart_by_exchange(home: Home) -> None:
    def encoded(values: list[str | None]) -> pa.DictionaryArray:
        return pa.array(values, pa.dictionary(pa.int32(), pa.string()))

    rows = pa.table({"exchange": encoded(["a", "a", "b"]), "symbol": encoded(["X", "Y", None])})
    assert symbols_of(rows) == {("a", "X"), ("a", "Y"), ("b", "")}
    assert symbols_of(rows.drop_columns(["symbol"])) == {("a", ""), ("b", "")}
    catch_up(home, 0)
    files = [file.path for file in home.lake.table("trades").snapshot().files.select()]
    found = symbols_in(files, 0)
    assert found
    assert {exchange for exchange, _ in found} == {"simulated"}


def test_what_another_committed_is_not_brought_once_more(home: Home) -> None:
    """Read and not yet committed, it is committed by another; then the writer gains partitions."""
    given = [{TRADES: frozenset({0})}]
    extra = open_feed("simulator:?rate=max&kinds=trades&symbols=8&chunk=400&seed=5", None, now)

    class Moving(Fixed):
        def partitions(self) -> Mapping[str, frozenset[int]]:
            return given[-1]

    def append() -> None:
        (records,) = extra.read()
        Producer(home.log, home.registry, 2).send(extra.exchanges[0], "trades", records.table)

    turns: list[str] = []

    def stop() -> bool:
        offsets = home.lake.table("trades").snapshot().offsets.get(TRADES)
        reached = offsets.next_offset if offsets else {}
        if reached.get(0) and not turns:
            append()
            turns.append("read, and not yet due")
        elif len(turns) == 1:
            catch_up(home, 0)
            append()
            given.append({TRADES: frozenset({0, 1})})
            turns.append("committed by another")
        return len(turns) == 2 and all(
            reached.get(p) == home.log.end_offset(TRADES, p) for p in (0, 1)
        )

    limits = CommitLimits(interval=timedelta(seconds=0.5))
    options = WriterOptions(limits=limits, skew=SKEW)
    Writer(home.log, home.registry, home.lake, options, membership=Moving({})).run(stop)
    end = [home.log.end_offset(TRADES, p) for p in (0, 1)]
    assert [sum(found) for found in fates(home)] == end
    assert [found[2] for found in fates(home)] == [0, 0]
